"""Stores from strangers: manifests that lie, shards that lead elsewhere. One line, nothing read."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_store import META, TRUTH, D, H, L, open_writer, record

from trm_interp.recording.hdf5 import dataset
from trm_interp.recording.schema import trm_recursion
from trm_interp.recording.store import Store, StoreError, validate
from trm_interp.runtime.files import sha256_of

MODEL = {"h_cycles": H, "l_cycles": L, "prefix": 2, "cells": 3, "d_model": D, "vocab": 6}
FULL = META | {"model": MODEL, "checkpoint": {"path": "ckpt", "format": "ours"}}


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    return record(tmp_path_factory.mktemp("stores") / "whole", meta=FULL)


@pytest.fixture
def copy(whole, tmp_path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "copy"))


def tamper(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    manifest = json.loads((path / "manifest.json").read_text())
    change(manifest)
    (path / "manifest.json").write_text(json.dumps(manifest))


def relist(path: Path, index: int) -> None:
    """Make the manifest agree with a shard that a test has changed."""
    file = path / f"shard-{index:05d}.h5"
    facts = {"bytes": file.stat().st_size, "sha256": sha256_of(file)}
    tamper(path, lambda m: m["shards"][index].update(facts))


def refused(path: Path) -> str:
    """The one line with which a store does not open, and which `validate` tells as well."""
    with pytest.raises(StoreError) as caught, Store(path, allow_incomplete=True) as store:
        store["z_H"][:]
    line = str(caught.value)
    assert "\n" not in line and len(line) < 300 + 2 * len(str(path))
    assert validate(path), "no problem found"
    return line


LIES = {
    "meta.identity: Expected `object`, got `null`": lambda m: m["meta"].update(identity=None),
    "meta.identity.checkpoint_sha256: Expected": lambda m: m["meta"]["identity"].update(
        checkpoint_sha256=7
    ),
    "meta.model: Object missing required field `h_cycles`": lambda m: m["meta"].update(model={}),
    "meta.model.l_cycles: Expected `int` >= 1": lambda m: m["meta"]["model"].update(l_cycles=0),
    "meta.model.l_cycles: Expected `int` <= ": lambda m: m["meta"]["model"].update(l_cycles=10**9),
    "meta.model.h_cycles: Expected `int`, got": lambda m: m["meta"]["model"].update(h_cycles=True),
    "meta.model.prefix: Expected": lambda m: m["meta"]["model"].update(prefix="2"),
    "l_cycle 3, but meta.model says 5": lambda m: m["meta"]["model"].update(l_cycles=5),
    "pos 5, but meta.model says 6": lambda m: m["meta"]["model"].update(prefix=3),
    "meta.model.cells 4 is not n_cells 3": lambda m: m["meta"]["model"].update(cells=4, prefix=1),
    "more than a run has": lambda m: m["meta"]["model"].update(l_cycles=900_000),
    "meta.checkpoint.path: Expected": lambda m: m["meta"]["checkpoint"].update(path=["a"]),
    "meta: Expected `object`, got `null`": lambda m: m.update(meta=None),
    "missing required field `meta`": lambda m: m.pop("meta"),
    "n_puzzles: Expected `int` <= 100000000": lambda m: m.update(n_puzzles=10**15),
    "n_puzzles: Expected `int`, got `bool`": lambda m: m.update(n_puzzles=True),
    "n_steps: Expected": lambda m: m.update(n_steps=-1),
    "steps: Expected `array` of length <=": lambda m: m.update(steps=[0] * 1_000_001),
    "steps[1]: Expected `int` >= 0": lambda m: m.update(steps=[0, -1]),
    "has step 0..3, got [0, 9]": lambda m: m.update(steps=[0, 9]),
    "has step 0..3, got []": lambda m: m.update(steps=[]),
    "z_L has pos 0..4, got 0..98": lambda m: m.update(positions=list(range(99))),
    "sites: Expected `array`": lambda m: m.update(sites={}),
    "sites[0].dtype: Expected `str`": lambda m: m["sites"][0].update(dtype=None),
    "z_L must be of floats, got 'object'": lambda m: m["sites"][0].update(dtype="object"),
    "z_L must be of floats, got 'S9": lambda m: m["sites"][0].update(dtype="S9" + "9" * 99),
    "sites[0].shape[0]: Expected `int` <= ": lambda m: m["sites"][0].update(shape=[10**15] * 5),
    "embed has axes pos, d_model, got": lambda m: m["sites"][3].update(dims=["pos", "vocab"]),
    "not an array's name": lambda m: m["sites"][0].update(name="../../etc"),
    "two arrays of one name": lambda m: m["sites"][3].update(name="z_H"),
    "shards[1].sha256: Expected": lambda m: m["shards"][1].update(sha256="xyz"),
    "shards[1].first_puzzle: Expected `int` >= 0": lambda m: m["shards"][1].update(first_puzzle=-4),
    "does not fit shards of 4": lambda m: m["shards"][1].update(first_puzzle=2),
    "shards[2].bytes: Expected": lambda m: m["shards"][2].update(bytes=0),
    "too few for 3 puzzles": lambda m: m["shards"][2].update(bytes=9),
    "a shard is listed twice": lambda m: m["shards"].append(m["shards"][0]),
    "complete: Expected `bool`": lambda m: m.update(complete=1),
    "no shard has puzzle 4": lambda m: m["shards"].pop(1),
    "no shard has puzzle 0": lambda m: m.update(shards=[]),
    "format: Expected `str`": lambda m: m.update(format=None),
    "describes a 'notes'": lambda m: m.update(format="notes"),
    "schema_version: Expected `int`": lambda m: m.update(schema_version=True),
}


@pytest.mark.parametrize("expected", LIES)
def test_a_lying_manifest_is_refused_in_a_line_with_the_field(copy: Path, expected: str):
    tamper(copy, LIES[expected])
    assert expected in refused(copy)


def test_puzzles_that_no_shard_has_room_for_are_never_allocated(copy: Path):
    """10^8 puzzles in one shard, with as many bytes: no file says the same."""

    def inflate(m: dict[str, Any]) -> None:
        m.update(n_puzzles=10**8, shard_puzzles=10**8)
        m["shards"] = [m["shards"][0] | {"n_puzzles": 10**8, "bytes": 10**13}]

    tamper(copy, inflate)
    assert "shard-00000.h5 has" in refused(copy)


@pytest.mark.parametrize("name", ["/etc/passwd", "../other/shard-00001.h5", "", ".", "shard-1.h5"])
def test_a_shard_outside_the_folder_is_refused(copy: Path, name: str):
    tamper(copy, lambda m: m["shards"][1].update(file=name))
    assert "does not fit shards of 4" in refused(copy)


def test_a_linked_shard_is_refused(copy: Path, tmp_path: Path):
    shard = copy / "shard-00001.h5"
    shard.rename(tmp_path / "elsewhere.h5")
    shard.symlink_to(tmp_path / "elsewhere.h5")
    assert "shard-00001.h5 is a link" in refused(copy)
    shard.unlink()
    os.mkfifo(shard)
    assert "shard-00001.h5 is not a regular file" in refused(copy)


def as_external(file: h5py.File, like: h5py.Dataset) -> None:
    shape, dtype = like.shape, like.dtype
    labels = [axis.label for axis in like.dims]
    del file["inputs"]
    place = [("/etc/passwd", 0, h5py.h5f.UNLIMITED)]
    data = file.create_dataset("inputs", shape, dtype, external=place)
    for axis, label in zip(data.dims, labels, strict=True):
        axis.label = label


def as_external_link(file: h5py.File, like: h5py.Dataset) -> None:
    del file["inputs"]
    file["inputs"] = h5py.ExternalLink("shard-00000.h5", "/inputs")


def as_soft_link(file: h5py.File, like: h5py.Dataset) -> None:
    del file["inputs"]
    file["inputs"] = h5py.SoftLink("/labels")


def as_virtual(file: h5py.File, like: h5py.Dataset) -> None:
    layout = h5py.VirtualLayout(like.shape, like.dtype)
    layout[:] = h5py.VirtualSource("shard-00000.h5", "inputs", like.shape)
    del file["inputs"]
    file.create_virtual_dataset("inputs", layout)


def as_compressed(file: h5py.File, like: h5py.Dataset) -> None:
    values = like[:]
    del file["inputs"]
    file.create_dataset("inputs", data=values, compression="gzip")


def as_empty_chunks(file: h5py.File, like: h5py.Dataset) -> None:
    """All fill value: nothing of it is on disk."""
    shape, labels = like.shape, [axis.label for axis in like.dims]
    del file["inputs"]
    data = file.create_dataset("inputs", shape, "uint8", chunks=(1, *shape[1:]))
    for axis, label in zip(data.dims, labels, strict=True):
        axis.label = label


def as_group(file: h5py.File, like: h5py.Dataset) -> None:
    del file["inputs"]
    file.create_group("inputs")


def as_objects(file: h5py.File, like: h5py.Dataset) -> None:
    del file["inputs"]
    file.create_dataset("inputs", (4, 3), h5py.string_dtype())


def beside(file: h5py.File, like: h5py.Dataset) -> None:
    file["more"] = h5py.ExternalLink("/etc/passwd", "/")


SWAPS = {
    "lies in another file": (as_external, as_virtual),
    "is a link to another place": (as_external_link, as_soft_link),
    "is compressed": (as_compressed,),
    "is incomplete": (as_empty_chunks,),
    "is not an array": (as_group,),
    "inputs is object[4, 3]": (as_objects,),
    "holds 'more', which the manifest does not name": (beside,),
}


@pytest.mark.parametrize(
    ("swap", "expected"), [(swap, expected) for expected, swaps in SWAPS.items() for swap in swaps]
)
def test_a_shard_that_leads_elsewhere_is_refused(copy: Path, swap: Any, expected: str):
    with h5py.File(copy / "shard-00001.h5", "r+") as file:
        swap(file, dataset(file, "inputs"))
    relist(copy, 1)
    with Store(copy) as store:
        with pytest.raises(StoreError, match=expected.replace("[", r"\[")):
            store["inputs"][5]
        assert store["inputs"][2].tolist() == TRUTH["inputs"][2].tolist()  # of a sound one
    (problem,) = validate(copy)
    assert expected in problem and "shard-00001.h5" in problem


def test_store_h5_leads_to_its_own_shards_only(copy: Path):
    with h5py.File(copy / "store.h5", "r+") as file:
        like = dataset(file, "inputs")
        layout = h5py.VirtualLayout(like.shape, like.dtype)
        for first, n in ((0, 4), (4, 4), (8, 3)):
            name = f"../other/shard-{first // 4:05d}.h5" if first == 4 else "shard-00000.h5"
            layout[first : first + n] = h5py.VirtualSource(name, "inputs", (n, 3))
        del file["inputs"]
        file.create_virtual_dataset("inputs", layout)
    (problem,) = validate(copy)
    assert "inputs does not lead to the shards of the manifest" in problem
    (copy / "store.h5").unlink()
    (copy / "store.h5").symlink_to(copy / "shard-00000.h5")
    assert "store.h5 is a link" in validate(copy)[0]


def test_what_the_recorder_did_not_write_is_named_where_it_is_asked_for(tmp_path: Path):
    path = record(tmp_path / "bare", meta={"note": "mine"})
    with Store(path) as store:
        assert store.meta == {"note": "mine"} and store.checkpoint_path is None
        with pytest.raises(StoreError, match=r"manifest.json: meta.model is missing"):
            _ = store.model
        with pytest.raises(StoreError, match=r"meta.identity.checkpoint_sha256 is missing"):
            _ = store.checkpoint_sha256
    assert validate(path) == []


def test_what_it_wrote_has_types(whole: Path):
    with Store(whole) as store:
        assert (store.model.prefix, store.schedule.evaluations) == (2, H * (L + 1))
        assert (store.checkpoint_sha256, store.checkpoint_path) == ("c0ffee", "ckpt")


def test_a_store_that_could_not_be_read_is_not_written(tmp_path: Path):
    wrong = FULL | {"model": MODEL | {"l_cycles": 7}}
    with pytest.raises(StoreError, match="l_cycle 3, but meta.model says 7"):
        open_writer(tmp_path / "a", meta=wrong)
    with pytest.raises(StoreError, match="n_puzzles must be at most 100000000"):
        open_writer(tmp_path / "a", n_puzzles=10**15)
    assert not (tmp_path / "a").exists()


JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**18), 10**18),
    st.integers(-3, 12),
    st.floats(),
    st.text(max_size=8),
    st.just([]),
    st.just({}),
    st.lists(st.integers(-2, 9), max_size=4),
)


def places(node: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The place of every value in a JSON document."""
    if not isinstance(node, dict | list):
        return [at]
    parts = node.items() if isinstance(node, dict) else enumerate(node)
    return [at, *(place for key, part in parts for place in places(part, (*at, key)))]


