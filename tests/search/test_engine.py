"""The engine is plain inference where nothing differs, and batches, retiring and order change none
of its answers where runs settle."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import TINY, lively
from torch import Tensor
from torch.nn.functional import one_hot

from trm_interp.analysis.outcomes import wilson
from trm_interp.core.checkpoints.folder import load_checkpoint
from trm_interp.core.infer import run_batch
from trm_interp.core.models.base import Readout
from trm_interp.core.models.trm import TRM
from trm_interp.core.models.trm_config import TRMConfig
from trm_interp.search.engine import ROUND, search, trace
from trm_interp.search.selection import choose
from trm_interp.search.settings import SearchConfig
from trm_interp.subjects.settings import default_checkpoint
from trm_interp.tasks.sudoku.dataset import load
from trm_interp.tasks.sudoku.task import Sudoku

Puzzles = tuple[Tensor, Tensor]
TASK = Sudoku(4)


@pytest.fixture
def contracting() -> TRM:
    """Small weights, a loud input: every start ends in the same state of its puzzle, soon."""
    model = lively(TRMConfig(**{**TINY, "d_model": 16}, prefix=2), seed=1)
    with torch.no_grad():
        model.lm_head.weight.copy_(model.token_embedding)  # what it sees is what it answers
        model.token_embedding.mul_(20)
        for weight in model.net.parameters():
            weight.mul_(0.1)
    return model


class Watched:
    """Batch sizes of a model's supervision steps."""

    def __init__(self, model: TRM) -> None:
        self.sizes: list[int] = []
        advance = model.advance

        def counted(state: Any, x: Tensor, *more: Any, **named: Any) -> Any:
            self.sizes.append(len(x))
            return advance(state, x, *more, **named)

        model.advance = counted  # type: ignore[method-assign]


def test_one_trajectory_without_noise_is_plain_inference_bit_for_bit(
    tiny_trm: TRM, puzzles: Puzzles
):
    plain = run_batch(tiny_trm, *puzzles, steps=4)
    for settings in ({"sigma": 0.0, "clean": False}, {"sigma": 1.0, "clean": True}):
        config = SearchConfig(k=1, steps=4, stop="never", **settings)
        # without a clean trajectory the plain run is a second row of each puzzle
        alone = search(tiny_trm, TASK, puzzles[0], config, batch_size=5 if config.clean else 10)
        if config.clean:
            assert alone.tokens[:, 0].tobytes() == plain.tokens.numpy().tobytes()
            assert alone.q[:, 0].tobytes() == plain.q_halt.numpy().tobytes()
        else:
            np.testing.assert_array_equal(alone.tokens[:, 0], alone.tokens[:, 1])
            np.testing.assert_array_equal(alone.q[:, 0], alone.q[:, 1])
        assert (alone.ran == 4).all()


@pytest.mark.parametrize("when", ["init", "every"])
@pytest.mark.parametrize("symmetry", [False, True])
def test_a_trajectory_does_not_depend_on_the_batch(
    tiny_mlp: TRM, puzzles: Puzzles, when: Any, symmetry: bool
):
    """In float64, so that rounding of other batch sizes stays below 1e-9; other noise would not."""
    config = SearchConfig(
        k=4, steps=3, target="both", when=when, symmetry=symmetry, stop="never", seed=5
    )
    inputs = puzzles[0]
    whole = search(tiny_mlp, TASK, inputs, config, 64, torch.float64)
    assert len(np.unique(whole.q[:, :, -1])) == 20  # all trajectories differ
    for batch_size in (1, 3):
        other = search(tiny_mlp, TASK, inputs, config, batch_size, torch.float64)
        np.testing.assert_allclose(other.q, whole.q, atol=1e-6)
        np.testing.assert_array_equal(other.tokens, whole.tokens)
    # other puzzles beside it, another place, fewer trajectories
    few = search(tiny_mlp, TASK, inputs[[4, 2]], replace(config, k=2), 64, torch.float64)
    np.testing.assert_allclose(few.q, whole.q[[4, 2], :2], atol=1e-6)


