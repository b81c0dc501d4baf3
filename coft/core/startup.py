"""Process settings to apply before torch is imported: waiting of threads, and reuse of freed memory."""

from __future__ import annotations

import ctypes
import os
import warnings

# Options of glibc's mallopt: number of free bytes that are kept, instead of returned to the system; size above which
# blocks are mapped separately (glibc accepts no larger value); number of memory arenas, here one for all threads.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
OPTIONS = {M_TRIM_THRESHOLD: 1 << 30, M_MMAP_THRESHOLD: 1 << 25, M_ARENA_MAX: 1}


def configure_process() -> None:
    """Apply the settings. Entry points call this; the library leaves it to the program that uses it.

    Threads of GNU OpenMP spin while they wait for each other, which made steps 40 times slower beside a busy process. A
    short spin costs nothing on an idle machine. By default, glibc returns the memory of each activation to the system,
    and the pages must be allocated again for each batch: a sixth of the time of a prediction.
    """
    warnings.filterwarnings("ignore", message="pkg_resources is deprecated")
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None  # in glibc only
    if mallopt is not None:
        for option, value in OPTIONS.items():
            mallopt(option, value)
