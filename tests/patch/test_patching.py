"""Laws of patching on every architecture: all of the donor gives the donor, nothing changes no bit,
cells together are cells one by one, and a hook of transformer-lens does the same.
"""

from collections.abc import Callable, Iterable
from dataclasses import fields
from typing import Any

import pytest
import torch
import toy_architecture  # noqa: F401 (registers "toy")
import toy_two_networks  # noqa: F401 (registers "duo")
from torch import Tensor

from trm_interp import patch
from trm_interp.core.infer import run
from trm_interp.core.models.base import RecursiveModel
from trm_interp.core.models.registry import build, config_class, names
from trm_interp.patch import Cell, Recorded
from trm_interp.recording.hooks import HookedModel, hook_names

STEPS, RUNS = 2, 2
SMALL = {"cells": 16, "vocab": 6, "d_model": 8, "multiple": 8, "n_heads": 2, "prefix": 1}
SMALL |= {"h_cycles": 2, "l_cycles": 2}
INPUTS = torch.tensor([[1, 2] * 8, [3, 1] * 8])
LABELS = torch.tensor([[4, 2] * 8, [3, 5] * 8])


@pytest.fixture(params=names(), scope="module")
def model(request: pytest.FixtureRequest) -> RecursiveModel:
    cls = config_class(request.param)
    own = {f.name for f in fields(cls)}
    generator = torch.Generator().manual_seed(0)
    made = build(cls(**{k: v for k, v in SMALL.items() if k in own}), generator).eval()
    with torch.no_grad():
        for name, weight in made.named_parameters():
            if "q_head" in name:  # zero at the start
                weight.normal_(generator=generator)
    return made


@pytest.fixture(scope="module")
def base(model: RecursiveModel) -> Recorded:
    return patch.record(model, INPUTS, LABELS, STEPS, hooks=lambda name: True)


@pytest.fixture(scope="module")
def donor(model: RecursiveModel) -> Recorded:
    """The same puzzles from another start."""
    own = model.initial_state(model.embed(INPUTS))
    start = patch.noisy_starts(own, torch.tensor([1, 2]), model.state_names)
    return patch.record(model, INPUTS, LABELS, STEPS, start=start, hooks=lambda name: True)


def last_writes(model: RecursiveModel, before: int) -> list[str]:
    """Hook points where the states before an evaluation were written."""
    return [patch.last_hook(model, STEPS, state, before) for state in model.state_names]


def same_end(effects: patch.Effects, cell: int, runs: Recorded) -> bool:
    """Bit for bit."""
    read = runs.readouts
    return all(
        torch.equal(one[cell], other[:, -1])
        for one, other in [
            (effects.tokens, read.tokens),
            (effects.loss, read.loss),
            (effects.q_halt, read.q_halt),
            (effects.exact, read.solved),
        ]
    )


def test_recorded_runs_are_plain_runs(model: RecursiveModel, base: Recorded):
    plain = run(model, INPUTS, LABELS, STEPS)
    assert torch.equal(plain.loss, base.readouts.loss)
    assert torch.equal(plain.q_halt, base.readouts.q_halt)


def test_names_are_those_of_hooked_models(model: RecursiveModel, base: Recorded, donor: Recorded):
    starts = {patch.start_hook(state) for state in model.state_names}
    readouts = [
        name for name in hook_names(model, STEPS) if "hook_logits" in name or ".hook_q_" in name
    ]
    assert set(base.values) - starts == {*hook_names(model, STEPS)} - {"hook_embed", *readouts}
    assert starts <= set(base.values)
    differs = [
        name for name in base.values if not torch.equal(base.values[name], donor.values[name])
    ]
    assert len(differs) > len(base.values) / 2


def test_patching_everything_gives_the_donor(
    model: RecursiveModel, base: Recorded, donor: Recorded
):
    """From the start, and from the end of any H-cycle on."""
    size = len(model.config.schedule.cycle)
    n = STEPS * model.config.schedule.evaluations
    for before in range(0, n + 1, size):
        effects = patch.apply(base, donor, [Cell(last_writes(model, before))], batch_size=RUNS)
        assert same_end(effects, 0, donor), before


def test_patching_nothing_changes_no_bit(base: Recorded, donor: Recorded):
    nowhere = torch.zeros(base.x.shape[1], dtype=torch.bool)
    for hook in some(base.values, 4):
        cell = Cell(hook, nowhere)
        assert same_end(patch.apply(base, donor, [cell], batch_size=RUNS), 0, base), hook
        own = patch.apply(base, base, [Cell(hook)], batch_size=RUNS)
        assert same_end(own, 0, base), hook


