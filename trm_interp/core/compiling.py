"""torch.compile, with failures that mend themselves or end in one line.

What was compiled is kept on disk, and a process that is killed while it compiles can leave a
truncated file there, on which every later run of the same network would fail.
"""

import atexit
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import nn

from trm_interp.runtime.errors import UserError, first_line, is_out_of_memory

# of the exceptions that torch raises while it compiles, and of none while compiled code runs
COMPILERS_OWN = {"TorchDynamoException", "CppCompileError", "InvalidCxxCompiler"}
WHILE_COMPILING = ("torch._dynamo.convert_frame", "torch._inductor.compile_fx")
NO_COMPILER = re.compile(
    r"No working C\+\+ compiler|Compiler: \S+ is not found|Failed to find C compiler"
    r"|Cannot find a working triton"
)
# variants of one function that torch compiles before it goes on without: networks share theirs, and
# whether gradients are kept, which inputs carry them and the size of a batch make a variant each
MOST_VARIANTS = 64
ENTRY = re.compile(r"\bc[a-z2-7]{51}\b")  # name of a file in the cache, without its ending


class CompileStopped(KeyboardInterrupt):
    """Stopped while compiling: nothing of the step has happened yet."""


def is_compiling(frame: FrameType | None) -> bool:
    """Whether this frame, as a signal handler gets it, runs inside torch's compiler."""
    while frame is not None:
        if frame.f_globals.get("__name__") in WHILE_COMPILING:
            return True
        frame = frame.f_back
    return False


def stop_compiling(frame: FrameType | None) -> None:
    """For `runtime.signals.stop_signals`: CompileStopped where a signal arrives in the compiler.

    A step that is still being compiled can take minutes, and Ctrl-C reaches the compilers it waits
    for too.
    """
    if is_compiling(frame):
        raise CompileStopped


def compile_networks(
    networks: Iterable[nn.Module],
    dynamic: bool | None = None,
    tell: Callable[[str], None] = lambda line: None,
    gave_up: Callable[[], None] | None = None,
) -> "Mender":
    """Compile each network at its next call. The mender is for a backward pass, compiled later.

    With `gave_up` a compiler that fails is no error: the networks run as they are from then on,
    `tell` gets the reason in one line, and `gave_up` is called. This holds for whatever else goes
    wrong in the first pass, too.
    """
    networks = list(networks)
    dynamo: Any = import_module("torch._dynamo.config")
    dynamo.recompile_limit = max(dynamo.recompile_limit, MOST_VARIANTS)

    def leave() -> None:
        for net in networks:
            net._compiled_call_impl = None
        if gave_up:
            gave_up()

    mender = Mender(tell, leave if gave_up else None)
    for net in networks:
        net.compile(dynamic=dynamic)
        net._compiled_call_impl = mender.guard(net._compiled_call_impl, net._call_impl)  # type: ignore
    return mender


class Mender:
    """Decides what follows an error of compiled code: once more, another error, or the same.

    `leave`, where it is given, ends compiling instead of the run. `is_proven` is for the caller to
    set when a first pass, with its backward pass, has succeeded; before, every error counts as one
    of the compiler.
    """

    def __init__(
        self, tell: Callable[[str], None], leave: Callable[[], None] | None = None
    ) -> None:
        self.tell, self.leave, self.is_fresh = tell, leave, False
        self.is_proven, self.has_left = False, False
        self.removed: set[Path] = set()

    def guard(
        self, call: Callable[..., Any], plain: Callable[..., Any] | None = None
    ) -> Callable[..., Any]:
        """The same function; it is called again where the mender could do something.

        `plain` is what is called where compiling was given up.
        """

        def guarded(*args: Any, **kwargs: Any) -> Any:
            while True:
                try:
                    return (plain if plain and self.has_left else call)(*args, **kwargs)
                except Exception as error:
                    if not self.mend(error):
                        raise

        return guarded

    def mend(self, error: Exception) -> bool:
        """Whether to call again. Removes a damaged entry of the cache, then leaves the cache.

        Where there is no compiler or nothing helped, gives compiling up or raises UserError. False
        for what has nothing to do with compiling. CompileStopped after Ctrl-C.
        """
        causes = list(_chain(error))
        is_compilers = any(c.__name__ in COMPILERS_OWN for e in causes for c in type(e).__mro__)
        if is_compilers and any(isinstance(cause, KeyboardInterrupt) for cause in causes):
            raise CompileStopped from None
        if any(is_out_of_memory(cause) for cause in causes) or self.has_left or _is_capturing():
            return False
        if not is_compilers:
            return self._give_up(error) if self.leave and not self.is_proven else False
        try:
            self._repair(error, causes)
        except UserError as nothing_helped:
            if not self.leave:
                raise
            return self._give_up(nothing_helped.__cause__ or error)
        return True

    def _give_up(self, error: BaseException) -> bool:
        """Run the networks as they are from now on."""
        assert self.leave is not None
        self.has_left = True
        torch._dynamo.reset()
        self.leave()
        self.tell(f"torch.compile failed ({_reason(list(_chain(error)))}): going on without it")
        return True

    def _repair(self, error: Exception, causes: list[BaseException]) -> None:
        """Make another attempt possible. UserError where there is no compiler or nothing helped."""
        if NO_COMPILER.search(str(error)):
            raise UserError(
                "--compile found no working compiler: install g++ (or set CXX to one), and on a "
                "GPU triton, or leave out --compile"
            ) from error
        folder = Path(os.environ.get("TORCHINDUCTOR_CACHE_DIR", tempfile.gettempdir()))
        damaged = {file for name in ENTRY.findall(str(error)) for file in folder.glob(f"*/{name}*")}
        if damaged - self.removed:
            self.tell(f"{folder}: the compiler's cache is damaged: compiling again")
            for file in damaged:
                file.unlink(missing_ok=True)
            self.removed |= damaged
        elif not self.is_fresh:
            self.tell(f"compiling failed ({first_line(causes[-1])}): again with an empty cache")
            self._leave_cache()
        else:
            raise UserError(
                f"torch.compile failed ({_reason(causes)}): leave out --compile"
            ) from error
        _forget()

    def _leave_cache(self) -> None:
        """Use an empty cache in this process, removed at its end."""
        fresh = tempfile.mkdtemp(prefix="trm-interp-compiled-")
        atexit.register(shutil.rmtree, fresh, ignore_errors=True)
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = fresh
        os.environ["TRITON_CACHE_DIR"] = os.path.join(fresh, "triton")
        self.is_fresh = True


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and all that it came from; the first cause is the last."""
    left: list[BaseException | None] = [error]
    seen: list[BaseException] = []
    while left:
        one = left.pop(0)
        if one is None or any(one is other for other in seen):
            continue
        seen.append(one)
        yield one
        inner = getattr(one, "inner_exception", None)  # torch's own way to say `from`
        left += [inner, one.__cause__, one.__context__]


def _reason(causes: list[BaseException]) -> str:
    """The first cause in at most 150 characters."""
    why = first_line(causes[-1])
    return why if len(why) <= 150 else f"...{why[-147:]}"  # a path first, the reason last


def _is_capturing() -> bool:
    """Whether a CUDA graph is being captured, in which nothing can be repeated."""
    return torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()


def _forget() -> None:
    """Drop what this process holds of compiled code, so that the next call compiles."""
    import torch._inductor.utils as utils

    torch._dynamo.reset()
    getattr(utils, "clear_caches", utils.clear_inductor_caches)()
