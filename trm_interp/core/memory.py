"""Make the C allocator keep what is freed.

A network evaluation frees its activations and asks for the same again at the next one. glibc
hands large blocks back to the kernel each time and pays for every page on the way back in; on
virtual machines that can cost more than the arithmetic (`experiments/bench.py` measures it).
"""

import ctypes
import sys
from pathlib import Path

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
LARGEST_INT = 2**31 - 1


def keep_freed_memory() -> bool:
    """Never return freed memory to the kernel in this process; False where that is not possible."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # not glibc
        return False
    settings = {M_MMAP_MAX: 0, M_TRIM_THRESHOLD: LARGEST_INT, M_TOP_PAD: 64 * 2**20}
    return all(mallopt(ctypes.c_int(key), ctypes.c_int(value)) for key, value in settings.items())


def peak_memory() -> int:
    """Largest resident size of this program, bytes.

    getrusage would do, but its number outlives exec: a child starts with its parent's peak.
    """
    status = Path("/proc/self/status")
    if status.exists():
        return 1024 * int(status.read_text().split("VmHWM:")[1].split()[0])
    import resource

    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
