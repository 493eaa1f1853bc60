"""Patches of toys whose answers are known: linear maps, copies, sources, groups, errors."""

import re
from typing import Any

import numpy as np
import pytest
import torch
from toy_copier import squares, toy_copier
from toy_task import Latin

from trm_interp import UserError, patch
from trm_interp.core.models.registry import build, config_class
from trm_interp.patch import Cell, Donor, Edit, MappedBack, Mean, Noise, Recorded, Zero
from trm_interp.patch.view import NOTHING
from trm_interp.tasks.symmetry import Symmetry

STEPS = 2
MIDDLE = "step.0.h.1.l.2.hook_slow"  # the first of two writes of slow in that cycle


def recorded(model: Any, **how: Any) -> Recorded:
    inputs, labels = (torch.from_numpy(part) for part in (squares().inputs, squares().labels))
    return patch.record(model, inputs, labels, STEPS, **how)


@pytest.fixture(scope="module")
def linear() -> Any:
    """The toy with random maps: all of it is affine in its states."""
    config = config_class("toy")(cells=9, vocab=5, d_model=6)
    return build(config, torch.Generator().manual_seed(1)).eval()


@pytest.fixture(scope="module")
def base(linear: Any) -> Recorded:
    return recorded(linear, hooks=lambda name: True)


@pytest.fixture(scope="module")
def donor(linear: Any, base: Recorded) -> Recorded:
    own = linear.initial_state(base.x)
    start = patch.noisy_starts(own, torch.arange(len(base)), linear.state_names)
    return recorded(linear, start=start, hooks=lambda name: True)


def test_attribution_of_a_linear_model_is_exact(base: Recorded, donor: Recorded):
    """q_halt is linear in the states: the estimate of every hook point is what its patch does."""
    found = patch.attribute(base, donor, lambda name: True, lambda read, labels: read.q_halt)
    exact = patch.apply(base, donor, [Cell(hook) for hook in found]).change("q_halt")
    estimate = torch.stack([one.sum(-1) for one in found.values()])
    torch.testing.assert_close(estimate, exact, atol=1e-4, rtol=1e-4)
    assert (exact.abs().amax(0) > 1e-3)[1:].all()  # start 0 is the model's own
    mask = torch.arange(9) < 4
    some = patch.apply(base, donor, [Cell(MIDDLE, mask)]).change("q_halt")[0]
    torch.testing.assert_close(found[MIDDLE][:, :4].sum(-1), some, atol=1e-4, rtol=1e-4)


def test_attribution_costs_at_most_four_forward_runs(linear: Any, base: Recorded, donor: Recorded):
    """In evaluations: those of the run, which are differentiated, and the donor's where it kept
    nothing; a backward pass is two more."""
    forward, counted = type(linear.quick).forward, []

    def counting(self: Any, *args: Any) -> Any:
        counted.append(torch.is_grad_enabled())
        return forward(self, *args)

    type(linear.quick).forward = counting
    try:
        patch.attribute(base, recorded(linear, start=donor.before[0], hooks=[MIDDLE]))
    finally:
        type(linear.quick).forward = forward
    run = STEPS * base.evaluations
    assert counted.count(True) == run and counted.count(False) == 2 * run  # one is the recording


def test_a_path_is_cut_for_one_evaluation(linear: Any, base: Recorded):
    """slow reads zero in the place of fast once; whatever else reads fast gets the run's own."""
    ticks = linear.config.schedule.ticks(STEPS)
    state = linear.initial_state(base.x)
    with torch.no_grad():
        for tick in ticks:
            seen = state._replace(fast=0 * state.fast) if tick.hook == MIDDLE else state
            written = linear.evaluate(tick, *linear.operands(tick, seen, base.x))
            state = state._replace(**{tick.writes: written})
        wanted = linear.readout(state.slow).q_halt
    cut = patch.apply(base, Zero(), [Cell(MIDDLE, reads="fast"), Cell(MIDDLE)])
    torch.testing.assert_close(cut.q_halt[0], wanted)
    assert not torch.allclose(cut.q_halt[0], cut.q_halt[1])
    with pytest.raises(ValueError, match="reads 'quick': no such state; there are slow, fast"):
        patch.apply(base, Zero(), [Cell(MIDDLE, reads="quick")])


def test_directions(base: Recorded, donor: Recorded):
    """All directions are the whole; one and the rest of a basis add up, as q_halt is linear."""
    basis = torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(0)))[0]
    askew = torch.stack([basis[0], basis[0] + 0.1 * basis[1], 2 * basis[0]])  # spans two
    cells = [Cell(MIDDLE, directions=of) for of in (basis, basis[0], basis[1:], askew, basis[:2])]
    all_of_it, one, rest, spanned, two = patch.apply(base, donor, cells).change("q_halt")
    whole = patch.apply(base, donor, [Cell(MIDDLE)]).change("q_halt")[0]
    close: dict[str, Any] = {"atol": 1e-5, "rtol": 1e-4}
    torch.testing.assert_close(all_of_it, whole, **close)
    torch.testing.assert_close(one + rest, whole, **close)
    torch.testing.assert_close(spanned, two, **close)


