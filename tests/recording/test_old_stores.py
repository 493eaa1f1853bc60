"""Stores written before there was more than one architecture open unchanged and can be resumed.

`old_store/` is what `collect` wrote then: two shards of a tiny TRM, its checkpoint and its puzzles.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import trm_interp.recording.collect
from trm_interp.core.clock import schedule
from trm_interp.recording.site_reader import SiteReader
from trm_interp.recording.store import Store, StoreError, validate

Cli = Callable[..., Any]
OLD = Path(__file__).with_name("old_store")
STEPS, H, L = 2, 2, 2
ADDED = {"task", "architecture", "schedule", "states", "answer", "latent"}  # to the identity


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the folder, in which the commands run: the store's paths are relative."""
    copy = Path(shutil.copytree(OLD, tmp_path / "old"))
    monkeypatch.chdir(copy)
    return copy


def words(out: str) -> list[object]:
    """The command that wrote the store."""
    options = {"ckpt": "checkpoint", "puzzles": "puzzles.txt", "out": out, "steps": 2}
    options |= {"positions": "0,3", "batch-size": 2, "device": "cpu"}
    options |= {"sites": "z_L,z_H,resid,embed"}
    return ["collect", *(word for name, value in options.items() for word in (f"--{name}", value))]


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trm_interp.recording.collect, "plan_shards", lambda *args: 2)


def test_it_has_the_old_form():
    manifest = json.loads((OLD / "store/manifest.json").read_text())
    assert not ADDED & manifest["meta"]["identity"].keys() and manifest["schema_version"] == 1


def test_what_it_does_not_say_is_what_a_trm_has(folder: Path):
    assert validate(folder / "store") == []
    with Store(folder / "store") as store:
        assert (store.states, store.answer, store.latent) == (("z_H", "z_L"), "z_H", "z_L")
        assert store.recursion.architecture == "trm"
        assert store.schedule.ticks(store.n_steps) == schedule(STEPS, H, L)
        assert store.task.name == "sudoku4" and store.identity.task is None
        assert store.steps == [0, 1] and store.positions == [0, 3]


def test_each_tick_leads_to_its_values(folder: Path):
    with Store(folder / "store") as store:
        readers = {name: SiteReader(store, name) for name in ("z_L", "z_H")}
        resid = SiteReader(store, "blocks.0.hook_resid_post")
        assert [tick.writes for tick in readers["z_H"].ticks] == ["z_H"] * STEPS * H
        assert len(readers["z_L"].ticks) == STEPS * H * L and len(resid.ticks) == STEPS * H * 3
        for tick in schedule(STEPS, H, L):
            place = (tick.h_cycle, tick.l_cycle) if tick.writes == "z_L" else (tick.h_cycle,)
            np.testing.assert_array_equal(store.at(tick), store[tick.writes][:, tick.step, *place])
            reader = readers[tick.writes]
            state = reader.read(2)[reader.ticks.index(tick)]
            np.testing.assert_array_equal(store.at(tick, 2), state)
            # the last block's output is the state that the evaluation writes
            np.testing.assert_array_equal(resid.read(2)[resid.ticks.index(tick)], state)


@pytest.mark.usefixtures("small_shards")
def test_a_new_recording_has_the_same_arrays(cli: Cli, folder: Path):
    assert cli(*words("new")).code == 0
    with Store(folder / "store") as old, Store(folder / "new") as new:
        assert old.names == new.names and old.recursion == new.recursion
        for name in old.names:
            assert old[name].dims == new[name].dims and old[name].dtype == new[name].dtype
            if old[name].dtype.kind == "f":  # of another machine, perhaps
                np.testing.assert_allclose(new[name][:], old[name][:], rtol=2e-3, atol=2e-3)
            else:
                np.testing.assert_array_equal(new[name][:], old[name][:])
        added = new.meta["identity"].keys() - old.meta["identity"].keys()
        assert added >= ADDED and old.meta["model"] == new.meta["model"]


