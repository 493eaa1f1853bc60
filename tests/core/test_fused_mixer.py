"""The fused token mixer against the plain one: its kernels interpreted, its choice injected."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_training import assert_same_bits
from torch import Tensor

from trm_interp.core.models import fused_mixer, mixer_kernels
from trm_interp.core.models.fused_mixer import (
    PLANS,
    FusedMixer,
    Plan,
    Tiles,
    failures,
    plain_backward,
    plain_forward,
)
from trm_interp.core.models.layers import SwiGLU
from trm_interp.core.models.trm_config import TRMConfig
from trm_interp.core.training.fusing import Choice, Fusing, choose_mixer
from trm_interp.core.training.loop import train
from trm_interp.core.training.trainer import STATE_FILE, Trainer

SMALL = Plan(Tiles(16, 16, 4), Tiles(16, 16, 4), Tiles(16, 16, 4))
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def no_failures() -> Iterator[None]:
    failures.clear()
    yield
    failures.clear()


@pytest.fixture
def interpreter() -> None:
    pytest.importorskip("triton")
    assert mixer_kernels.load(), "kernels are compiled: nothing here has a GPU"


def mixer(positions: int, normalised: bool, multiple: int = 4) -> SwiGLU:
    config = TRMConfig(multiple=multiple, normalised_swiglu=normalised)
    made = SwiGLU(positions, config, dim=-2)
    for i, linear in enumerate((made.gate_up, made.down)):
        linear.reset_parameters(torch.Generator().manual_seed(i))
    return made


def results(made: SwiGLU, shape: tuple[int, ...], dtype: torch.dtype) -> list[Tensor]:
    """Output and gradients of input and weights."""
    generator = torch.Generator().manual_seed(7)
    x, upstream = torch.randn(2, *shape, generator=generator).to(dtype)
    out = made(x.requires_grad_())
    return [out.detach(), *torch.autograd.grad(out, (x, *made.parameters()), upstream)]


def differences(one: list[Tensor], other: list[Tensor]) -> list[float]:
    """RMS of each difference as a share of the RMS."""
    assert [t.dtype for t in one] == [t.dtype for t in other]
    assert [t.shape for t in one] == [t.shape for t in other]
    pairs = [(a.double(), b.double()) for a, b in zip(one, other, strict=True)]
    return [float((a - b).norm() / b.norm()) for a, b in pairs]


# kernels


@pytest.mark.usefixtures("interpreter")
@pytest.mark.parametrize("normalised", [False, True], ids=["silu", "normalised"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("shape", "plan"),
    [
        ((2, 11, 21), SMALL),  # no size is a multiple of a tile
        ((1, 17, 16), SMALL),  # one more position than a power of two, one sample
        ((2, 3, 5, 40), SMALL),  # two batch axes
        ((2, 82, 70), PLANS[0]),
        ((1, 81, 33), PLANS[1]),
    ],
    ids=lambda value: str(value) if isinstance(value[0], int) else "",
)
def test_kernels_equal_the_plain_mixer(
    shape: tuple[int, ...], plan: Plan, dtype: torch.dtype, normalised: bool
):
    """Outputs and all gradients: float32 to its rounding, bfloat16 to 1 % RMS."""
    made = mixer(shape[-2], normalised, multiple=4 if plan is SMALL else 100)
    expected = results(made, shape, dtype)
    made.fused = FusedMixer(plan)
    assert max(differences(results(made, shape, dtype), expected)) < (
        1e-6 if dtype == torch.float32 else 0.01
    )
    assert not failures


@pytest.mark.usefixtures("interpreter")
@pytest.mark.parametrize("normalised", [False, True], ids=["silu", "normalised"])
def test_bfloat16_kernels_are_as_near_to_the_truth_as_the_plain_mixer(normalised: bool):
    made, shape = mixer(21, normalised), (3, 21, 24)
    truth = results(made, shape, torch.float32)
    plain = results(made, shape, torch.bfloat16)
    made.fused = FusedMixer(SMALL)
    fused = results(made, shape, torch.bfloat16)
    as_truth = [[t.float() for t in those] for those in (truth, plain, fused)]
    plain_error = max(differences(as_truth[1], as_truth[0]))
    # the interpreter cuts bits off where a GPU rounds, which is up to twice the error
    assert max(differences(as_truth[2], as_truth[0])) < 1.5 * plain_error


@pytest.mark.usefixtures("interpreter")
def test_a_strided_input_and_upstream_gradient_are_read_rightly():
    made = mixer(11, normalised=True)
    x = torch.randn(2, 21, 11, generator=torch.Generator().manual_seed(1)).mT.requires_grad_()
    upstream = torch.randn(2, 21, 11, generator=torch.Generator().manual_seed(2)).mT
    (expected,) = torch.autograd.grad(made(x), x, upstream)
    made.fused = FusedMixer(SMALL)
    (gradient,) = torch.autograd.grad(made(x), x, upstream)
    torch.testing.assert_close(gradient, expected)
    assert not failures


def test_compiled_the_operator_stays_in_one_graph():
    """The same bits, gradients too; where triton is missing with plain PyTorch inside."""
    made, shape = mixer(11, normalised=True), (2, 11, 21)
    made.fused = FusedMixer(SMALL)
    expected = results(made, shape, torch.float32)
    made.compile(fullgraph=True, dynamic=False)
    for one, other in zip(results(made, shape, torch.float32), expected, strict=True):
        assert torch.equal(one, other)


# where kernels fail


@pytest.mark.parametrize("norm_eps", [None, 1e-5], ids=["silu", "normalised"])
def test_what_stands_in_for_the_kernels_is_the_mixer_and_its_gradient(norm_eps: float | None):
    generator = torch.Generator().manual_seed(3)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()

    x, gate_up, down, upstream = random(2, 5, 7), random(2, 6, 5), random(5, 6), random(2, 5, 7)
    out, scale = plain_forward(x, gate_up, down, 6, norm_eps)
    gate, value = (torch.einsum("hp,spc->shc", of, x) for of in gate_up)
    if norm_eps is None:
        hidden = torch.nn.functional.silu(gate) * value
    else:
        product = gate * value
        size = (product.square().mean(1, keepdim=True) + norm_eps).sqrt()
        hidden = torch.sigmoid(gate) * product / size
    torch.testing.assert_close(out, torch.einsum("ph,shc->spc", down, hidden))
    expected = torch.autograd.grad(out, (x, gate_up, down), upstream)
    with torch.no_grad():
        gradients = plain_backward(x, gate_up, down, out, scale, upstream, 6, norm_eps)
    for one, other in zip(gradients, expected, strict=True):
        torch.testing.assert_close(one, other)


def test_a_kernel_that_fails_is_noted_and_not_tried_again(monkeypatch: pytest.MonkeyPatch):
    tried: list[int] = []

    def refuse(*_: Any, plan: Plan) -> Any:
        tried.append(1)
        raise RuntimeError("out of resource: shared memory\nRequired: 300000")

    monkeypatch.setattr(mixer_kernels, "forward", refuse)
    made, shape = mixer(11, normalised=True), (2, 11, 21)
    expected = results(made, shape, torch.float32)
    made.fused = FusedMixer(SMALL)
    for _ in range(2):
        assert max(differences(results(made, shape, torch.float32), expected)) < 1e-6
    assert failures == ["out of resource: shared memory"] and len(tried) == 1


def test_no_memory_is_for_the_trainer_to_handle(monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: Any, plan: Plan) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    monkeypatch.setattr(mixer_kernels, "forward", refuse)
    made = mixer(11, normalised=False)
    made.fused = FusedMixer(SMALL)
    with pytest.raises(torch.OutOfMemoryError):
        made(torch.ones(1, 11, 4))
    assert not failures


def test_without_triton_the_reason_is_one_line():
    code = """
