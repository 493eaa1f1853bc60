"""A compiler that is missing, stopped or finds its cache damaged: mended, or one line."""

import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._inductor.exc import CppCompileError, InductorError, InvalidCxxCompiler

from trm_interp.core import compiling
from trm_interp.core.compiling import (
    CompileStopped,
    Mender,
    compile_networks,
    is_compiling,
    stop_compiling,
)
from trm_interp.core.training.loop import train
from trm_interp.core.training.trainer import STATE_FILE, Trainer
from trm_interp.runtime.errors import UserError
from trm_interp.runtime.signals import stop_signals

KEY = "c" + "a" * 51


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A compile cache of its own, for tests that leave it for an empty one."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(folder))
    monkeypatch.setenv("TRITON_CACHE_DIR", str(folder / "triton"))
    (folder / "aa").mkdir(parents=True)
    (folder / "aa" / f"{KEY}.main.so").write_bytes(b"ELF")
    (folder / "aa" / f"c{'b' * 51}.main.so").write_bytes(b"whole")
    yield folder
    torch.compiler.reset()


def failing(*errors: Exception) -> Callable[[], str]:
    """A call that ends in these errors, one after the other, and then succeeds."""
    left = list(errors)

    def call() -> str:
        if left:
            raise left.pop(0)
        return "done"

    return call


def damaged(cache: Path) -> InductorError:
    file = cache / "aa" / f"{KEY}.main.so"
    return InductorError(ImportError(f"{file}: file too short"), None)


def test_a_damaged_entry_is_removed_and_compiled_again(cache: Path):
    lines: list[str] = []
    assert Mender(lines.append).guard(failing(damaged(cache)))() == "done"
    assert [f.name for f in (cache / "aa").iterdir()] == [f"c{'b' * 51}.main.so"]
    assert lines == [f"{cache}: the compiler's cache is damaged: compiling again"]


def test_what_fails_again_is_tried_with_an_empty_cache_and_then_told(cache: Path):
    lines: list[str] = []
    broken = [InductorError(CppCompileError(["g++", "x.cpp"], "a\nb\n" * 600), None)] * 9
    with pytest.raises(UserError, match=r"torch.compile failed \(C\+\+ compile error\): leave out"):
        Mender(lines.append).guard(failing(*broken))()
    assert len(lines) == 1 and "again with an empty cache" in lines[0]
    assert compiling.os.environ["TORCHINDUCTOR_CACHE_DIR"] != str(cache)
    same = [damaged(cache)] * 9  # an entry that is removed once is not removed for ever
    with pytest.raises(UserError, match="file too short"):
        Mender(lines.append).guard(failing(*same))()


def test_without_a_compiler():
    for error in (
        InductorError(InvalidCxxCompiler(), None),
        InvalidCxxCompiler("g++"),
        InductorError(RuntimeError("Failed to find C compiler. Please specify via CC"), None),
    ):
        with pytest.raises(UserError, match=r"install g\+\+ .* or leave out --compile"):
            Mender(print).guard(failing(error))()


def test_what_the_compiled_code_raises_is_passed_on():
    for error in (ValueError("shape"), RuntimeError("CUDA error"), torch.OutOfMemoryError("8 GB")):
        with pytest.raises(type(error), match=str(error)):
            Mender(print).guard(failing(error))()
    with pytest.raises(InductorError, match="out of memory"):
        Mender(print).guard(failing(InductorError(RuntimeError("out of memory"), None)))()


def test_ctrl_c_inside_the_compiler_is_no_failure_of_it():
    stopped = InductorError(RuntimeError("a worker ended"), None)
    stopped.__cause__ = KeyboardInterrupt()
    with pytest.raises(CompileStopped):
        Mender(print).guard(failing(stopped))()