def test_noise_before_every_step_differs_from_noise_on_the_start(tiny_mlp: TRM, puzzles: Puzzles):
    first, every = (
        search(tiny_mlp, TASK, puzzles[0], SearchConfig(k=2, steps=2, when=when, stop="never"), 64)
        for when in ("init", "every")
    )
    np.testing.assert_array_equal(first.q[:, :, 0], every.q[:, :, 0])
    np.testing.assert_array_equal(first.q[:, 0], every.q[:, 0])  # the clean one
    assert (first.q[:, 1, 1] != every.q[:, 1, 1]).all()


def test_retiring_changes_no_answer_where_runs_settle(contracting: TRM, puzzles: Puzzles):
    config = SearchConfig(k=6, steps=12, sigma=20.0, stop="never")
    whole = search(contracting, TASK, puzzles[0], config, 16)
    retired = search(contracting, TASK, puzzles[0], replace(config, stop="q", threshold=-1e6), 16)
    assert (whole.tokens[:, :, 0] != whole.tokens[:, :, -1]).any()  # not settled at once
    np.testing.assert_array_equal(retired.tokens, whole.tokens)
    assert retired.ran.max() < 12 and (whole.ran == 12).all()
    # until its end each trajectory is the one that was not retired
    for p, k in np.ndindex(retired.ran.shape):
        end = retired.ran[p, k]
        np.testing.assert_array_equal(retired.tokens[p, k, :end], whole.tokens[p, k, :end])
        assert (retired.tokens[p, k, end:] == retired.tokens[p, k, end - 1]).all()
        assert (retired.tokens[p, k, end - 1] == retired.tokens[p, k, end - 2]).all()


def test_retiring_stays_within_the_interval_on_the_checkpoint_that_ships():
    checkpoint = default_checkpoint()
    puzzles = load(checkpoint.parent / "data" / "sudoku6" / "test.txt", limit=16)
    model, inputs = load_checkpoint(checkpoint).model, torch.from_numpy(puzzles.inputs)
    config = SearchConfig(k=4, steps=8, stop="never")
    right, cost = [], []
    for stop in ("never", "q"):
        how = replace(config, stop=stop)
        trajectories = search(model, puzzles.task, inputs, how, 64, torch.bfloat16)
        at = choose(trajectories)["best_q"][:, -1]
        right.append(int(trajectories.solved(puzzles.labels)[range(16), at, -1].sum()))
        cost.append(trajectories.steps_run.sum())
    low, high = wilson(right[0], 16)
    assert low <= right[1] / 16 <= high + 1e-9 and cost[1] < 0.8 * cost[0]