import sys, torch
sys.modules["triton"] = None
from trm_interp.core.models import fused_mixer
mixer = fused_mixer.FusedMixer()
out = mixer(torch.ones(1, 4, 3), torch.ones(8, 4), torch.ones(4, 4))
print(out.shape, fused_mixer.failures)"""
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert "the fused mixer needs triton, which is missing" in done.stdout, done.stderr
    assert done.stdout.startswith("torch.Size([1, 4, 3])")


# the choice


class Injected:
    """Stands for a fused mixer: the plain computation, with an error and a time of its own."""

    def __init__(self, ms: float, error: float = 0.0, fails: bool = False) -> None:
        self.ms, self.error, self.fails = ms, error, fails

    def __call__(self, x: Tensor, gate_up: Tensor, down: Tensor, eps: float | None) -> Tensor:
        if self.fails:
            raise RuntimeError("ptxas fatal: no such target")
        gate, value = (gate_up @ x).chunk(2, dim=-2)
        return (1 + self.error) * (down @ (torch.nn.functional.silu(gate) * value))


def choice(*candidates: Injected, plain_ms: float = 10.0) -> Choice:
    """Of these against a plain mixer that takes so long."""

    def timer(work: Callable[[], object], device: torch.device) -> float:
        work()
        closure = dict(zip(work.__code__.co_freevars, work.__closure__, strict=True))  # type: ignore
        fused = closure["mixer"].cell_contents.fused
        return (plain_ms if fused is None else fused.ms) / 1e3

    made: Any = candidates
    return choose_mixer(mixer(6, False), (2, 6, 8), torch.float32, CPU, False, made, timer)


def test_the_fastest_that_matches_is_chosen():
    slow, fast, wrong = Injected(9.0), Injected(5.0), Injected(1.0, error=1e-3)
    chosen = choice(slow, wrong, fast)
    assert chosen.fused is not None and chosen.fused.ms == 5.0  # type: ignore[attr-defined]
    assert chosen.why == "5 ms where the other takes 10 ms"


@pytest.mark.parametrize(
    ("candidate", "why"),
    [
        (Injected(12.0), "12 ms where the other takes 10 ms"),
        (Injected(9.9), "9.9 ms where the other takes 10 ms"),  # within what a timing can tell
        (Injected(1.0, error=1e-3), "it differs by 0.001 of the RMS (at most 0.0001)"),
        (Injected(1.0, error=float("nan")), "it differs by nan of the RMS (at most 0.0001)"),
        (Injected(1.0, fails=True), "ptxas fatal: no such target"),
    ],
    ids=["slower", "as fast", "other numbers", "not finite", "fails"],
)
def test_what_is_not_chosen_says_why(candidate: Injected, why: str):
    assert choice(candidate) == Choice(None, why)


def test_one_that_fails_does_not_keep_another_from_being_chosen():
    assert choice(Injected(1.0, fails=True), Injected(5.0)).fused is not None


@pytest.mark.usefixtures("interpreter")
def test_the_kernels_themselves_pass_the_comparison(monkeypatch: pytest.MonkeyPatch):
    times = iter([2.0, 1.0])
    how: Any = ((2, 11, 21), torch.bfloat16, CPU, False, [FusedMixer(SMALL)])
    chosen = choose_mixer(mixer(11, True), *how, lambda work, device: next(times))
    assert chosen == Choice(FusedMixer(SMALL), "1e+03 ms where the other takes 2e+03 ms")
    spoiled = mixer_kernels.backward

    def wrong(*given: Any, plan: Plan) -> Any:
        d_x, d_gate_up, d_down = spoiled(*given, plan=plan)
        return d_x, d_gate_up, 1.1 * d_down

    monkeypatch.setattr(mixer_kernels, "backward", wrong)
    times = iter([2.0, 1.0])
    chosen = choose_mixer(mixer(11, True), *how, lambda work, device: next(times))
    assert chosen.fused is None and "it differs by 0.09" in chosen.why


def test_a_kernel_that_fails_in_the_comparison_is_not_chosen(monkeypatch: pytest.MonkeyPatch):
    """Plain PyTorch stands in for it then, and would match."""

    def refuse(*_: Any, plan: Plan) -> Any:
        raise RuntimeError("no kernel image is available")

    monkeypatch.setattr(mixer_kernels, "backward", refuse)
    monkeypatch.setattr(
        mixer_kernels, "forward", lambda *given, plan: fused_mixer.plain_forward(*given)
    )
    times = iter([2.0, 1.0])
    chosen = choose_mixer(
        *(mixer(11, True), (2, 11, 21), torch.float32, CPU, False, [FusedMixer(SMALL)]),
        timer=lambda work, device: next(times),
    )
    assert chosen == Choice(None, "no kernel image is available") and not failures


def test_no_gpu_and_too_many_positions_are_told_without_a_comparison():
    made = mixer(6, False)
    assert "NVIDIA GPU" in choose_mixer(made, (2, 6, 8), torch.float32, CPU, False).why
    large = choose_mixer(made, (2, 300, 8), torch.float32, CPU, False, timer=lambda *_: 1.0)
    assert large == Choice(None, "300 positions are more than 256")


# training


def test_without_a_gpu_a_run_is_told_and_the_same(make: Callable[..., Trainer]):
    plain, asked = make("plain"), make("asked", fused_mixer=True)
    lines: list[str] = []
    train(plain)
    asked.tell = lines.append
    train(asked)
    (line,) = [line for line in lines if "fused" in line]
    assert line == "fused token mixer not used: it needs an NVIDIA GPU, and this run is on cpu"
    dropped = {"settings": 0, "changes": 0}
    assert_same_bits(asked.state() | dropped, plain.state() | dropped)
    state = torch.load(asked.out / STATE_FILE, weights_only=True)
    assert state["changes"][0]["fused_mixer"] == "not used"


def test_a_run_uses_what_was_chosen_and_leaves_it_when_it_fails(
    make: Callable[..., Trainer], monkeypatch: pytest.MonkeyPatch
):
    def kernel(*given: Any, plan: Plan) -> Any:
        if trainer.step_count >= 3:
            raise RuntimeError("an illegal instruction was encountered")
        calls.append(trainer.step_count)
        return fused_mixer.plain_forward(*given)

    monkeypatch.setattr(mixer_kernels, "forward", kernel)
    monkeypatch.setattr(
        mixer_kernels, "backward", lambda *given, plan: fused_mixer.plain_backward(*given)
    )
    calls: list[int] = []
    lines: list[str] = []
    plain, trainer = make("plain"), make("fused", fused_mixer=True)
    choose = lambda *how: Choice(FusedMixer(SMALL), f"{how[1]}")  # noqa: E731
    trainer.fusing = Fusing(trainer, choose)
    trainer.tell = lines.append
    for _ in range(6):
        plain.step()
        trainer.step()
    assert set(calls) == {0, 1, 2}
    assert lines == [
        "fused token mixer in use: (5, 17, 16)",
        "fused token mixer not used: a kernel failed (an illegal instruction was encountered)",
    ]
    assert [(c["after_step"], c["fused_mixer"]) for c in trainer.changes] == [
        (0, "in use"),
        (4, "not used"),
    ]
    assert all(block.mixer.fused is None for block in trainer.model.net.blocks)
    for one, other in zip(trainer.model.parameters(), plain.model.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


def test_a_state_from_before_goes_on_with_a_fused_mixer(make: Callable[..., Trainer]):
    first = make("run")
    train(first)
    state = torch.load(first.out / STATE_FILE, weights_only=True)
    del state["settings"]["fused_mixer"]
    torch.save(state, first.out / STATE_FILE)
    again = make("run", fused_mixer=True)
    again.resume()
    assert again.changes == [{"after_step": 12, "fused_mixer": [False, True]}]
