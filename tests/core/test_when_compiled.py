"""The rule by which a run compiles its networks, and what is said about it."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from trm_interp.core import when_compiled
from trm_interp.core.models.trm import TRM
from trm_interp.core.models.trm_config import TRMConfig
from trm_interp.core.when_compiled import PAYS_FROM, compile_where_it_pays, pays, run_flops
from trm_interp.runtime.errors import UserError

CPU = torch.device("cpu")


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[tuple[nn.Module, int]]:
    """In place of torch's compiler: modules with the batches that they were called with as if
    compiled."""
    calls: list[tuple[nn.Module, int]] = []

    def compile_(self: nn.Module, **how: Any) -> None:
        def call(h: torch.Tensor, injection: torch.Tensor) -> Any:
            assert h.is_contiguous() and injection.is_contiguous()
            calls.append((self, len(h)))
            return self._call_impl(h, injection)

        self._compiled_call_impl = call  # type: ignore[assignment]

    monkeypatch.setattr(nn.Module, "compile", compile_)
    return calls


def test_the_threshold_by_hand():
    # twice 60 s over the twentieth that is saved at least is 2 400 s, at 1e11 operations a second
    assert pytest.approx(2.4e14) == PAYS_FROM
    # 21 evaluations of 1 220 542 464 operations, and 2 x 81 x 512 x 11 of the head
    assert run_flops(TRMConfig(), 3) == 3 * (21 * 1_220_542_464 + 912_384)


@pytest.mark.parametrize(
    ("flops", "device", "dtype", "amx", "expected"),
    [
        (2.39e14, "cpu", torch.float32, False, False),
        (2.41e14, "cpu", torch.float32, False, True),
        (2.41e14, "cpu", torch.float32, True, True),
        (2.41e14, "cpu", torch.bfloat16, False, True),
        (1e18, "cpu", torch.bfloat16, True, False),
        (1e18, "cuda", torch.float32, False, False),
    ],
)
def test_where_compiling_pays(
    flops: float,
    device: str,
    dtype: torch.dtype,
    amx: bool,
    expected: bool,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(when_compiled, "has_amx", lambda: amx)
    assert pays(flops, torch.device(device), dtype) == expected


def test_this_processor_has_amx_or_not():
    assert when_compiled.has_amx() in (True, False)


def test_short_work_is_not_compiled(tiny_mlp: TRM, compiled: list[Any]):
    lines: list[str] = []
    assert not compile_where_it_pays(tiny_mlp, "auto", 10_000, tell=lines.append)
    assert not compile_where_it_pays(tiny_mlp, "never", 10**12, tell=lines.append)
    assert not compile_where_it_pays(tiny_mlp, "never", 1, tell=lines.append, earlier=True)
    assert not compile_where_it_pays(tiny_mlp, "auto", 10**12, tell=lines.append, earlier=False)
    assert not lines and not compiled and tiny_mlp.net._compiled_call_impl is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_long_work_is_compiled_and_says_so(
    tiny_mlp: TRM, compiled: list[Any], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(when_compiled, "has_amx", lambda: False)  # where bfloat16 never pays
    lines: list[str] = []
    steps = round(PAYS_FROM / run_flops(tiny_mlp.config, 1)) + 1
    assert compile_where_it_pays(tiny_mlp, "auto", steps, dtype, lines.append)
    assert lines[0] == (
        "compiling the network: about 40 min 00 s of work ahead on one core (--compile never "
        "leaves it out)"
    )
    assert lines[1].startswith("compiled in 0 s: an evaluation takes ")
    assert compiled[0] == (tiny_mlp.net, 16)
    before = len(compiled)
    x = torch.zeros(3, tiny_mlp.config.positions, 8, dtype=dtype)
    with torch.no_grad():
        tiny_mlp.advance(tiny_mlp.initial_state(x), x)  # begins with expanded start vectors
    assert compiled[before:] == [(tiny_mlp.net, 3)] * 6  # 2 H-cycles of 2 + 1 evaluations


@pytest.mark.parametrize(("slow", "lines"), [("compiled", 3), ("eager", 2)])
def test_what_is_slower_is_told(
    tiny_mlp: TRM,
    compiled: list[Any],
    slow: str,
    lines: int,
    monkeypatch: pytest.MonkeyPatch,
):
    def seconds(call: Callable[..., Any], operands: Any) -> float:
        return 2.0 if isinstance(call, nn.Module) == (slow == "compiled") else 1.0

    monkeypatch.setattr(when_compiled, "_seconds", seconds)
    told: list[str] = []
    assert compile_where_it_pays(tiny_mlp, "always", 1, tell=told.append)
    ratio = {"compiled": "2.00", "eager": "0.50"}[slow]
    assert len(told) == lines and f"takes {ratio} of the eager time" in told[1]
    assert lines == 2 or told[2].endswith("--compile never is faster")


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without a compiler."""
    from torch._inductor.exc import InvalidCxxCompiler

    def compile_(self: nn.Module, **how: Any) -> None:
        def call(*args: Any) -> None:
            raise InvalidCxxCompiler("g++")

        self._compiled_call_impl = call  # type: ignore[assignment]

    monkeypatch.setattr(nn.Module, "compile", compile_)


def test_without_a_compiler_auto_goes_on(tiny_mlp: TRM, broken: None, puzzles: Any):
    lines: list[str] = []
    assert not compile_where_it_pays(tiny_mlp, "auto", 10**13, tell=lines.append)
    assert "torch.compile failed" in lines[1] and "going on without it" in lines[1]
    assert len(lines) == 2 and tiny_mlp.net._compiled_call_impl is None
    x = tiny_mlp.embed(puzzles[0])
    tiny_mlp.advance(tiny_mlp.initial_state(x), x)


def test_without_a_compiler_what_was_asked_for_fails(tiny_mlp: TRM, broken: None):
    with pytest.raises(UserError, match=r"install g\+\+"):
        compile_where_it_pays(tiny_mlp, "always", 1)
    with pytest.raises(UserError, match="the run to resume has compiled its networks"):
        compile_where_it_pays(tiny_mlp, "auto", 1, earlier=True)


def test_a_later_error_does_not_turn_a_compiled_run_into_an_eager_one(
    tiny_mlp: TRM, monkeypatch: pytest.MonkeyPatch
):
    def compile_(self: nn.Module, **how: Any) -> None:
        def call(h: torch.Tensor, injection: torch.Tensor) -> Any:
            if len(h) == 3:
                raise RuntimeError("a batch of 3")
            return self._call_impl(h, injection)

        self._compiled_call_impl = call  # type: ignore[assignment]

    monkeypatch.setattr(nn.Module, "compile", compile_)
    assert compile_where_it_pays(tiny_mlp, "auto", 10**13)
    x = torch.zeros(3, tiny_mlp.config.positions, 8)
    with torch.no_grad(), pytest.raises(RuntimeError, match="a batch of 3"):
        tiny_mlp.advance(tiny_mlp.initial_state(x), x)
