"""Numbers that cannot fit end in one line before anything is computed or written."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from trm_interp.runtime.shard_options import Shard
from trm_interp.runtime.shards import Division, OneShard, dividing
from trm_interp.studies import memory
from trm_interp.studies.settings import CONFIGS
from trm_interp.studies.subject import open_subject

Cli = Callable[..., Any]
HUGE = 10**12


@pytest.fixture(scope="module")
def store(cli: Cli, copier: Path, grids: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("limits") / "store"
    words = ["--ckpt", copier, "--puzzles", grids, "--out", out, "--steps", 2, "--limit", 3]
    assert cli("collect", *words).code == 0
    return out


@pytest.mark.parametrize(
    ("command", "words", "problem"),
    [
        ("outcomes", ["--steps", HUGE], "steps must be at most 1000000, got 1000000000000"),
        ("losses", ["--seed", 2**64], "seed must be from 0 to"),
        ("losses", ["--limit", 10**30], "limit must lie within"),
        ("basins", ["--starts", HUGE], "1000000000000 starts would need"),
        ("basins", ["--slice", 10**7], "a plane of 10000000 x 10000000 starts would need"),
        ("basins", ["--shuffles", HUGE], "1000000000000 shuffles would need"),
        ("basins", ["--index", HUGE], "no puzzle 1000000000000"),
        ("basins", ["--index", f"0-{HUGE}"], "names more than 1000000 indices"),
        ("basins", ["--tolerance", "nan"], "tolerance must be finite"),
        ("settling", ["--long", HUGE], "long must be at most 1000000"),
        ("stability", ["--exponents", HUGE], "--exponents must be at most"),
        ("stability", ["--eigenvalues", HUGE], "eigenvalues must be at most"),
        ("trace", ["--starts", HUGE], "1000000000000 starts of"),
        ("trace", ["--steps", 10**6], "hook points would need"),
        ("used", ["--random", 1001], "random must be at most 1000"),
        ("spread", ["--n-cells", 65_537], "n-cells must be at most 65536"),
        ("divergence", ["--starts", HUGE], "the states of 1000000000000 starts would need"),
        ("trajectories", ["--seed", 2**64], "seed must be from 0 to"),
        ("probes", ["--strength", "inf"], "strength must be finite"),
        ("probes", ["--cycles", f"0-{HUGE}"], "names more than 1000000 indices"),
    ],
)
def test_a_number_that_cannot_fit_is_one_line(
    cli: Cli, copier: Path, grids: Path, store: Path, tmp_path: Path, command: str, words: Any,
    problem: str,
):  # fmt: skip
    of_store = command in ("divergence", "trajectories", "probes")
    on = [store] if of_store else ["--ckpt", copier, "--puzzles", grids]
    answer = cli(command, *on, "--out", tmp_path / "out", *words)
    assert (answer.code, answer.out) == (2, "") and answer.err.count("\n") == 1, answer.err
    assert problem in answer.err and len(answer.err) < 300
    assert not (tmp_path / "out").exists()


def held(check: Callable[..., None], *what: Any, shard: bool) -> float:
    """The largest need that a study asks for, in a shard or in one process."""
    asked: list[float] = []
    dealt = OneShard(Path("nowhere"), Shard(1, 2), print) if shard else Division()
    with pytest.MonkeyPatch.context() as patch, dividing(dealt):
        patch.setattr(memory, "require_memory", lambda need, *words: asked.append(need))
        check(*what)
    return max(asked)


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("outcomes", {"steps": 4}),
        ("losses", {"steps": 4}),
        ("settling", {"steps": 6}),
        ("basins", {"starts": 10**7, "neighbours": 10}),
        ("spread", {"steps": 4}),
    ],
)
def test_what_a_shard_holds_does_not_grow_with_the_whole(
    copier: Path, grids: Path, tmp_path: Path, name: str, more: dict[str, Any]
):
    """Batches of one: a puzzle, a start; spread holds relations of all changes, of any shard."""
    config = CONFIGS[name](out=tmp_path, ckpt=str(copier), puzzles=grids, batch_size=1, **more)
    subject = open_subject(config, lambda line: None)
    if name == "basins":
        sizes = [(subject, replace(config, starts=n)) for n in (10**6, 10**7)]
    else:
        few = [subject.puzzles.subset(slice(n)) for n in (1, 10)]
        sizes = [(replace(subject, puzzles=one), config) for one in few]
    further = (1, True) if name == "settling" else ()
    check = getattr(memory, f"for_{name}")
    small, large = (held(check, *one, *further, shard=True) for one in sizes)
    whole = [held(check, *one, *further, shard=False) for one in sizes]
    assert whole[0] < whole[1] and (small < large) == (name == "spread")
    assert large < whole[1] and (name != "basins" or whole[1] > 9 * whole[0] > 100 * large)


def test_seeds_of_64_bits_are_taken(cli: Cli, copier: Path, grids: Path, tmp_path: Path):
    words = ["--ckpt", copier, "--puzzles", grids, "--steps", 2, "--limit", 3]
    answer = cli("outcomes", *words, "--out", tmp_path / "out", "--seed", 2**63 - 1)
    assert answer.code == 0, answer.err


@pytest.mark.parametrize("command", ["outcomes", "losses", "basins", "settling", "stability"])
def test_skip_bad_does_what_the_message_says(cli: Cli, copier: Path, tmp_path: Path, command: str):
    solution = "1234341221434321"
    two = ".2.4.4.221434321"  # 1 and 3 can change places
    file = tmp_path / "two.txt"
    file.write_text(f".{solution[1:]},{solution}\n{two},{solution}\n{solution},{solution}\n")
    words = [command, "--ckpt", copier, "--puzzles", file, "--out", tmp_path / "out"]
    refused = cli(*words)
    assert refused.code == 2 and "line 2: several solutions" in refused.err
    assert "--skip-bad" in refused.err and "--skip-bad" in cli(command, "--help").out
    if command == "losses":
        answer = cli(*words, "--steps", 2, "--skip-bad", "--json")
        assert answer.code == 0 and "skipped line 2: several solutions" in answer.err
        summary = json.loads(answer.out)
        assert (summary["n"], summary["skipped"]) == (2, 1)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("losses", ["--steps", 1]),  # two H-cycles: the plateau has no slope
        ("basins", ["--seed", 2**63 - 1]),  # scikit-learn takes 32 bits
        (
            "stability",
            ["--fixed", 1, "--exponents", 1, "--steps", 5],
        ),  # no end point of one outcome
        ("divergence", ["--seed", 2**63 - 1, "--starts", 2, "--control-puzzles", 1]),
    ],
)
def test_values_at_the_edge_are_worked_with(
    cli: Cli, copier: Path, grids: Path, store: Path, tmp_path: Path, command: str, words: Any
):
    small = ["--starts", 8, "--neighbours", 2, "--slice", 2, "--steps", 1, "--n-puzzles", 1]
    words = [*words, *(small if command == "basins" else [])]
    on = [store] if command == "divergence" else ["--ckpt", copier, "--puzzles", grids]
    limit = [] if command == "divergence" else ["--limit", 3]
    answer = cli(command, *on, "--out", tmp_path / "out", *limit, *words)
    assert answer.code == 0 or "solved runs; a centroid that" in answer.err, answer.err
    assert "None" not in answer.out
