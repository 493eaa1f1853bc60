"""Axes of paths that are pooled from a store."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from explore_worlds import PUZZLES, drawn

import trm_interp.explore.serving as serving
from trm_interp.core.checkpoints.folder import save_checkpoint
from trm_interp.explore import figures
from trm_interp.explore.bases import bases_of, on_basis
from trm_interp.explore.script import Look, script
from trm_interp.explore.session import open_session
from trm_interp.explore.trees import Tree
from trm_interp.recording.store import Store
from trm_interp.runtime.errors import UserError

Cli = Callable[..., Any]


@pytest.fixture(scope="module")
def folder(cli: Cli, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint, puzzles, a store of their runs and one of half of the positions."""
    folder = tmp_path_factory.mktemp("stored")
    lines = folder / "p.txt"
    save_checkpoint(folder / "tiny", drawn("trm"), {"task": "sudoku4"})
    lines.write_text("\n".join(PUZZLES[:2]) + "\n")
    words = ["--ckpt", folder / "tiny", "--device", "cpu", "--puzzles", lines, "--steps", 2]
    for out, more in (("states", []), ("part", ["--positions", "0-8"])):
        answer = cli("collect", *words, "--out", folder / out, *more)
        assert answer.code == 0, answer.err
    return folder


def test_axes_of_a_store(folder: Path):
    """Those of its states at the ends of H-cycles, by another decomposition."""
    given = (folder / "tiny", folder / "p.txt", 2, "cpu")
    session = open_session(*given, tell=lambda line: None, store=folder / "states")
    run, state = session.run(session.plain(1)), session.model.answer
    values = Store(folder / "states")[state][:]  # [puzzle, step, H-cycle, pos, d_model]
    pooled = values.reshape(-1, values.shape[-2] * values.shape[-1]).astype(float)
    assert len(pooled) == 2 * 2 * 2
    size, axes = np.linalg.svd(pooled - pooled.mean(0))[1:]
    (placed,) = on_basis(session, [run], state, "store")
    written = session.written(run.node, state)
    states = written.values.flatten(1).double().numpy()[written.index(session.last)]
    place = (states - states[0]) @ axes[:3].T
    own = placed.readings[state].place
    np.testing.assert_allclose(np.abs(own), np.abs(place), rtol=1e-3, atol=1e-3)
    share = np.square(size) / np.square(size).sum()
    np.testing.assert_allclose(placed.axes[state].explained, share[:3], rtol=1e-4)
    assert list(bases_of(session)) == ["run", "seen", "store"]
    scope: dict[str, Any] = {}
    look, tree = Look(4, state, basis="store"), Tree((run.node,))
    exec(script(session, tree, str(given[0]), str(given[1]), look), scope)
    figure = figures.paths([placed], state, 4, 2, False, session.task)
    assert scope["figures"]["path"].to_json() == figure.to_json()


def test_stores_that_do_not_fit(
    folder: Path, tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(serving, "serve", lambda server: None)
    save_checkpoint(tmp_path / "other", drawn("trm", d_model=16), {"task": "sudoku4"})
    words = ["--puzzles", folder / "p.txt", "--steps", 1]
    for ckpt, store, message in (
        (tmp_path / "other", folder / "states", "open it with its own (--ckpt)"),
        (folder / "tiny", folder / "part", "has 9 of 18 positions"),
        (folder / "tiny", tmp_path / "nowhere", "nowhere"),
    ):
        answer = cli("explore", "--ckpt", ckpt, *words, "--store", store)
        assert (
            answer.code == 2 and answer.err.count("\nerror: ") + answer.err.startswith("error") == 1
        )
        assert message in answer.err.splitlines()[-1]


def test_a_state_that_a_store_lacks(folder: Path):
    session = open_session(
        folder / "tiny", folder / "p.txt", 2, "cpu", tell=lambda line: None, store=folder / "states"
    )
    with pytest.raises(UserError, match="states holds no z; it holds z_L, z_H"):
        on_basis(session, [session.run(session.plain(0))], "z", "store")