def test_the_batch_is_kept_full_and_never_larger(contracting: TRM, puzzles: Puzzles):
    watched = Watched(contracting)
    config = SearchConfig(k=6, steps=12, stop="q", threshold=-1e6)
    trajectories = search(contracting, TASK, puzzles[0], config, batch_size=4)
    assert max(watched.sizes) == 4 and sum(watched.sizes) == trajectories.ran.sum()
    assert watched.sizes[: len(watched.sizes) // 2] == [4] * (len(watched.sizes) // 2)


def test_q_must_be_above_the_threshold_twice(contracting: TRM, puzzles: Puzzles):
    never = SearchConfig(k=3, steps=8, stop="never")
    whole = search(contracting, TASK, puzzles[0], never, 16)
    threshold = float(np.median(whole.q[:, :, 2]))
    confident = replace(never, stop="q", threshold=threshold)
    retired = search(contracting, TASK, puzzles[0], confident, 16)
    above = whole.q > threshold
    same = (whole.tokens[:, :, 1:] == whole.tokens[:, :, :-1]).all(-1)
    twice = np.pad(above[:, :, 1:] & above[:, :, :-1] & same, ((0, 0), (0, 0), (1, 0)))
    expected = np.where(twice.any(-1), twice.argmax(-1) + 1, 8)
    np.testing.assert_array_equal(retired.ran, expected)
    assert 0 < (retired.ran < 8).mean() < 1


@pytest.mark.parametrize("batch_size", [1, 5, 64])
def test_an_adaptive_search_ends_with_the_first_proof(copier: Any, grids: Any, batch_size: int):
    """Full grids are copied and proved by the first trajectory; a blank is never filled."""
    model, puzzles = load_checkpoint(copier).model, load(grids)
    inputs = torch.from_numpy(puzzles.inputs)
    config = SearchConfig(k=21, steps=3, stop="rules", adaptive=True)
    watched = Watched(model)
    trajectories = search(model, TASK, inputs, config, batch_size)
    assert max(watched.sizes) <= max(batch_size, ROUND)
    proved = trajectories.valid[:, 0, 0]
    assert proved.any()
    assert (trajectories.ran[proved, 0] == 1).all() and not trajectories.ran[proved, 1:].any()
    lost = ~trajectories.valid.any((1, 2))
    assert lost.any() and (trajectories.ran[lost] == 3).all()  # all 21 of 1, 1, 2, 4, 8, 5
    assert np.isneginf(trajectories.q[proved, 1:]).all()
    solved = trajectories.solved(puzzles.labels)
    np.testing.assert_array_equal(trajectories.valid & (trajectories.ran[..., None] > 0), solved)


def test_members_of_a_group_end_together(tiny_mlp: TRM, puzzles: Puzzles):
    config = SearchConfig(k=20, steps=6, threshold=-0.5, adaptive=True)
    trajectories = search(tiny_mlp, TASK, puzzles[0], config, 64, torch.float64)
    ran = trajectories.ran
    ends = {row[start:stop].tobytes() for row in ran for start, stop in ((2, 4), (4, 8))}
    groups = [(0, 1), (1, 2), (2, 4), (4, 8), (8, 16), (16, 20)]
    assert ends and all(
        len(set(row[start:stop].tolist())) == 1 for row in ran for start, stop in groups
    )
    again = search(tiny_mlp, TASK, puzzles[0], config, 7, torch.float64)
    np.testing.assert_array_equal(again.ran, trajectories.ran)
    assert {int((row > 0).sum()) for row in trajectories.ran} <= {1, 2, 4, 8, 16, 20}


class Echo(TRM):
    """Answers the tokens that it was given."""

    def embed(self, tokens: Tensor, dtype: Any = torch.float32, identifiers: Any = None) -> Tensor:
        self.given = tokens.long()
        return super().embed(tokens, dtype)

    def readout(self, z_H: Tensor, step: int = 0) -> Readout:
        return super().readout(z_H)._replace(logits=one_hot(self.given, 6).float())


def test_symmetries_are_undone(puzzles: Puzzles):
    model = Echo(TRMConfig(**TINY, prefix=2), torch.Generator().manual_seed(0)).eval()
    labels = puzzles[1]
    config = SearchConfig(k=4, steps=1, sigma=0.0, symmetry=True, stop="never")
    trajectories = search(model, TASK, labels, config, 64)
    np.testing.assert_array_equal(trajectories.tokens[:, :, 0], np.tile(labels[:, None], (1, 4, 1)))
    seen = model.given.unflatten(0, (5, 4))
    assert torch.equal(seen[:, 0], labels) and (seen[:, 1:] != labels[:, None]).any(-1).all()
    assert trajectories.valid.all()  # and the copies obeyed the rules of the puzzle itself


def test_a_trace_is_the_trajectory_cycle_by_cycle(tiny_mlp: TRM, puzzles: Puzzles):
    config = SearchConfig(k=3, steps=3, target="both", when="every", symmetry=True, stop="never")
    one = puzzles[0][:1]
    trajectories = search(tiny_mlp, TASK, one, config, 64, torch.float64)
    tokens, q = trace(tiny_mlp, TASK, one, 2, 3, config, torch.float64)
    assert tokens.shape == (3, 2, 16) and q.shape == (3, 2)
    np.testing.assert_array_equal(tokens[:, -1], trajectories.tokens[0, 2])
    np.testing.assert_allclose(q[:, -1], trajectories.q[0, 2], atol=1e-6)


def test_progress_counts_puzzles_and_sizes_are_checked(contracting: TRM, puzzles: Puzzles):
    seen: list[int] = []
    search(contracting, TASK, puzzles[0], SearchConfig(k=2, steps=2), 4, progress=seen.append)
    assert seen == sorted(seen) and seen[-1] == 5
    with pytest.raises(ValueError, match="16 cells, got 15"):
        search(contracting, TASK, puzzles[0][:, 1:], SearchConfig(), 4)