@pytest.mark.usefixtures("small_shards")
def test_an_unfinished_one_goes_on_with_the_same_command(cli: Cli, folder: Path):
    store = folder / "store"
    manifest = json.loads((store / "manifest.json").read_text())
    manifest |= {"shards": manifest["shards"][:1], "complete": False}
    (store / "manifest.json").write_text(json.dumps(manifest))
    for name in ("shard-00001.h5", "store.h5"):
        (store / name).unlink()
    kept = (store / "shard-00000.h5").read_bytes()
    answer = cli(*words("store"), "--resume")
    assert answer.code == 0 and "resuming at puzzle 2 (from 0) of 3" in answer.err
    assert validate(store) == [] and (store / "shard-00000.h5").read_bytes() == kept
    with Store(store) as resumed, Store(OLD / "store") as whole:
        for name in whole.names:
            np.testing.assert_allclose(
                resumed[name][:].astype(float), whole[name][:].astype(float), rtol=2e-3, atol=2e-3
            )


@pytest.mark.usefixtures("small_shards")
def test_a_whole_one_is_left_as_it_is(cli: Cli, folder: Path):
    before = {file.name: file.read_bytes() for file in (folder / "store").iterdir()}
    assert cli(*words("store"), "--resume").code == 0
    assert {file.name: file.read_bytes() for file in (folder / "store").iterdir()} == before


@pytest.mark.usefixtures("small_shards")
def test_it_is_not_resumed_with_other_settings(cli: Cli, folder: Path):
    answer = cli(*words("store"), "--resume", "--dtype", "bfloat16")
    assert answer.code == 2 and "dtype ('float32' there, 'bfloat16' now)" in answer.err


LIES: dict[str, dict[str, Any]] = {
    "meta.identity.states is missing, which belongs to a schedule": {"states": None},
    "'z_L' is none of the states z_H, z": {"states": ["z_H", "z"]},
    "meta.identity.schedule.h_cycles: Expected `int` >= 1": {
        "schedule": {"h_cycles": 0, "cycle": ["z_L", "z_L", "z_H"]}
    },
    "meta.identity.schedule.cycle: Expected": {"schedule": {"h_cycles": 2, "cycle": []}},
    "meta.identity.schedule.cycle[0]: Expected": {"schedule": {"h_cycles": 2, "cycle": ["a/b"]}},
    "z_L: l_cycle 2, but its schedule says 3": {
        "schedule": {"h_cycles": 2, "cycle": ["z_L", "z_L", "z_L", "z_H"]}
    },
    "z_H has axes step, h_cycle, l_cycle": {
        "schedule": {"h_cycles": 2, "cycle": ["z_L", "z_H", "z_L"]}
    },
    "meta.model.h_cycles 2 is not that of the schedule, 3": {
        "schedule": {"h_cycles": 3, "cycle": ["z_L", "z_L", "z_H"]}
    },
    "more than a run has": {"schedule": {"h_cycles": 2, "cycle": ["z_L"] * 60_000 + ["z_H"]}},
    "'z_M' is none of the states": {"answer": "z_M"},
    "meta.identity.latent: Expected `str | null`": {"latent": 7},
    "'embed' cannot be the name of a state": {"states": ["z_H", "z_L", "embed"]},
}


@pytest.mark.parametrize("expected", LIES)
def test_a_recursion_that_cannot_be_is_refused_in_one_line(folder: Path, expected: str):
    with Store(folder / "store") as store:
        recursion = store.recursion.to_json()
    file = folder / "store/manifest.json"
    manifest = json.loads(file.read_text())
    manifest["meta"]["identity"] |= recursion
    file.write_text(json.dumps(manifest))
    assert validate(folder / "store") == []
    manifest["meta"]["identity"] |= LIES[expected]
    file.write_text(json.dumps(manifest))
    with pytest.raises(StoreError) as caught:
        Store(folder / "store")
    line = str(caught.value)
    assert expected in line and str(file) in line and "\n" not in line and len(line) < 400
