"""Absurd option values: every outcome is the command's work, or a one-line error.

A group of commands gets `EXAMPLES` examples of words in a tiny world; TRM_INTERP_EXAMPLES=500 is
thorough.
"""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from option_world import World, commands, make_world, smallest

import trm_interp.explore.serving

EXAMPLES = int(os.environ.get("TRM_INTERP_EXAMPLES", "8"))
NUMBERS = ["0", "1", "-1", "2", "-0.0", "0.5", "nan", "inf", "-inf", "1e308", "-1e308", "1e-320"]
NUMBERS += [str(10**12), str(2**63 - 1), str(2**63), str(2**64), "9" * 400]
TEXTS = ["", " ", ",", "0-99999999999", "3-1", "0,18446744073709551616", "a[/b]", "[red]", "x\ny"]
TEXTS += ["é", "\x1b[2J", "z_L,z_L", "../..", "/dev/null", "-", "--", "nowhere/at/all", "x" * 300]
WRITES = {"--out", "--csv"}  # where is another question
SLOW = {"--static", "--compile", "--umap", "--plan"}  # browsers, compilers; --no-plan: hours
SLOW |= {"--budget"}  # a minute is a minute
GROUPS = {
    "running": ("eval", "collect", "hooks", "info", "quickstart", "merge"),
    "training": ("train",),
    "exploring": ("explore",),
    "features": ("train-sae", "sae-eval", "features", "steer", "circuits"),
    "searching": ("search", "solve"),
    "checkpoints": (
        "outcomes",
        "losses",
        "basins",
        "origins",
        "trace",
        "used",
        "spread",
        "stitch",
        "settling",
        "stability",
        "robustness",
        "figures",
    ),
    "loops": ("internalisation",),
    "comparing": ("compare",),
    "sweeping": ("sweep", "cost"),
    "sharing": ("push",),
    "stores": ("trajectories", "divergence", "lens", "probes"),
    "data": ("data make", "data rate", "data check", "data import"),
}
COMMANDS = dict(commands())


@pytest.fixture(scope="module")
def world(copier: Path, grids: Path, tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(copier, grids, tmp_path_factory.mktemp("world"))


@pytest.fixture(autouse=True)
def end_at_once(monkeypatch: pytest.MonkeyPatch):
    """What serves until Ctrl-C does all but that."""
    monkeypatch.setattr(trm_interp.explore.serving, "serve", lambda server: None)


def test_every_command_is_in_a_group(world: World):
    named = {name for group in GROUPS.values() for name in group}
    assert named == smallest(world).keys() == COMMANDS.keys() - {"data download"}


def options(name: str) -> list[str]:
    return [
        param.opts[0]
        for param in COMMANDS[name].params
        if param.opts[0].startswith("--") and param.opts[0] not in WRITES | SLOW | {"--help"}
    ]


def is_flag(name: str, option: str) -> bool:
    return any(p.is_flag for p in COMMANDS[name].params if p.opts[0] == option)


# what lies between is work that was asked for, and takes as long
HUGE = st.integers(-3, 3) | st.integers(min_value=10**10) | st.integers(max_value=-(10**10))
FLOATS = st.floats(-3, 3) | st.floats(min_value=1e10) | st.floats(max_value=-1e10)  # 3.0 is a 3


@st.composite
def mutations(draw: st.DrawFn, group: str) -> tuple[str, list[str]]:
    """A command and one or two of its options with values that are drawn from all kinds."""
    name = draw(st.sampled_from(GROUPS[group]))
    words: list[str] = []
    for option in draw(st.lists(st.sampled_from(options(name)), min_size=1, max_size=2)):
        words.append(option)
        if not is_flag(name, option):
            value = st.sampled_from(NUMBERS) | st.sampled_from(TEXTS) | HUGE.map(str)
            words.append(draw(value | FLOATS.map(str)))
    return name, words


def check(answer: Any, words: list[Any]) -> None:
    """The work was done, or one line says what is wrong."""
    assert answer.code in (0, 2), (words, answer)
    assert "Traceback" not in answer.err
    if answer.code == 0:
        return
    last = answer.err.splitlines()[-1]
    notes = answer.err.splitlines()[:-1]
    assert last.startswith("error: ") and last.isprintable(), (words, answer.err)
    assert len(last) < 300 or "..." in last, (words, len(last), last)
    assert "weights_only=False" not in answer.err
    assert all(note.isprintable() and "rror" not in note for note in notes), (words, answer.err)


@pytest.mark.parametrize("name", sorted(COMMANDS.keys() - {"data download"}))
def test_the_smallest_words_work(cli: Callable[..., Any], world: World, name: str):
    shutil.rmtree(world.out, ignore_errors=True)
    answer = cli(*name.split(), *smallest(world)[name])
    assert answer.code == (2 if name == "data check" else 0), answer.err  # a file is its own copy


@pytest.mark.parametrize("group", GROUPS)
def test_no_value_of_an_option_ends_in_a_traceback(
    cli: Callable[..., Any], world: World, group: str
):
    base = smallest(world)

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        derandomize=EXAMPLES < 100,
        suppress_health_check=[HealthCheck.too_slow],
    )
    @given(mutations(group))
    def run(drawn: tuple[str, list[str]]) -> None:
        name, words = drawn
        shutil.rmtree(world.out, ignore_errors=True)
        answer = cli(*name.split(), *base[name], *words)
        check(answer, [name, *words])

    run()