class Doubled(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * x


def compiled_with(backend: Callable[..., Any]) -> Doubled:
    """A module that torch compiles with this function, under the guard."""
    net = Doubled()
    net.compile(backend=backend)
    net._compiled_call_impl = Mender(print).guard(net._compiled_call_impl)  # type: ignore
    return net


def test_a_signal_while_torch_compiles_stops_at_once_and_otherwise_at_the_next_step():
    def interrupted(graph: Any, example_inputs: Any) -> Any:
        signal.raise_signal(signal.SIGINT)
        return graph

    with stop_signals(stop_compiling) as should_stop:
        with pytest.raises(CompileStopped):
            compiled_with(interrupted)(torch.ones(2))
        assert not should_stop()
        signal.raise_signal(signal.SIGTERM)
        assert should_stop() and not is_compiling(None)


def test_every_size_of_a_batch_is_compiled():
    """More of them than torch's own limit, after which it goes on without compiling."""
    sizes: list[int] = []

    class Doubling(nn.Module):
        def compile(self, **_: Any) -> None:
            super().compile(dynamic=False, backend=noting)

        def forward(self, x: Tensor) -> Tensor:
            return 2 * x

    def noting(graph: Any, inputs: list[Tensor]) -> Any:
        sizes.append(len(inputs[0]))
        return graph.forward

    net = Doubling()
    compile_networks([net])
    for size in [*range(2, 14), 2]:
        assert net(torch.ones(size)).sum() == 2 * size
    assert sizes == [*range(2, 14)]


def test_a_backend_that_fails_once_is_called_again():
    calls = []

    def moody(graph: Any, example_inputs: Any) -> Any:
        calls.append(graph)
        if len(calls) == 1:
            raise ImportError("file too short")
        return graph

    assert compiled_with(moody)(torch.ones(2)).tolist() == [2, 2]
    assert len(calls) == 2


# a training run


def test_a_backward_pass_that_fails_to_compile_is_repeated_with_the_same_step(
    make: Callable[..., Trainer], monkeypatch: pytest.MonkeyPatch
):
    plain, trainer = make("plain", steps=6), make("mended", steps=6)
    trainer.mender = Mender(print)
    backward, left = Tensor.backward, [InductorError(ImportError("file too short"), None)]

    def moody(self: Tensor, *args: Any) -> None:
        backward(self, *args)
        if trainer.step_count == 3 and left:
            raise left.pop()

    train(plain)
    monkeypatch.setattr(Tensor, "backward", moody)
    train(trainer)
    assert not left
    for one, other in zip(plain.model.parameters(), trainer.model.parameters(), strict=True):
        assert torch.equal(one, other)


def broken_compile(error: Exception) -> Callable[..., None]:
    """In place of `nn.Module.compile`: what it makes ends in this error."""

    def compile_(self: nn.Module, **how: Any) -> None:
        def call(*args: Any) -> Any:
            raise error

        self._compiled_call_impl = call  # type: ignore[assignment]

    return compile_


def assert_same_run(one: Trainer, other: Trainer) -> None:
    for a, b in zip(one.model.parameters(), other.model.parameters(), strict=True):
        assert torch.equal(a, b)
    assert one.step_count == other.step_count


@pytest.mark.parametrize(
    "error",
    [
        InductorError(CppCompileError(["g++"], "cc1plus: error\nmore"), None),
        InvalidCxxCompiler("g++"),
        ValueError("a bug of the compiler\nin two lines"),
        RuntimeError("Triton Error [CUDA]: device kernel image is invalid"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_first_step_that_fails_to_compile_goes_on_without(
    make: Callable[..., Trainer], monkeypatch: pytest.MonkeyPatch, error: Exception
):
    plain = make("plain", steps=6)
    train(plain)
    monkeypatch.setattr(nn.Module, "compile", broken_compile(error))
    trainer = make("broken", steps=6, compile=True)
    lines: list[str] = []
    trainer.tell = lines.append
    train(trainer)
    assert_same_run(trainer, plain)
    assert "going on without it" in lines[-1] and "\n" not in lines[-1]
    # a compiler that is there and fails is first tried with an empty cache
    assert len(lines) == (2 if isinstance(error, InductorError) else 1)
    saved = torch.load(trainer.out / STATE_FILE, weights_only=True)
    assert saved["changes"] == [{"after_step": 0, "compile": [True, False]}]


def works(self: nn.Module, **how: Any) -> None:
    """In place of `nn.Module.compile`: nothing is compiled, and nothing fails."""
    self._compiled_call_impl = self._call_impl  # type: ignore[assignment]


@pytest.mark.parametrize("at", [0, 3])
def test_a_backward_pass_that_cannot_be_compiled_costs_compiling_not_the_run(
    make: Callable[..., Trainer], monkeypatch: pytest.MonkeyPatch, at: int
):
    """In the first step any error is the compiler's; later only those that name it are."""
    plain = make("plain", steps=6)
    train(plain)
    monkeypatch.setattr(nn.Module, "compile", works)
    backward = Tensor.backward

    def moody(self: Tensor, *args: Any) -> None:
        backward(self, *args)
        compiled = any(net._compiled_call_impl for net in trainer.model.networks())
        if trainer.step_count == at and compiled:
            raise RuntimeError("misaligned") if error is None else error

    error: Exception | None = None
    monkeypatch.setattr(Tensor, "backward", moody)
    trainer = make("first", steps=6, compile=True)
    lines: list[str] = []
    trainer.tell = lines.append
    if at == 0:
        train(trainer)
        assert_same_run(trainer, plain)
        assert lines == ["torch.compile failed (misaligned): going on without it"]
        return
    with pytest.raises(RuntimeError, match="misaligned"):
        train(trainer)
    error = InductorError(RuntimeError("no kernel"), None)
    trainer = make("again", steps=6, compile=True)
    trainer.tell = lines.append
    train(trainer)
    assert_same_run(trainer, plain)
    assert lines[-1] == "torch.compile failed (no kernel): going on without it"


def test_a_validation_that_fails_to_compile_goes_on_without(
    make: Callable[..., Trainer], monkeypatch: pytest.MonkeyPatch
):
    plain = make("plain", steps=6)
    train(plain)

    def only_with_gradient(self: nn.Module, **how: Any) -> None:
        def call(*args: Any) -> Any:
            if not torch.is_grad_enabled() and validating:
                raise InductorError(RuntimeError("no kernel"), None)
            return self._call_impl(*args)

        self._compiled_call_impl = call  # type: ignore[assignment]

    validating = False
    monkeypatch.setattr(nn.Module, "compile", only_with_gradient)
    trainer = make("validation", steps=6, compile=True)
    validate = trainer.validate

    def validate_and_note() -> dict[str, Any]:
        nonlocal validating
        validating = True
        return validate()

    trainer.validate = validate_and_note  # type: ignore[method-assign]
    train(trainer)
    assert_same_run(trainer, plain)
    assert trainer.best == plain.best
    assert trainer.changes == [{"after_step": 4, "compile": [True, False]}]


@pytest.mark.parametrize("at", [0, 4, 7])  # before the first save, in a validation, after a save
def test_a_stop_while_compiling_can_be_resumed(make: Callable[..., Trainer], at: int):
    plain, stopped = make("plain"), make("stopped")
    train(plain)

    def stop(*args: Any) -> Any:
        raise CompileStopped

    step, validate = stopped.step, stopped.validate
    stopped.step = lambda: stop() if stopped.step_count == at != 4 else step()  # type: ignore
    stopped.validate = lambda: stop() if at == 4 else validate()  # type: ignore
    with pytest.raises(KeyboardInterrupt):
        train(stopped)
    assert torch.load(stopped.out / STATE_FILE, weights_only=True)["step"] == at
    resumed = make("stopped")
    resumed.resume()
    train(resumed)
    for one, other in zip(plain.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.fixture
def without_headers() -> Iterator[None]:
    """No precompiled headers, put back by torch's own hands: monkeypatch would lose the entry."""
    import torch._inductor.config as inductor

    with inductor.patch(cpp_cache_precompile_headers=False):
        yield


def test_a_truncated_file_in_the_cache_of_torch_itself(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, without_headers: None
):
    lines: list[str] = []

    def compile_in(folder: Path) -> list[float]:
        monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(folder))
        compiling._forget()
        net = Doubled()
        compile_networks([net], dynamic=False, tell=lines.append)
        with torch.no_grad():
            return net(torch.ones(3)).tolist()

    assert compile_in(cache) == [2, 2, 2] and not lines
    other = tmp_path / "other"  # a loaded library must not change under its process
    shutil.copytree(cache, other)
    libraries = [f for f in other.glob("*/*.main.so") if f.parent.name != "aa"]
    assert libraries
    for file in libraries:
        file.write_bytes(file.read_bytes()[:100])
    assert compile_in(other) == [2, 2, 2]
    assert lines == [f"{other}: the compiler's cache is damaged: compiling again"]