def some(hooks: Iterable[str], n: int) -> list[str]:
    every = list(hooks)
    return every[:: max(1, len(every) // n)]


def some_cells(base: Recorded) -> list[Cell]:
    """At some hook points, with positions of its own."""
    generator = torch.Generator().manual_seed(0)
    n, pos = base.x.shape[:2]
    masks = [torch.rand(n, pos, generator=generator) < 0.4 for _ in base.values]
    return [Cell(hook, mask) for hook, mask in zip(some(base.values, 7), masks, strict=False)]


def test_cells_together_are_cells_one_by_one(base: Recorded, donor: Recorded):
    cells = some_cells(base)
    done: list[tuple[int, int]] = []
    together = patch.apply(base, donor, cells, progress=lambda *at: done.append(at))
    assert done[-1] == (len(cells), len(cells))
    for size in (1, 2 * RUNS + 1):
        apart = patch.apply(base, donor, cells, batch_size=size)
        for name in patch.OUTCOMES:
            one, other = (getattr(effects, name).float() for effects in (together, apart))
            torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)
    moved = together.change("loss").abs().amax(1) > 1e-6
    assert moved.float().mean() > 0.5  # the cells do something


def test_a_hook_of_transformer_lens_does_the_same(
    model: RecursiveModel, base: Recorded, donor: Recorded
):
    hooked = HookedModel.of(model, STEPS)
    for cell in some_cells(base)[1::2]:
        if str(cell.hooks).startswith("start."):
            continue
        mask, value = cell.positions, donor.value(str(cell.hooks))
        assert mask is not None

        def put(now: Tensor, hook: Any, mask: Tensor = mask, value: Tensor = value) -> Tensor:
            return torch.where(mask[..., None], value, now)

        with torch.no_grad():
            read = hooked.run_with_hooks(INPUTS, fwd_hooks=[(cell.hooks, put)])
        effects = patch.apply(base, donor, [cell], batch_size=RUNS)
        torch.testing.assert_close(effects.q_halt[0], read.q_halt[:, -1].float())
        assert torch.equal(effects.tokens[0].long(), read.logits[:, -1].argmax(-1))


def evaluations(runs: Recorded, work: Callable[[], Any]) -> int:
    """Network evaluations in a piece of work."""
    calls: list[int] = []
    networks = runs.model.networks()
    handles = [net.register_forward_pre_hook(lambda *_: calls.append(1)) for net in networks]
    try:
        work()
    finally:
        for handle in handles:
            handle.remove()
    return len(calls)


def test_a_rerun_begins_where_it_is_changed(model: RecursiveModel, base: Recorded, donor: Recorded):
    """The patch of a state at the last evaluation is one evaluation, and gives what is read of the
    donor's answer; a solver between evaluations is run from the beginning of the H-cycle."""
    last = model.config.schedule.ticks(STEPS)[-1].hook
    cell = Cell(last)
    count = evaluations(base, lambda: patch.apply(base, donor, [cell], batch_size=RUNS))
    assert count == len(base.spans[0].ticks)
    assert same_end(patch.apply(base, donor, [cell], batch_size=RUNS), 0, donor)
    both = [cell, Cell(patch.last_hook(model, STEPS, model.latent, base.evaluations))]
    together = evaluations(base, lambda: patch.apply(base, donor, both))
    alone = evaluations(base, lambda: patch.apply(base, donor, both[1:]))
    assert together == alone  # the later cell joins on the way


def test_a_model_is_left_as_it_was(model: RecursiveModel):
    modules = len(list(model.modules()))
    runs = patch.record(model, INPUTS, LABELS, 1)
    patch.apply(runs, lambda z: 0 * z, [Cell(model.config.schedule.ticks()[0].hook)])
    assert (
        len(list(model.modules())) == modules and type(model).__name__ == type(model).__qualname__
    )
    assert not any(weight.grad is not None for weight in model.parameters())


def test_attribution_is_the_change_of_a_tiny_patch(model: RecursiveModel, base: Recorded):
    """At every kind of hook point; in float64, since random weights amplify every difference."""
    model64 = build(model.config).double()
    model64.load_state_dict({k: v.double() for k, v in model.state_dict().items()})
    how: dict[str, Any] = {"hooks": lambda name: True, "dtype": torch.float64}
    runs = patch.record(model64, INPUTS, LABELS, 2, **how)
    x = model64.embed(INPUTS, torch.float64)
    near = patch.noisy_starts(
        model64.initial_state(x), torch.tensor([1, 2]), model.state_names, 1e-5
    )
    donor = patch.record(model64, INPUTS, LABELS, 2, start=near, **how)
    found = patch.attribute(runs, donor, lambda name: True)
    assert list(found) == [place.name for place in patch.places(model, 2)]
    hooks = some(found, 6)
    exact = patch.apply(runs, donor, [Cell(hook) for hook in hooks]).change("loss")
    estimate = torch.stack([found[hook].sum(-1) for hook in hooks])
    torch.testing.assert_close(estimate, exact, atol=2e-6, rtol=0.05)
