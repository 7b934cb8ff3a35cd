"""How the C library treats large buffers."""

from __future__ import annotations

import contextlib
import ctypes
import sys

__all__ = ["keep_memory"]


def keep_memory() -> None:
    """Asks glibc to keep large buffers instead of handing them back to the system after every operation.

    Convolutional networks on a CPU then take about a third less time. Other C libraries are left alone.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            libc = ctypes.CDLL("libc.so.6")
            libc.mallopt(-3, 1 << 30)  # M_MMAP_THRESHOLD
            libc.mallopt(-1, 1 << 30)  # M_TRIM_THRESHOLD
