"""The allocator of a program that trains: large blocks are kept for the next step, not given back to the system."""

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Of glibc's mallopt(3)."""


def keep_memory() -> bool:
    """Keep freed memory for reuse, until the process ends; whether the system's allocator can do that.

    glibc maps and unmaps every large block, and each fresh page costs a fault: with batches of 128 about a third of
    a training step. For programs, not for libraries: the process never shrinks again.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, 2**31 - 1))