def test_sources(base: Recorded, donor: Recorded):
    """By what each puts at a hook point."""
    now, runs = base.value(MIDDLE), torch.arange(len(base))
    theirs = donor.value(MIDDLE)
    rolled = Donor(donor, runs.roll(1)).at(MIDDLE, now, runs)
    assert torch.equal(rolled[1:], theirs[:-1]) and torch.equal(rolled[0], theirs[-1])
    mean = Mean(base).at(MIDDLE, now[:2], runs[:2])
    torch.testing.assert_close(mean[0], now.mean(0))
    assert not Zero().at(MIDDLE, now, runs).any()
    assert torch.equal(Edit(lambda z: z + 1).at(MIDDLE, now, runs), now + 1)
    noise = Noise(donor, seed=1).at(MIDDLE, now, runs) - now
    torch.testing.assert_close(noise.norm(dim=-1), (theirs - now).norm(dim=-1))
    assert torch.cosine_similarity(noise, theirs - now, dim=-1)[1:].abs().mean() < 0.6
    alone = Noise(donor, seed=1).at(MIDDLE, now[3:4], runs[3:4]) - now[3:4]
    torch.testing.assert_close(alone[0], noise[3])
    flipped = runs.flip(0)  # each run has the noise of the name that it is given
    named = Noise(donor, 1, flipped).at(MIDDLE, now, runs) - now
    torch.testing.assert_close(named.norm(dim=-1), noise.norm(dim=-1))
    torch.testing.assert_close(
        torch.nn.functional.normalize(named[1:-1], dim=-1),
        torch.nn.functional.normalize(noise.flip(0)[1:-1], dim=-1),
        atol=1e-3,
        rtol=0,
    )
    with pytest.raises(ValueError, match="1 names for the noise of"):
        Noise(donor, 1, flipped[:1]).check(base)
    assert not torch.allclose(Noise(donor, seed=2).at(MIDDLE, now, runs) - now, noise, atol=0.1)


def test_a_symmetric_copy_mapped_back_is_the_run_itself():
    """The copier treats all cells alike, so its states move with them."""
    model, puzzles = toy_copier(), squares()
    inputs, labels, _ = puzzles.tensors
    symmetry = Latin().symmetry(torch.arange(len(puzzles)))
    assert isinstance(symmetry, Symmetry)
    moved = patch.moves_only(symmetry)
    base = patch.record(model, inputs, labels, STEPS)
    copy = patch.record(model, moved.apply(inputs), moved.apply(labels), STEPS)
    runs, now = torch.arange(len(base)), base.value(MIDDLE)
    assert torch.equal(MappedBack(copy, moved).at(MIDDLE, now, runs), now)
    assert not torch.equal(Donor(copy).at(MIDDLE, now, runs), now)
    effects = patch.apply(base, MappedBack(copy, moved), [Cell(MIDDLE)])
    assert not effects.change("loss").any()
    assert not patch.attribute(base, MappedBack(copy, moved), MIDDLE)[MIDDLE].any()
    assert patch.attribute(base, Donor(copy), MIDDLE)[MIDDLE].any()


def test_nothing_is_held_after_a_rerun(base: Recorded, donor: Recorded):
    patch.apply(base, donor, [Cell(MIDDLE)])
    assert base.view.listener is NOTHING


def test_swapping_one_cell_of_a_copier():
    """What is patched at one cell is what is answered there, and nowhere else."""
    model = toy_copier()
    base = recorded(model)
    inputs, labels = (torch.from_numpy(part) for part in (squares().inputs, squares().labels))
    other = patch.record(model, inputs.roll(1, 0), labels.roll(1, 0), STEPS)
    last = model.config.schedule.ticks(STEPS)[-1].hook
    effects = patch.apply(base, other, [Cell(last, patch.positions_of(model.config, [4]))])
    wanted = inputs.clone()
    wanted[:, 4] = inputs.roll(1, 0)[:, 4]
    assert torch.equal(effects.tokens[0], wanted)
    right = (wanted == labels).float().mean(1)
    torch.testing.assert_close(effects.cells[0], right)
    assert torch.equal(effects.exact[0], right == 1)


