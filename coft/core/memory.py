"""Detection of out-of-memory errors."""

from __future__ import annotations


def is_out_of_memory(error: Exception) -> bool:
    """Return whether an error of torch means that a device, CPU or GPU, is out of memory."""
    return type(error).__name__ == "OutOfMemoryError" or (
        isinstance(error, RuntimeError)
        and any(words in str(error) for words in ("DefaultCPUAllocator", "out of memory"))
    )
