"""When a run compiles its networks by itself: decided by counting, before the run begins.

Compiled numbers round otherwise than eager ones, and trajectories amplify rounding. So the same
command has to decide the same every time: by the operations that lie ahead and by the kind of
processor, never by a clock.
"""

import time
from collections.abc import Callable
from statistics import median
from typing import Any, Literal

import torch
from torch import Tensor

from trm_interp.core.compiling import compile_networks
from trm_interp.core.flops import step_flops
from trm_interp.core.models.base import RecursiveModel
from trm_interp.core.models.config import ModelConfig
from trm_interp.core.models.layers import weights_held
from trm_interp.runtime.errors import UserError
from trm_interp.runtime.progress import duration

Choice = Literal["auto", "always", "never"]

# Conservative ends of what was measured on one core (experiments/LOG.md, "When does compiling pay
# for inference on a CPU?"; `bench.py --only paths` measures them again).
COMPILE_SECONDS = 60.0  # 18 to 48, above 100 on a crowded machine
SAVED_SHARE = 0.05  # of the eager time: 0.03 to 0.33, more in small batches
EAGER_FLOPS = 1e11  # a second, of a fast core in float32: 0.3e11 to 0.6e11
MARGIN = 2.0  # how many times its cost compiling has to save
PAYS_FROM = MARGIN * COMPILE_SECONDS / SAVED_SHARE * EAGER_FLOPS
"""Operations ahead from which compiling pays: 2.4e14, 40 min of a fast core."""

TURNS = 5  # of eager and compiled evaluations, for the notice that compares them


def run_flops(config: ModelConfig, supervision_steps: int) -> float:
    """Operations of so many supervision steps of one puzzle each.

    >>> from trm_interp.core.models.trm_config import TRMConfig
    >>> round(PAYS_FROM / run_flops(TRMConfig(), 16))  # puzzles of 16 steps, of 410 GFLOP each
    585
    """
    return float(supervision_steps) * step_flops(config)


def pays(flops: float, device: torch.device, dtype: torch.dtype) -> bool:
    """Whether compiling pays for so many operations ahead.

    Only on a CPU, where it was measured. Not in bfloat16 on a processor with AMX, where compiled
    networks of width 512 were slower than eager ones.
    """
    if device.type != "cpu" or (dtype == torch.bfloat16 and has_amx()):
        return False
    return flops >= PAYS_FROM


def has_amx() -> bool:
    """Whether this processor multiplies bfloat16 matrices in tiles."""
    supported = getattr(torch.cpu, "_is_amx_tile_supported", None)
    return bool(supported is not None and supported())


def compile_where_it_pays(
    model: RecursiveModel,
    choice: Choice,
    supervision_steps: int,
    dtype: torch.dtype = torch.float32,
    tell: Callable[[str], None] = lambda line: None,
    earlier: bool | None = None,
) -> bool:
    """Compile the networks if `choice` says so, or if it is `auto` and it pays; whether they are.

    `supervision_steps`: of all puzzles and starts together. `earlier`: whether the run that is
    resumed has compiled them; with `auto` it goes on in the same way. Where no compiler works,
    `auto` says so and goes on without it; otherwise, and in a resumed run, this is a UserError.
    """
    flops = run_flops(model.config, supervision_steps)
    if choice == "auto" and earlier is None:
        wanted = pays(flops, model.device, dtype)
    else:
        wanted = choice == "always" or (choice == "auto" and bool(earlier))
    if not wanted:
        return False
    tell(
        f"compiling the network: about {duration(flops / EAGER_FLOPS)} of work ahead on one "
        "core (--compile never leaves it out)"
    )
    try:
        return compile_now(model, dtype, tell, choice == "auto" and earlier is None)
    except UserError as error:
        if choice == "always":
            raise
        raise UserError(
            "the run to resume has compiled its networks, which fails here: make --compile always "
            "work, or start over with --overwrite"
        ) from error


def compile_now(
    model: RecursiveModel,
    dtype: torch.dtype = torch.float32,
    tell: Callable[[str], None] = lambda line: None,
    may_give_up: bool = False,
) -> bool:
    """Compile for any batch, evaluate once, and say how long both ways take; whether it worked.

    UserError where it fails, unless it `may_give_up`.
    """
    gave_up: list[bool] = []
    networks = model.networks()
    began = time.monotonic()
    on_giving_up = (lambda: gave_up.append(True)) if may_give_up else None
    mender = compile_networks(networks, True, tell, on_giving_up)
    for net in networks:
        net._compiled_call_impl = _of_contiguous(net._compiled_call_impl)  # type: ignore
    with torch.no_grad(), weights_held(model, dtype):
        operands = _operands(model, dtype)
        for net in networks:
            net(*operands)
        if gave_up:
            return False
        mender.leave = None  # from here on no error may turn a compiled run into an eager one
        seconds = time.monotonic() - began
        ratio = sum(_seconds(net, operands) for net in networks) / sum(
            _seconds(net._call_impl, operands) for net in networks
        )
    tell(f"compiled in {seconds:.0f} s: an evaluation takes {ratio:.2f} of the eager time")
    if ratio >= 1:
        tell("compiling does not pay on this machine: --compile never is faster")
    return True


def _of_contiguous(call: Callable[..., Tensor] | None) -> Callable[..., Tensor] | None:
    """The same function of contiguous operands: start vectors are expanded ones, which would be
    compiled apart."""
    if call is None:  # compiling was given up
        return None

    def contiguous(h: Tensor, injection: Tensor, *more: Any, **named: Any) -> Tensor:
        return call(h.contiguous(), injection.contiguous(), *more, **named)

    return contiguous


def _operands(model: RecursiveModel, dtype: torch.dtype, batch: int = 16) -> tuple[Tensor, Tensor]:
    """A batch of blank puzzles and its start, as networks read them."""
    tokens = torch.ones(batch, model.config.cells, dtype=torch.int64, device=model.device)
    x = model.embed(tokens, dtype)
    return model.initial_state(x)[0].contiguous(), x


def _seconds(call: Callable[..., Any], operands: tuple[Tensor, Tensor]) -> float:
    took = []
    for _ in range(TURNS):
        began = time.perf_counter()
        call(*operands)
        took.append(time.perf_counter() - began)
    return median(took)
