"""Files that lie: every command refuses them in one line, or gives what the true file gives.

TRM_INTERP_FUZZ=500 tries five hundred lies a file instead of a few.
"""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mutations import lies

from trm_interp.recording.store import Store

Cli = Callable[..., Any]
fuzz = settings(
    settings.get_profile("fuzz"),
    deadline=20_000,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def work(cli: Cli, copier: Path, grids: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store, an SAE, a checkpoint, a search and a study, each made by its command."""
    at = tmp_path_factory.mktemp("lies")
    on = ["--ckpt", copier, "--puzzles", grids]
    tiny = ["--expansion", 2, "--train-steps", 4, "--batch-size", 16, "--device", "cpu"]
    commands = [
        ["collect", *on, "--out", at / "store", "--steps", 2, "--batch-size", 4],
        ["train-sae", at / "store", "--site", "z_L", "--out", at / "sae", *tiny],
        ["search", *on, "--k", 2, "--steps", 2, "--out", at / "search.csv"],
        ["outcomes", *on, "--steps", 2, "--out", at / "outcomes"],
    ]
    for words in commands:
        answer = cli(*words)
        assert answer.code == 0, answer.err
    shutil.copytree(copier, at / "ckpt")
    return at


def is_refused(answer: Any) -> bool:
    """Whether a command refused, in one line; False where it went through."""
    if answer.code == 0:
        return False
    assert answer.code == 2, answer
    errors = [line for line in answer.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and answer.err.splitlines()[-1] == errors[0], answer.err
    assert len(errors[0]) < 500 and "Traceback" not in answer.err
    return True


def linked(folder: Path, to: Path) -> Path:
    """The same files in another folder, without copying them."""
    shutil.rmtree(to, ignore_errors=True)
    shutil.copytree(folder, to, copy_function=os.link)
    return to


def replace(file: Path, content: bytes) -> None:
    file.unlink(missing_ok=True)
    file.write_bytes(content)


def everything(store: Path) -> dict[str, np.ndarray]:
    with Store(store) as opened:
        return {name: opened[name][:] for name in opened.names}


@fuzz
@given(data=st.data())
def test_manifests(cli: Cli, work: Path, data: st.DataObject):
    good = json.loads((work / "store" / "manifest.json").read_text())
    store = linked(work / "store", work / "lying-store")
    replace(store / "manifest.json", data.draw(lies(good)))
    if not is_refused(cli("info", store, "--validate")):
        true, read = everything(work / "store"), everything(store)
        assert read.keys() == true.keys()
        assert all(np.array_equal(read[name], true[name]) for name in true)
    out = work / "lying-out"
    shutil.rmtree(out, ignore_errors=True)
    study = data.draw(st.sampled_from(["trajectories", "lens", "divergence", "probes"]))
    is_refused(cli(study, store, "--out", out))
    is_refused(cli("sae-eval", work / "sae", store, "--no-loop"))


@fuzz
@given(data=st.data())
def test_settings_of_an_sae(cli: Cli, work: Path, data: st.DataObject):
    good = json.loads((work / "sae" / "cfg.json").read_text())
    sae = linked(work / "sae", work / "lying-sae")
    replace(sae / "cfg.json", data.draw(lies(good)))
    is_refused(cli("sae-eval", sae, work / "store", "--no-loop", "--all-puzzles"))


@fuzz
@given(data=st.data())
def test_settings_of_a_checkpoint(cli: Cli, work: Path, grids: Path, data: st.DataObject):
    good = json.loads((work / "ckpt" / "config.json").read_text())
    ckpt = linked(work / "ckpt", work / "lying-ckpt")
    replace(ckpt / "config.json", data.draw(lies(good)))
    if not is_refused(cli("info", ckpt)):
        is_refused(cli("eval", "--ckpt", ckpt, "--puzzles", grids, "--steps", 1, "--limit", 2))


@fuzz
@given(data=st.data())
def test_what_a_search_left(cli: Cli, work: Path, copier: Path, grids: Path, data: st.DataObject):
    on = ["--ckpt", copier, "--puzzles", grids, "--k", 2, "--steps", 2]
    table, side = work / "lying.csv", work / "lying.json"
    shutil.copyfile(work / "search.csv", table)
    if data.draw(st.booleans()):
        replace(side, data.draw(lies(json.loads((work / "search.json").read_text()))))
    else:
        shutil.copyfile(work / "search.json", side)
        content = table.read_bytes()
        at = data.draw(st.integers(0, len(content) - 1))
        replace(table, data.draw(st.sampled_from([b"", content[:at], b"\xff\x00" + content])))
    if not is_refused(cli("search", *on, "--out", table, "--resume", "--json")):
        assert table.read_bytes() == (work / "search.csv").read_bytes()


@fuzz
@given(data=st.data())
def test_what_a_study_left(cli: Cli, work: Path, copier: Path, grids: Path, data: st.DataObject):
    """Whatever its summary says, nothing outside the folder goes."""
    victim = work / "x.csv"
    victim.write_text("precious")
    out = linked(work / "outcomes", work / "lying-outcomes")
    good = json.loads((out / "summary.json").read_text())
    good["written"] = ["../x", str(work / "x"), *good["written"]]
    replace(out / "summary.json", data.draw(lies(good)))
    on = ["--ckpt", copier, "--puzzles", grids, "--steps", 2, "--out", out]
    is_refused(cli("outcomes", *on))
    is_refused(cli("outcomes", *on, "--overwrite"))
    assert victim.read_text() == "precious"
