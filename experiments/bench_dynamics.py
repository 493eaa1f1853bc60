"""Section `dynamics` of bench.py: what Lyapunov exponents cost over plain inference."""

from collections.abc import Callable

import torch

from trm_interp.analysis.lyapunov import lyapunov
from trm_interp.core.checkpoints.folder import load_checkpoint
from trm_interp.core.infer import run_batch
from trm_interp.core.joint import CycleMap, joined
from trm_interp.core.models.base import RecursiveModel
from trm_interp.core.models.trm import TRM
from trm_interp.core.models.trm_config import TRMConfig
from trm_interp.subjects.opening import test_puzzles
from trm_interp.subjects.settings import default_checkpoint
from trm_interp.tasks.registry import load_puzzles

Numbers = dict[str, float]
Medians = Callable[[dict[str, Callable[[], object]], int], Numbers]
K = 8


def dynamics(repeats: int, medians: Medians, batch: int = 32, steps: int = 2) -> Numbers:
    """K exponents of a batch against `run_batch` of the same one, as many steps; on CUDA if there.

    The default checkpoint, and on a GPU the published 5 M model with random weights.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    checkpoint = load_checkpoint(default_checkpoint(), device)
    model = checkpoint.model
    puzzles = load_puzzles(test_puzzles(checkpoint), limit=batch)
    costs = _cost(model, torch.from_numpy(puzzles.inputs), steps, repeats, medians, "default")
    if device.type == "cuda":
        published = TRM(TRMConfig(), torch.Generator().manual_seed(0)).to(device).eval()
        tokens = torch.randint(1, 11, (batch, 81))
        costs |= _cost(published, tokens, steps, repeats, medians, "published_5M")
    return costs


def _cost(
    model: RecursiveModel,
    inputs: torch.Tensor,
    steps: int,
    repeats: int,
    medians: Medians,
    name: str,
) -> Numbers:
    device = next(model.parameters()).device

    def plain() -> None:
        run_batch(model, inputs, inputs, steps)  # read-outs come to the CPU: waits for a GPU

    def exponents() -> None:
        x = model.embed(inputs.to(device))
        cycle = CycleMap(model, x)
        start = joined(model.initial_state(x))
        lyapunov(cycle.push, start, K, steps * model.config.h_cycles)

    took = medians({"plain": plain, "exponents": exponents}, repeats)
    return {
        f"{name}_plain_s": took["plain"],
        f"{name}_exponents_over_plain": took["exponents"] / took["plain"],
    }
