"""What a process settles before torch is imported: how threads wait, and what becomes of freed memory."""

from __future__ import annotations

import ctypes
import os
import warnings

# Options of glibc's mallopt, by number: so many free bytes are kept; only larger blocks come anew from the system, and
# glibc takes no higher bound; all threads share what is kept.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
OPTIONS = {M_TRIM_THRESHOLD: 1 << 30, M_MMAP_THRESHOLD: 1 << 25, M_ARENA_MAX: 1}


def settle() -> None:
    """Settle it, for an entry point to call; a library leaves this to whoever uses it.

    Threads of GNU OpenMP spin while they wait for each other; beside a busy process steps got 40 times slower by it. A
    short spin costs nothing on an idle machine. By default glibc gives the memory of each activation back to the
    system, whose pages have to be made anew in each batch: a sixth of the time of a prediction.
    """
    warnings.filterwarnings("ignore", message="pkg_resources is deprecated")
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None  # glibc's alone
    if mallopt is not None:
        for option, value in OPTIONS.items():
            mallopt(option, value)
