"""Keep freed memory for the next array instead of returning it to the system.

A training step makes and drops hundreds of arrays, the same sizes in every step. The C library hands freed memory back
to the system as soon as there is much of it, and the next array gets it anew: page by page, each cleared on its first
touch. In a step of a small network that is a tenth of the time. So a command asks the C library to keep what it has. A
program of your own that imports minifcn is not meddled with: it calls `keep_freed_memory()` if it likes.
"""

import ctypes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # as glibc's malloc.h numbers them
LARGE = 32 << 20
"""Bytes from which an array comes and goes by itself all the same: kept, it would leave gaps that nothing fits into."""


def keep_freed_memory() -> bool:
    """Return whether the C library could be asked: glibc can; others, and other systems, go on as they do."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # no such function; on Windows, no such library
        return False
    return bool(mallopt(M_TRIM_THRESHOLD, -1) and mallopt(M_MMAP_THRESHOLD, LARGE))
