"""Memory that training frees is kept for its next step, instead of being given back to the system and asked for again."""

import ctypes
import functools
import platform
import sys

TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD = -1, -2, -3  # of glibc's malloc.h
LARGEST_MMAP_THRESHOLD = 32 << 20  # glibc takes no more
KEPT_BYTES = (2 << 30) - 1  # mallopt takes an int
PAD_BYTES = 64 << 20


@functools.cache
def keep_freed_memory() -> bool:
    """Tell glibc's malloc to keep what is freed; returns whether it could be told. Other systems are left as they are.

    A training step frees and asks for the same blocks of some megabytes over and over. By default glibc maps each of them anew,
    and the kernel fills it with zeros, page by page.
    """
    if sys.platform != "linux" or platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return all(
        mallopt(option, value) == 1
        for option, value in (
            (MMAP_THRESHOLD, LARGEST_MMAP_THRESHOLD),
            (TRIM_THRESHOLD, KEPT_BYTES),
            (TOP_PAD, PAD_BYTES),
        )
    )
