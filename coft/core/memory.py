"""Whether an error says that memory has run out."""

from __future__ import annotations


def lacks_memory(error: Exception) -> bool:
    """Whether torch has found no memory, on whatever device."""
    return type(error).__name__ == "OutOfMemoryError" or (
        isinstance(error, RuntimeError)
        and any(words in str(error) for words in ("DefaultCPUAllocator", "out of memory"))
    )