def test_groups_of_positions():
    task, puzzles = Latin(), squares()
    config = config_class("toy")(cells=9, vocab=5, d_model=6)
    differ = puzzles.inputs != puzzles.labels
    focus = np.arange(len(puzzles)) % 9
    groups = patch.position_groups(task, config, puzzles.inputs, differ, focus)
    assert list(groups) == ["all", "givens", "blanks", "differ", "cell", "its row", "its column"]
    assert groups["all"].all() and torch.equal(groups["givens"], ~groups["blanks"])
    assert torch.equal(groups["blanks"], torch.from_numpy(puzzles.inputs == 4))
    fourth = {name: mask[4].nonzero().flatten().tolist() for name, mask in groups.items()}
    assert (fourth["cell"], fourth["its row"]) == ([4], [3, 4, 5])
    assert fourth["its column"] == [1, 4, 7]
    with_prefix = config_class("trm")(cells=9, vocab=5, d_model=8, multiple=8, prefix=2)
    moved = patch.position_groups(task, with_prefix, puzzles.inputs)
    assert list(moved) == ["all", "prefix", "givens", "blanks"]
    assert moved["prefix"][0].nonzero().flatten().tolist() == [0, 1]
    assert torch.equal(moved["blanks"][:, 2:], groups["blanks"])


def test_pairs():
    solved = np.array([[1, 1, 1], [0, 0, 0], [0, 1, 1], [1, 0, 0]], bool)
    pairs = patch.pairs_among(solved)
    assert [of.tolist() for of in pairs] == [[2, 3], [1, 0], [0, 1], [2, -1]]
    assert len(patch.pairs_among(solved, most=1)) == 1
    wanted = "among 2 puzzles x 3 starts: 1 are solved from every start, 1 from none; try more"
    with pytest.raises(UserError, match=wanted):
        patch.pairs_among(solved[:2])


def wrong(base: Recorded, linear: Any) -> dict[str, tuple[Any, str]]:
    """Bad input and what is said of it."""
    other = config_class("toy")(cells=9, vocab=5, d_model=4)
    small = recorded(build(other, torch.Generator().manual_seed(0)))
    tokens = torch.ones(2, 9, dtype=torch.int64)
    short = patch.record(linear, base.labels, base.labels, 1)
    few = recorded(linear, hooks=[MIDDLE])
    late, inside = "step.2.h.1.l.2.hook_slow", "step.0.h.1.l.2.inner.hook_mixed"
    on = patch.apply
    return {
        "another width": (
            lambda: on(base, small, [Cell(MIDDLE)]),
            "9 positions of 4 numbers, those of the runs that it is put into 9 of 6",
        ),
        "fewer runs": (
            lambda: on(base, patch.record(linear, tokens, tokens, STEPS), [Cell(MIDDLE)]),
            "a donor of 2 runs for 13",
        ),
        "fewer steps": (lambda: on(base, short, [Cell(MIDDLE)]), "the donor has 1 supervision"),
        "a late step": (lambda: on(base, base, [Cell(late)]), f"'{late}'; .* nearest are .*slow"),
        "a wrong site": (
            lambda: on(base, base, [Cell("step.0.h.1.l.2.inner.hook_mix")]),
            f"the nearest are {re.escape(inside)}",
        ),
        "a filter": (lambda: on(base, base, [Cell(lambda name: False)]), "accepts none of"),
        "not kept": (lambda: on(base, few, [Cell(inside)]), f"{re.escape(inside)} was not kept"),
        "no restart": (
            lambda: on(few, Zero(), [Cell("step.1.h.1.l.2.hook_slow")]),
            "step.1.h.1.l.2.hook_slow was not kept: record the run with",
        ),
        "positions": (
            lambda: on(base, base, [Cell(MIDDLE, torch.ones(8, dtype=torch.bool))]),
            r"positions are bool \[9\], got torch.bool \[8\]",
        ),
        "no cell": (lambda: on(base, base, []), "no cell to patch"),
        "zero": (lambda: Cell(MIDDLE, directions=torch.zeros(2, 6)), "directions are all zero"),
        "directions": (
            lambda: on(base, base, [Cell(MIDDLE, directions=torch.ones(5))]),
            "directions have 5 numbers, states have 6",
        ),
        "a cell": (lambda: patch.positions_of(linear.config, [9]), "cells are 0 to 8"),
        "a start": (
            lambda: recorded(linear, start=small.before[0]),
            r"shape \[13, 9, 6\], got \[\[13, 9, 4\]",
        ),
        "no steps": (lambda: patch.record(linear, tokens, tokens, 0), "steps must be at least 1"),
        "an edit": (lambda: on(base, lambda z: z[:1], [Cell(MIDDLE)]), "an edit of .* gave"),
    }


def test_bad_input(base: Recorded, linear: Any):
    for case, (work, message) in wrong(base, linear).items():
        with pytest.raises(ValueError, match=message):
            work()
            print(case)  # where nothing is raised


def test_no_source(base: Recorded):
    with pytest.raises(TypeError, match="a source is recorded runs, a function or"):
        patch.apply(base, 3, [Cell(MIDDLE)])  # type: ignore[arg-type]
