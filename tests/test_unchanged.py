"""Every command still gives what it gave: `unchanged.py` says what is kept and how to renew it."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import unchanged
from compare_trees import differences, leaves, load, save
from unchanged import COMMANDS, GOLDEN, World, compare

TREE: dict[str, Any] = {
    "summary.json": {"n": 3, "share": 0.1, "label": "a", "of": [1.0, None], "nan": float("nan")},
    "weights": {"w": np.arange(6, dtype=np.float32).reshape(2, 3)},
}


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("unchanged"))


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_gives_what_it_gave(name: str, world: World):
    lines = compare(name, world.tree(name))
    more = f"\n... and {len(lines) - 5} more" if len(lines) > 5 else ""
    assert not lines, "\n" + "\n".join(lines[:5]) + more


def test_both_outcomes_are_in_the_golden_files():
    tables = load(GOLDEN, "outcomes")[1]
    assert set(tables["puzzles.csv"]["solved"]["values"]) == {True, False}
    assert load(GOLDEN, "divergence")[1]["summary.json"]["same_puzzle"]["puzzles"]
    fixed_points = load(GOLDEN, "stability")[1]["fixed_points.csv"]
    assert any(fixed_points["converged"]["values"])


def test_golden_files_are_small_and_all_in_use():
    files = list(GOLDEN.iterdir())
    assert {file.stem for file in files} == set(COMMANDS)
    assert sum(file.stat().st_size for file in files) < 560_000


CHANGES: dict[str, tuple[str, Any, str]] = {
    "value": ("summary.json/n", 4, "summary.json/n: golden 3, now 4"),
    "last bit": (
        "summary.json/share",
        0.1 + 2**-56,
        "summary.json/share: golden 0.1, now 0.10000000000000002",
    ),
    "text": ("summary.json/label", "b", "summary.json/label: golden 'a', now 'b'"),
    "type": ("summary.json/n", 3.0, "summary.json/n: golden 3 (int), now 3.0 (float)"),
    "list": (
        "summary.json/of/1",
        0.0,
        "summary.json/of/1: golden None (NoneType), now 0.0 (float)",
    ),
    "dtype": (
        "weights/w",
        TREE["weights"]["w"].astype(np.float16),
        "weights/w: golden float32 (2, 3), now float16 (2, 3)",
    ),
    "shape": (
        "weights/w",
        TREE["weights"]["w"].T,
        "weights/w: golden float32 (2, 3), now float32 (3, 2)",
    ),
    "array": (
        "weights/w",
        TREE["weights"]["w"] + np.eye(2, 3, 1, dtype=np.float32),
        "weights/w: 2 of 6 values differ, first at [0, 1]: "
        "golden np.float32(1.0), now np.float32(2.0)",
    ),
    "new": ("summary.json/m", 1, "summary.json/m: not in the golden files, now 1"),
}


@pytest.mark.parametrize("kind", CHANGES)
def test_a_change_is_reported(kind: str):
    path, value, line = CHANGES[kind]
    golden = dict(leaves(TREE))
    assert differences(golden, golden | {path: value}) == [line]


def test_a_missing_key_is_reported():
    golden = dict(leaves(TREE))
    now = {path: leaf for path, leaf in golden.items() if path != "summary.json/share"}
    assert differences(golden, now) == ["summary.json/share: golden 0.1, now missing"]


def test_a_tolerance_is_for_floats_alone():
    golden = dict(leaves(TREE))
    near = golden | {"summary.json/share": 0.1001, "weights/w": TREE["weights"]["w"] + 1e-3}
    near["weights/w"] = near["weights/w"].astype(np.float32)
    assert len(differences(golden, near)) == 2
    assert differences(golden, near, (1e-2, 1e-2)) == []
    assert len(differences(golden, near, (1e-5, 1e-6))) == 2
    assert len(differences(golden, golden | {"summary.json/n": 4}, (1.0, 10.0))) == 1


def test_files_hold_a_tree_exactly(tmp_path: Path):
    save(tmp_path, "eval", TREE)
    assert compare("eval", copy.deepcopy(TREE), tmp_path) == []
    changed = copy.deepcopy(TREE)
    changed["weights"]["w"][1, 2] = 7
    assert len(compare("eval", changed, tmp_path)) == 1


def test_another_processor_gets_a_tolerance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    tree = {"summary.json": {"share": 0.1, "checkpoint_sha256": "c0ffee", "data_sha256": "da7a"}}
    save(tmp_path, "eval", tree)
    monkeypatch.setattr(unchanged, "probe", lambda: "another")
    assert not compare(
        "eval", {"summary.json": tree["summary.json"] | {"share": 0.10001}}, tmp_path
    )
    other = tree["summary.json"] | {"checkpoint_sha256": "0"}
    assert not compare("eval", {"summary.json": other}, tmp_path)
    other = tree["summary.json"] | {"data_sha256": "0"}
    assert len(compare("eval", {"summary.json": other}, tmp_path)) == 1


def test_renamed_and_new_keys_are_let_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    save(tmp_path, "eval", TREE)
    now = copy.deepcopy(TREE)
    now["summary.json"]["steps"] = now["summary.json"].pop("of")
    now["summary.json"]["settings"] = {"m": 1}
    assert len(compare("eval", now, tmp_path)) == 5
    monkeypatch.setattr(unchanged, "RENAMED", {"*/summary.json/of": "*/summary.json/steps"})
    monkeypatch.setattr(unchanged, "ADDED", ("*/summary.json/settings",))
    assert compare("eval", now, tmp_path) == []
    now["summary.json"]["steps"][0] = 2.0
    assert compare("eval", now, tmp_path) == ["eval/summary.json/steps/0: golden 1.0, now 2.0"]


def test_another_seed_is_noticed(world: World):
    """The comparison of a real command can fail."""
    other = COMMANDS["search"][1].replace("@search", "@other") + " --seed 1"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(COMMANDS, "other", ((), other, unchanged.written))
        tree = world.tree("other")
    assert any(line.startswith("search/search.csv/q/values") for line in compare("search", tree))


def test_nothing_is_renewed_by_accident(capsys: pytest.CaptureFixture[str]):
    before = {file: file.stat().st_mtime_ns for file in GOLDEN.iterdir()}
    for words in ([], ["eval"], ["--renew", "nonsense"]):
        with pytest.raises(SystemExit) as stop:
            unchanged.main(words)
        assert stop.value.code == 2
    assert "without --renew" in capsys.readouterr().err
    assert before == {file: file.stat().st_mtime_ns for file in GOLDEN.iterdir()}
