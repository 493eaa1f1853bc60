"""Token mixing with rows of the weight at multiples of 16 bytes, against rows as they are; on a GPU
also the fused mixer, against the compiled one.

A section of `bench.py`; ratios below 1 are faster.
"""

from collections.abc import Callable
from typing import Any

import torch

from trm_interp.core.models.fused_mixer import PLANS, FusedMixer, failures
from trm_interp.core.models.layers import SwiGLU, aligned_rows
from trm_interp.core.models.trm_config import TRMConfig
from trm_interp.core.training.fusing import mixer_work, of_form

Medians = Callable[[dict[str, Callable[[], object]], int], dict[str, float]]
WIDTH, D_MODEL, POSITIONS = 256, 512, 82  # of the published shape with one prefix position


def mixing(repeats: int, medians: Medians) -> dict[str, float]:
    """Seconds of the product and of its gradients in bfloat16, aligned over plain rows."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    batch = 384 if device == "cuda" else 16
    kind: dict[str, Any] = {"device": device, "dtype": torch.bfloat16}
    x = torch.randn(batch, POSITIONS, D_MODEL, **kind)
    out = torch.randn(batch, 2 * WIDTH, D_MODEL, **kind)
    plain = torch.randn(2 * WIDTH, POSITIONS, **kind)
    runs: dict[str, Callable[[], object]] = {}
    for name, weight in (("plain", plain), ("aligned", aligned_rows(plain))):
        each = weight.expand(batch, -1, -1)
        runs[f"{name}_forward"] = _until_done(lambda each=each: torch.bmm(each, x))
        runs[f"{name}_gradient"] = _until_done(lambda each=each: torch.bmm(each.mT, out))
    runs["aligning"] = _until_done(lambda: aligned_rows(plain))
    took = medians(runs, repeats)
    forward = (took["aligned_forward"] + took["aligning"]) / took["plain_forward"]
    ratios = {
        "aligned_over_plain_forward": forward,
        "aligned_over_plain_gradient": took["aligned_gradient"] / took["plain_gradient"],
    }
    if device == "cuda":
        ratios |= fused_mixing(repeats, medians, batch)
    return ratios


def fused_mixing(
    repeats: int, medians: Medians, batch: int, d_model: int = D_MODEL, device: str = "cuda"
) -> dict[str, float]:
    """Of two passes without gradient and one with it, in bfloat16: fused over compiled mixer.

    Both forms of the SwiGLU and every plan whose kernels run.
    """
    ratios: dict[str, float] = {}
    for form, normalised in (("silu", False), ("normalised", True)):
        mixer = SwiGLU(POSITIONS, TRMConfig(normalised_swiglu=normalised), dim=-2).to(device)
        for linear in (mixer.gate_up, mixer.down):
            linear.reset_parameters()
        shape = (2, batch, POSITIONS, d_model)
        x, upstream = torch.randn(shape, device=device, dtype=torch.bfloat16)
        x.requires_grad_()
        for i, plan in enumerate(PLANS):
            failures.clear()
            torch._dynamo.reset()  # there is a limit to the number of graphs
            plain = of_form(mixer, None, compiled=True)
            fused = of_form(mixer, FusedMixer(plan), compiled=True)
            runs = {
                "plain": mixer_work(plain, x, upstream),
                "fused": mixer_work(fused, x, upstream),
            }
            took = medians({name: _until_done(run) for name, run in runs.items()}, repeats)
            name = f"fused_over_plain_{form}_plan_{i}"
            if failures:
                print(f"{name}: {failures[0]}", flush=True)
            else:
                ratios[name] = took["fused"] / took["plain"]
    return ratios


def _until_done(run: Callable[[], object]) -> Callable[[], None]:
    """The same, and the device has done it when it returns."""

    def until_done() -> None:
        run()
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    return until_done
