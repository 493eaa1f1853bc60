"""Measures and loss recovered, against numbers by hand and SAEs that are known."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sae_lens import SAE
from sae_runs import identity_sae
from sae_store import noise, write_store

from trm_interp.analysis.estimates import Estimate
from trm_interp.analysis.outcomes import wilson
from trm_interp.core.checkpoints.folder import load_checkpoint
from trm_interp.core.clock import Tick
from trm_interp.recording.hooks import HookedTRM
from trm_interp.runtime.errors import UserError
from trm_interp.sae.applied import applying
from trm_interp.sae.measures import Usage, decoder_cosines, measures
from trm_interp.sae.results import SAEMeasures
from trm_interp.sae.settings import EvalSAEConfig, OnSAE
from trm_interp.sae.splice import Loop, Place, editing, hook_name, in_the_loop, loss_recovered
from trm_interp.sae.steer import Change, edit_of, matched_controls
from trm_interp.tasks.sudoku.dataset import load


def look(sae: Path, store: Path, **more: Any) -> SAEMeasures:
    with applying(OnSAE(sae=sae, store=store, device="cpu", **more), lambda line: None) as applied:
        return measures(applied, seed=0)[0]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    z_L = noise(5, d_model=3)
    z_L[..., 2] = 0  # features 2 and 5 never fire
    solved = np.zeros((5, 3), bool)
    solved[:2, 2] = True
    return write_store(tmp_path_factory.mktemp("measures") / "store", z_L, solved)


def test_a_perfect_sae(store: Path, tmp_path: Path):
    result = look(identity_sae(tmp_path / "sae", 3), store)
    assert result.fvu.value == 0 and result.rows == 5 * 12 * 16
    assert result.l0 == pytest.approx(2, abs=0.01)  # one of x, -x in two coordinates
    assert result.dead == 2 / 6 and result.dense == 4 / 6
    assert result.by_outcome["solved"].n == 2 and result.by_outcome["failed"].n == 3
    assert result.by_tick.tick == [0, 1, 3, 4, 6, 7, 9, 10, 12, 13, 15, 16]
    assert SAEMeasures.from_json(json.loads(json.dumps(result.to_json()))) == result


def test_half_of_the_state_is_a_quarter_of_the_variance(store: Path, tmp_path: Path):
    # x/2: error |x/2|^2 over |x - mean|^2, the mean being almost 0
    config = OnSAE(sae=identity_sae(tmp_path / "sae", 3, scale=0.5), store=store, device="cpu")
    with applying(config, lambda line: None) as applied:
        result, usage = measures(applied, seed=0)
    with_mean = 0.25 * (1 + np.square(usage.mean_row).sum() / 2)
    assert result.fvu.value == pytest.approx(with_mean, rel=1e-2)
    assert result.by_tick.fvu == pytest.approx([0.25] * 12, rel=0.1)


def test_measures_by_hand(tmp_path: Path):
    # rows 1 and 3 in one coordinate, kept whole where positive: mean 2, spread 1 + 1
    z_L = np.zeros((2, 3, 2, 2, 4, 1))
    z_L[0], z_L[1] = 1, -3
    path = write_store(tmp_path / "store", z_L)
    result = look(identity_sae(tmp_path / "sae", 1, keep=1), path)
    # mean -1: spread 4 everywhere; errors 0 and (-3)^2 = 9: 9 / 8
    assert result.fvu.value == pytest.approx(9 / 8)
    assert result.fvu.low == 0 and result.fvu.high == pytest.approx(9 / 4)
    assert result.l0 == 0.5 and result.dead == 0.5 and result.dense == 0.5


def test_decoder_cosines_by_hand():
    rows = torch.tensor([[1.0, 0], [2, 0], [0, 1], [3, 4]])
    # nearest: 1 (row 1), 1 (row 0), 0.8 (row 3), 0.8 (row 2)
    cosines = decoder_cosines(rows)
    assert cosines.nearest_mean == pytest.approx(0.9) and cosines.twins == 0.5
    assert cosines.nearest_median == pytest.approx(0.9)


ALL, NOTHING = (Estimate(value=share, low=share, high=share) for share in (1.0, 0.0))


def test_loss_recovered_by_hand():
    clean, ablated = np.array([1.0, 2]), np.array([3.0, 4])
    # (1.5 - 1) + (2.5 - 2) = 1 lost of 4 at stake
    assert loss_recovered(clean, clean + 0.5, ablated).value == 0.75
    assert loss_recovered(clean, clean, ablated) == ALL
    assert loss_recovered(clean, ablated, ablated) == NOTHING
    assert math.isnan(loss_recovered(clean, clean, clean).value or 0)


@pytest.fixture
def loop(copier: Path, grids: Path) -> Loop:
    puzzles = load(grids)
    boards = [torch.from_numpy(tokens) for tokens in (puzzles.inputs, puzzles.labels)]
    return Loop(load_checkpoint(copier).model, *boards, n_steps=3, batch_size=5)


TICKS = [Tick(s, h, i, "z_L") for s in range(3) for h in range(2) for i in range(2)]


@pytest.mark.parametrize("site", ["z_L", "z_H", "blocks.0.hook_resid_post"])
def test_a_perfect_sae_recovers_all_and_zero_nothing(loop: Loop, site: str):
    ticks = (
        TICKS if site != "z_H" else [Tick(s, h, 2, "z_H", True) for s in range(3) for h in range(2)]
    )
    places = [Place(site, ticks, torch.zeros(16))]
    perfect = in_the_loop(loop, places, {"sae": lambda x: x})
    assert perfect.recovered_over_zero == ALL
    assert perfect.runs["sae"] == perfect.runs["clean"]
    nothing = in_the_loop(loop, places, {"sae": torch.zeros_like})
    assert nothing.recovered_over_zero == NOTHING
    assert nothing.runs["zero"] == nothing.runs["mean"]  # the mean row is zero here
    assert nothing.runs["zero"].loss.value != nothing.runs["clean"].loss.value


def test_exact_accuracy_has_wilson_intervals_and_means_of_one_puzzle_none(loop: Loop):
    solved = loop.run().exact[:, -1]
    places = [Place("z_L", TICKS, torch.zeros(16))]
    exact = in_the_loop(loop, places, {"sae": lambda x: x}).runs["clean"].exact
    assert (exact.low, exact.high) == wilson(int(solved.sum()), len(solved))
    alone = Loop(loop.model, loop.inputs[:1], loop.labels[:1], n_steps=3, batch_size=5)
    run = in_the_loop(alone, places, {"sae": lambda x: x}).runs["clean"]
    for estimate in (run.cells, run.loss):
        assert estimate.text() == f"{estimate.value:.3f}"


def test_one_tick_is_spliced_and_the_hooks_are_gone_afterwards(loop: Loop):
    seen: list[str] = []
    tick = Tick(1, 0, 1, "z_L")
    name = hook_name("z_L", tick)
    clean = loop.run()

    def edit(x: torch.Tensor) -> torch.Tensor:
        seen.append("edited")
        return torch.zeros_like(x)

    changed = loop.run(lambda puzzles: {name: edit})
    assert len(seen) == 3  # batches of 5, 5 and 3
    assert np.array_equal(changed.loss[:, 0], clean.loss[:, 0])  # step 0 comes before
    assert not np.array_equal(changed.loss[:, 1], clean.loss[:, 1])
    assert np.array_equal(loop.run().loss, clean.loss)
    with pytest.raises(RuntimeError), editing(loop.model, {name: edit}):
        raise RuntimeError
    assert np.array_equal(loop.run().loss, clean.loss)


def test_the_spliced_state_goes_on_in_the_recursion(loop: Loop):
    """The state after the hook is what the next evaluation reads: as if set by hand."""
    tick, after = Tick(0, 0, 0, "z_L"), Tick(0, 0, 1, "z_L")
    model: HookedTRM = loop.model
    with torch.no_grad(), editing(model, {hook_name("z_L", tick): lambda x: 2 * x}):
        _, edited = model.run_with_cache(loop.inputs, names_filter=[after.hook])
    with torch.no_grad():
        x = model.embed(loop.inputs)
        z_H, z_L = model.initial_state(x)
        first = model.net(z_L, z_H + x)
        expected = model.net(2 * first, z_H + x)
    torch.testing.assert_close(edited[after.hook], expected)


# steering


def edit_case(mode: str, value: float, positions: list[int] | None = None) -> torch.Tensor:
    rows = torch.tensor([[1.0, 0], [0, 2.0]])
    encode: Callable[[torch.Tensor], torch.Tensor] = lambda x: torch.relu(x)  # noqa: E731
    edit = edit_of(encode, rows, Change(1, mode, value), positions)  # type: ignore[arg-type]
    return edit(torch.tensor([[[5.0, 3.0], [1.0, -4.0]]]))


def test_edits_by_hand():
    # activation of feature 1 is relu(second): 3 and 0; its row is (0, 2)
    assert edit_case("ablate", 9).tolist() == [[[5, 3 - 3 * 2], [1, -4]]]
    assert edit_case("clamp", 4).tolist() == [[[5, 3 + (4 - 3) * 2], [1, -4 + 4 * 2]]]
    assert edit_case("steer", 0.5).tolist() == [[[5, 3 + 1], [1, -4 + 1]]]
    assert edit_case("steer", 0.5, [1]).tolist() == [[[5, 3], [1, -3]]]


def test_controls_fire_about_as_much():
    density = np.array([0.1, 0.11, 0.09, 0.5, 0.0, 0.001, 0.1])
    usage = Usage(*[density] * len(Usage._fields))
    controls = matched_controls(usage, 0, 3, seed=0)
    assert set(controls) == {1, 2, 6}
    with pytest.raises(UserError, match="only 5 other features fire"):
        matched_controls(usage, 0, 6, seed=0)


# bad input


def test_what_does_not_fit_is_refused_in_one_line(store: Path, tmp_path: Path):
    wide = identity_sae(tmp_path / "wide", 4)
    with pytest.raises(UserError, match="is 4 wide, z_L of .* is 3 wide"):
        look(wide, store, force_mismatch=True)
    sae = identity_sae(tmp_path / "sae", 3)
    loaded = SAE.load_from_disk(sae)
    loaded.cfg.metadata.trm_interp["checkpoint_sha256"] = "decade"
    loaded.save_model(tmp_path / "other")
    with pytest.raises(UserError, match="checkpoint decade, the store's is c0ffee; --force"):
        look(tmp_path / "other", store)
    forced = look(tmp_path / "other", store, force_mismatch=True)
    assert forced.mismatch == "checkpoint decade, the store's is c0ffee"
    with pytest.raises(UserError, match="no finished SAE here"):
        look(tmp_path, store)
    with pytest.raises(UserError, match="holds no 'z_H'; it holds z_L"):
        look(sae, store, site="z_H")
    (sae / "sae_weights.safetensors").write_bytes(b"half")
    with pytest.raises(UserError, match="sae_weights.safetensors: truncated or damaged"):
        look(sae, store)
    with pytest.raises(ValueError, match="limit must be at least 1"):
        EvalSAEConfig(sae=sae, store=store, limit=0)
