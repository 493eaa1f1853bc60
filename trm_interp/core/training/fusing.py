"""The fused token mixer in a training run: used where it matches the other one and is faster.

Both are tried once, before the first step, on the run's own shapes: outputs and all gradients are
compared, then the seconds. Whatever goes wrong leaves the run as it is, with a line that says so.
"""

import copy
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from trm_interp.core.models.fused_mixer import MOST_POSITIONS, PLANS, FusedMixer, failures
from trm_interp.core.models.layers import SwiGLU
from trm_interp.runtime.errors import first_line

if TYPE_CHECKING:
    from trm_interp.core.training.trainer import Trainer

# largest RMS difference from the other mixer, as a share of its RMS
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 0.02}
MARGIN = 0.97  # of the other's seconds: less is no gain that a measurement can tell
TIMED, WARM = 10, 3  # runs
Timer = Callable[[Callable[[], object], torch.device], float]


class Choice(NamedTuple):
    """What a comparison led to: a mixer or None, and why in a line."""

    fused: FusedMixer | None
    why: str


class Fusing:
    """Makes the choice of a run at its first step, and takes it back where a kernel fails later."""

    def __init__(self, trainer: "Trainer", choose: "Callable[..., Choice] | None" = None) -> None:
        self.trainer, self.choose = trainer, choose or choose_mixer
        self.chosen: FusedMixer | None = None
        self.is_done = False

    def before_step(self) -> None:
        """Once: choose. Later: the plain mixer again if a kernel has failed since."""
        if not self.is_done:
            self.is_done = True
            self._set(*self._choice())
        elif self.chosen is not None and failures:
            self._set(None, f"a kernel failed ({failures[0]})")

    def _choice(self) -> Choice:
        trainer = self.trainer
        mixers = list(mixers_of(trainer.model.networks()))
        if not mixers:
            return Choice(None, "this model mixes no tokens with a SwiGLU")
        if trainer.ranks.size > 1:
            return Choice(None, "it is for one process")
        slots = -(-len(trainer.slots.index) // trainer.micro_batches)
        shape = (slots, trainer.model.config.positions, trainer.model.config.d_model)
        compiled = trainer.mender is not None and not trainer.mender.has_left
        return self.choose(mixers[0], shape, trainer.dtype, trainer.device, compiled)

    def _set(self, fused: FusedMixer | None, why: str) -> None:
        self.chosen = fused
        for mixer in mixers_of(self.trainer.model.networks()):
            mixer.fused = fused
        is_used = "not used" if fused is None else "in use"
        self.trainer.tell(f"fused token mixer {is_used}: {why}")
        entry = {"after_step": self.trainer.step_count, "fused_mixer": is_used, "why": why}
        self.trainer.changes.append(entry)


def mixers_of(networks: Iterable[nn.Module]) -> Iterable[SwiGLU]:
    """All token mixers of these networks that a `FusedMixer` can stand in for."""
    for net in networks:
        for module in net.modules():
            if isinstance(module, SwiGLU) and module.dim == -2:
                yield module


def choose_mixer(
    mixer: SwiGLU,
    shape: tuple[int, int, int],
    dtype: torch.dtype,
    device: torch.device,
    compiled: bool,
    candidates: Sequence[FusedMixer] = tuple(FusedMixer(plan) for plan in PLANS),
    timer: Timer | None = None,
) -> Choice:
    """The fastest candidate that matches and beats this mixer on inputs [batch, pos, channel].

    `compiled`: both are compiled for the comparison. Without `timer` the device must be a CUDA GPU.
    """
    if timer is None and device.type != "cuda":
        return Choice(None, f"it needs an NVIDIA GPU, and this run is on {device.type}")
    if shape[1] > MOST_POSITIONS:
        return Choice(None, f"{shape[1]} positions are more than {MOST_POSITIONS}")
    try:
        return _compare(mixer, shape, dtype, device, compiled, candidates, timer or seconds_of)
    except Exception as error:  # of the compiler, of triton, out of memory: the run goes on
        return Choice(None, f"the comparison failed ({first_line(error)[:150]})")
    finally:
        if compiled:
            torch._dynamo.reset()


def _compare(
    mixer: SwiGLU,
    shape: tuple[int, int, int],
    dtype: torch.dtype,
    device: torch.device,
    compiled: bool,
    candidates: Sequence[FusedMixer],
    timer: Timer,
) -> Choice:
    generator = torch.Generator(device).manual_seed(0)
    x, upstream = torch.randn(2, *shape, generator=generator, device=device).to(dtype)
    x.requires_grad_()
    plain = of_form(mixer, None, compiled)
    expected, plain_s = _pass(plain, x, upstream), timer(mixer_work(plain, x, upstream), device)
    best, best_s, problems = None, float("inf"), []
    for candidate in candidates:
        failures.clear()
        if compiled:
            torch._dynamo.reset()  # there is a limit to the number of graphs
        try:
            fused = of_form(mixer, candidate, compiled)
            _require_same(_pass(fused, x, upstream), expected, TOLERANCE[dtype])
            seconds = timer(mixer_work(fused, x, upstream), device)
        except Exception as error:
            problems.append(first_line(error)[:150])
            continue
        if failures:  # what was computed came from plain PyTorch
            problems.append(failures[0])
        elif seconds < best_s:
            best, best_s = candidate, seconds
    failures.clear()
    if best is None:
        return Choice(None, problems[0])
    times = f"{1e3 * best_s:.3g} ms where the other takes {1e3 * plain_s:.3g} ms"
    return Choice(best if best_s < MARGIN * plain_s else None, times)


def of_form(mixer: SwiGLU, fused: FusedMixer | None, compiled: bool) -> SwiGLU:
    """A copy of the mixer in one of its forms."""
    one = copy.deepcopy(mixer)
    one.fused = fused
    if compiled:
        one.compile(dynamic=False)
    return one


def _pass(mixer: SwiGLU, x: Tensor, upstream: Tensor) -> list[Tensor]:
    """Output and gradients of input and weights."""
    out = mixer(x)
    return [out.detach(), *torch.autograd.grad(out, (x, *mixer.parameters()), upstream)]


def mixer_work(mixer: SwiGLU, x: Tensor, upstream: Tensor) -> Callable[[], object]:
    """What training asks of a mixer: two passes without gradient for one with it."""

    def work() -> None:
        with torch.no_grad():
            mixer(x)
            mixer(x)
        _pass(mixer, x, upstream)

    return work


def _require_same(results: Sequence[Tensor], expected: Sequence[Tensor], tolerance: float) -> None:
    """ValueError where the RMS of a difference is too large a share of the RMS, or not finite."""
    for one, other in zip(results, expected, strict=True):
        share = float((one.float() - other.float()).norm() / other.float().norm())
        if not share <= tolerance:
            raise ValueError(f"it differs by {share:.2g} of the RMS (at most {tolerance:g})")


def seconds_of(work: Callable[[], object], device: torch.device) -> float:
    """Mean seconds of a run on the device, when it is warm."""
    for _ in range(WARM):
        work()
    torch.cuda.synchronize(device)
    start = time.perf_counter()
    for _ in range(TIMED):
        work()
    torch.cuda.synchronize(device)
    return (time.perf_counter() - start) / TIMED
