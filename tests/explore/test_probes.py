"""Probes that were fitted by `trm-interp probes`, opened by the explorer."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from explore_worlds import PUZZLES, drawn

from trm_interp.core.checkpoints.folder import save_checkpoint
from trm_interp.explore.boards import layer_of
from trm_interp.explore.layers import facts_shown
from trm_interp.explore.probes import open_probes
from trm_interp.explore.session import Session, open_session
from trm_interp.runtime.errors import UserError

Cli = Callable[..., Any]
LABEL = "candidate 1"


@pytest.fixture(scope="module")
def session(cli: Cli, tmp_path_factory: pytest.TempPathFactory) -> Session:
    """With probes of two H-cycles of the recorded runs of three puzzles."""
    folder = tmp_path_factory.mktemp("probed")
    store, out, lines = folder / "states", folder / "probes", folder / "p.txt"
    save_checkpoint(folder / "tiny", drawn("trm"), {"task": "sudoku4"})
    traded = PUZZLES[0].translate(str.maketrans("12", "21"))
    lines.write_text("\n".join([*PUZZLES[:2], traded]) + "\n")
    where = ["--ckpt", folder / "tiny", "--device", "cpu"]
    for words in (
        ["collect", *where, "--puzzles", lines, "--out", store, "--steps", 2],
        ["probes", store, *where, "--cycles", "0,3", "--out", out],
    ):
        answer = cli(*words)
        assert answer.code == 0, answer.err
    return open_session(folder / "tiny", lines, 2, "cpu", tell=lambda line: None, probes=out)


def test_heat_and_what_is_said_of_a_cell(session: Session):
    """Log-odds are offset + weights . state, of the nearest evaluation that has a probe."""
    state, run = session.model.answer, session.run(session.plain(0))
    assert session.probes is not None and f"fitted: {LABEL}" in facts_shown(session)
    table = pd.read_csv(session.probes.path / "weights.csv")
    table = table[(table["site"] == state) & (table["label"] == LABEL)]
    assert len(table) == 2 and table["tick"].tolist() == sorted(table["tick"])
    layer = layer_of(session, [run], "probe", state, f"fitted: {LABEL}")
    assert layer is not None and str(session.probes.path) in layer.words
    for moment, row in ((int(table["tick"].iloc[0]) + 1, 0), (session.last, 1)):
        z = getattr(session.states_at(run.node, moment), state)[0]
        z = z[session.model.config.prefix :].numpy()
        one = table.iloc[row]
        odds = z @ one[[f"w{i}" for i in range(z.shape[1])]].to_numpy(float) + one["offset"]
        np.testing.assert_allclose(layer.heat[0][moment], 1 / (1 + np.exp(-odds)), rtol=1e-4)
    said = session.probes.said(session, run, state, 5, session.last)
    chances = dict(part.rsplit(" ", 1) for part in said.split(", "))
    value = layer.heat[0][session.last, 5]
    assert LABEL not in chances or float(chances[LABEL]) == pytest.approx(value, abs=0.006)
    assert list(map(float, chances.values())) == sorted(map(float, chances.values()), reverse=True)
    with pytest.raises(UserError, match="no probe of z_H for 'x' in"):
        layer_of(session, [run], "probe", state, "fitted: x")


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("summary.json", '"checkpoint_sha256": "', '"checkpoint_sha256": "ff', "probes of checkp"),
        ("weights.csv", "offset", "set", "weights.csv: 'offset'"),
        ("weights.csv", "w3", "v3", "w3"),
        ("weights.csv", "w3", "v", "weights.csv: its probes have 7 numbers, states have 8"),
        ("weights.csv", "", "", "no weights.csv here; `trm-interp probes` writes one"),
    ],
)
def test_folders_that_do_not_fit(
    session: Session, tmp_path: Path, file: str, old: str, new: str, message: str
):
    assert session.probes is not None
    for name in ("summary.json", "weights.csv"):
        text = (session.probes.path / name).read_text()
        if name != file or old:
            (tmp_path / name).write_text(text.replace(old, new) if name == file else text)
    with pytest.raises(UserError, match=message):
        open_probes(tmp_path, session.checkpoint)