@pytest.fixture(scope="module")
def named(tmp_path_factory) -> Path:
    """A store that names its architecture, as they do now."""
    identity = FULL["identity"] | {"task": "sudoku4"} | trm_recursion(H, L).to_json()
    identity |= {"sites_of_some": {}, "more_readouts": []}
    path = tmp_path_factory.mktemp("stores") / "named"
    return record(path, meta=FULL | {"identity": identity})


@pytest.mark.parametrize("original", ["whole", "named"])
@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_no_change_of_a_manifest_gives_wrong_values_or_a_traceback(
    request: pytest.FixtureRequest, original: str, tmp_path: Path, data: st.DataObject
):
    path = request.getfixturevalue(original)
    document = json.loads((path / "manifest.json").read_text())
    for _ in range(data.draw(st.integers(1, 2))):
        *keys, last = data.draw(st.sampled_from([at for at in places(document) if at]))
        parent = document
        for key in keys:
            parent = parent[key]
        if data.draw(st.booleans()):
            parent[last] = data.draw(JUNK)
        else:
            del parent[last]
    copy = tmp_path / "copy"
    if not copy.exists():
        shutil.copytree(path, copy)
    (copy / "manifest.json").write_text(json.dumps(document))
    problems = validate(copy, thorough=False)
    try:
        with Store(copy, allow_incomplete=True) as store:
            read = store["z_H"][:]
            _ = store.checkpoint_path, store.frame()
            for tick in store.schedule.ticks(store.n_steps):
                if store.n_puzzles and tick.writes in store.names and tick.step in store.steps:
                    store.at(tick, 0)
    except (StoreError, KeyError) as error:  # KeyError: a site by another name
        is_told_when_asked = "meta.model is missing" in str(error)
        assert problems or isinstance(error, KeyError) or is_told_when_asked
        return
    kept = [TRUTH["z_H"][: len(read), step] for step in store.steps]
    assert np.array_equal(read, np.stack(kept, 1)[..., store.positions, :])
