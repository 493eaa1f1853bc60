"""Map torch's largest library while Python imports other things."""

import ctypes
import sys
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from threading import Thread


def preload_torch() -> None:
    """Begin in a thread that does not hold the interpreter's lock: the import of torch takes a
    quarter of a second less afterwards. What cannot be had here, the import gets or misses.
    """
    if sys.platform != "linux" or "torch" in sys.modules:
        return
    if (spec := find_spec("torch")) is None or spec.origin is None:
        return
    library = Path(spec.origin).parent / "lib" / "libtorch_cpu.so"

    def load() -> None:
        with suppress(OSError):
            ctypes.CDLL(str(library))

    Thread(target=load, daemon=True).start()
