"""What a long run holds of the machine's memory."""

import ctypes
import os

_LIBRARY = ctypes.CDLL(None) if os.name == "posix" else None


def give_back() -> None:
    """Have the C library give what was freed back to the system.

    glibc keeps the buffers of an evaluation, some tens of MiB, and cuts smaller ones out of them, so that the
    next evaluation takes new memory: a process can grow for hours although nothing leaks. Other C libraries
    have no ``malloc_trim``; there nothing is done.
    """
    trim = getattr(_LIBRARY, "malloc_trim", None)
    if trim is not None:
        trim(0)
