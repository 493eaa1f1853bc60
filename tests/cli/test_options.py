"""Rows become commands: options from settings, groups and presets, earlier names, endings."""

import inspect
import json
import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar, Literal, get_args, get_type_hints

import pytest
import typer
from option_world import commands
from typer.testing import CliRunner

from trm_interp.cli import options
from trm_interp.cli.app import COMMANDS
from trm_interp.cli.options import Command, add
from trm_interp.cli.wording import notices, option_fields
from trm_interp.runtime.errors import UserError
from trm_interp.runtime.runs import Interrupted
from trm_interp.runtime.settings import argument, group, partial_group, preset, required, setting
from trm_interp.runtime.version import __version__

Cli = Callable[..., Any]


PRESETS = {"loud": {"sigma": 5.0, "steps": 3}, "quiet": {"kind": "none"}}


@dataclass(frozen=True)
class Noise:
    sigma: float = setting(1.0, "standard deviation", most=10)
    clean: bool = setting(True, "the first without noise")
    steps: int = setting(16, "optimizer steps", flags="--train-steps", old="--steps")
    kind: Literal["gauss", "none"] = setting("gauss", "distribution")
    mean: float = setting(0.0, "of the noise", needs={"kind": ("gauss",)})
    max_width: int = setting(9, "of the noise, at least --sigma")

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"steps must be at least 1, got {self.steps}")
        if self.max_width < self.sigma:
            raise ValueError(f"sigma {self.sigma:g} is above max_width {self.max_width}")


@dataclass(frozen=True)
class Flat:
    width: int = setting(8, "of a state")
    cells: int = setting(81, "of the puzzles")


@dataclass(frozen=True)
class Deep(Flat):
    depth: int = setting(2, "layers", old="--layers")


@dataclass(frozen=True, kw_only=True)
class Settings:
    path: Path = argument("what to read")
    out: Path = required("where to write", old=("--output", "--to"))
    resume: bool = setting(False, "go on")
    overwrite: bool = setting(False, "start over")
    table: Path | None = setting(None, "CSV file", otherwise="not written")
    index: bool = setting(True, "of the rows, in the table", needs={"table": True})
    color: str = setting("red", "of the index", needs={"index": True, "table": True})
    preset: str | None = preset(PRESETS, "a known setting")
    noise: Noise = group(Noise, "Noise", {"sigma": 2.0})
    shape: Mapping[str, Any] = partial_group([Flat, Deep], "Shape", hide=["cells"])


class Answer:
    def __init__(self, settings: Settings, finished: bool = True, fault: str | None = None) -> None:
        self.settings, self.finished, self.fault = settings, finished, fault

    def to_json(self) -> dict[str, Any]:
        return {"sigma": self.settings.noise.sigma, "nan": float("nan")}


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Words -> what a command of these settings came to; `ends` is what its target does."""

    def call(*words: object, ends: Callable[[Settings], Any] = Answer) -> Any:
        module = ModuleType("toy")
        vars(module).update(
            run=lambda config, tell, progress: ends(config),
            lines=lambda answer: [repr(answer.settings)],
            fault=lambda answer: answer.fault,
        )
        monkeypatch.setattr(options, "import_module", lambda name: module)
        app = typer.Typer()
        row = Command(
            name="toy",
            title="Toys",
            config=Settings,
            target="toy:run",
            doc="A toy.",
            examples="trm-interp toy a",
            has_json=True,
            says_out=True,
        )
        add(app, row)
        return CliRunner().invoke(app, [str(word) for word in words])

    return call


def settings_of(answer: Any) -> Settings:
    assert answer.exit_code == 0, answer.stderr
    from pathlib import PosixPath  # noqa: F401, of the repr

    return eval(answer.stdout, globals() | locals())


def test_given_stands_over_preset_over_the_groups_defaults_over_the_fields(run: Callable[..., Any]):
    assert settings_of(run("a", "--out", "b")).noise == Noise(sigma=2.0)
    preset = settings_of(run("a", "--out", "b", "--preset", "loud"))
    assert preset.noise == Noise(sigma=5.0, steps=3) and preset.shape == {}
    given = run("a", "--out", "b", "--preset", "loud", "--sigma", 0.5, "--no-clean", "--layers", 4)
    assert settings_of(given).noise == Noise(sigma=0.5, clean=False, steps=3)
    assert settings_of(given).shape == {"depth": 4}


@pytest.mark.parametrize("words", [["--output", "b"], ["--to=b"], ["--output", "a", "--out", "b"]])
def test_earlier_names_go_on_working_with_a_notice(run: Callable[..., Any], words: list[str]):
    answer = run("a", *words)
    assert settings_of(answer).out == Path("b")
    name = words[0].split("=")[0]
    assert answer.stderr == f"{name} is now called --out\nwrote b\n"
    steps = run("a", "--out", "b", "--steps", 2)
    assert settings_of(steps).noise.steps == 2
    assert steps.stderr == "--steps is now called --train-steps\nwrote b\n"
    text = run("--help").stdout
    assert "--train-steps" in text and "--steps " not in text and "--to " not in text


def test_what_comes_after_two_dashes_is_no_option(run: Callable[..., Any]):
    answer = run("--out", "b", "--", "--to")
    assert settings_of(answer).path == Path("--to") and "now called" not in answer.stderr


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--preset", "wild"], "--preset wild: there are loud, quiet"),
        (["--sigma", "11"], "--sigma must be at most 10, got 11.0"),
        (["--sigma", "nan"], "--sigma must be finite, got nan"),
        (["--train-steps", "0"], "--train-steps must be at least 1, got 0"),
        (["--sigma", "9.5"], "--sigma 9.5 is above --max-width 9"),
        (["--sigma", "much"], "--sigma must be a number, got 'much'"),
        (["--steps", "1.5"], "--train-steps must be a whole number, got '1.5'"),
        (["--kind", "pink"], "--kind: 'pink' is not one of 'gauss', 'none'"),
        (["--kinds", "pink"], "no option --kinds; did you mean --kind?"),
        (["--zzz"], "no option --zzz; see toy --help"),
        (["--sigma"], "--sigma requires an argument"),
        (["b"], "got unexpected extra argument(s) (b); see toy --help"),
    ],
)
def test_a_value_that_cannot_be_is_one_line(
    run: Callable[..., Any], words: list[str], problem: str
):
    answer = run("a", "--out", "b", *words)
    assert (answer.exit_code, answer.stdout) == (2, "")
    notices = [line for line in answer.stderr.splitlines() if "is now called" not in line]
    assert notices == [f"error: {problem}"]


def test_what_is_missing_is_one_line(run: Callable[..., Any]):
    assert run("a").stderr == "error: --out is missing; see toy --help\n"
    assert run("--out", "b").stderr == "error: PATH is missing; see toy --help\n"


@pytest.mark.parametrize(
    ("kind", "told"), [("flat", []), ("deep", ["--width has no effect with --shape line"])]
)
def test_defaults_are_those_of_the_kind_that_is_chosen(kind: str, told: list[str]):
    """Both kinds have `width`, which needs a shape of box: a constant of one, the other's line."""

    @dataclass(frozen=True)
    class FlatBox:
        shape: ClassVar[str] = "box"
        width: int = setting(1, "width", needs={"shape": ("box",)})

    @dataclass(frozen=True)
    class DeepLine:
        shape: str = setting("line", "shape")
        width: int = setting(1, "width", needs={"shape": ("box",)})

    @dataclass(frozen=True)
    class Command:
        kind: str = setting("flat", "kind")
        model: Mapping[str, Any] = partial_group(
            {"flat": FlatBox, "deep": DeepLine}, "Model", chosen_by="kind"
        )

    values = {"kind": kind, "width": 3, "shape": "line"}
    lines = [line.partition(";")[0] for line in notices(Command, values, {"width"})]
    assert lines == told


@pytest.mark.parametrize(
    ("words", "notice"),
    [
        (["--mean", 1, "--kind", "none"], "--mean has no effect with --kind none; it is for gauss"),
        (["--mean", 1], ""),
        (["--kind", "none"], ""),
        (
            ["--mean", 1, "--preset", "quiet"],
            "--mean has no effect with --kind none; it is for gauss",
        ),
        (["--no-index"], "--no-index has no effect without --table"),
        (["--table", "t.csv", "--no-index"], ""),
        (
            ["--table", "t.csv", "--no-index", "--color", "blue"],
            "--color has no effect with --no-index",
        ),
    ],
)
def test_an_option_without_effect_is_told(
    run: Callable[..., Any], words: list[object], notice: str
):
    answer = run("a", "--out", "b", *words)
    assert answer.exit_code == 0, answer.stderr
    assert answer.stderr.splitlines()[:-1] == [notice] * bool(notice)


def test_json_is_the_results_own(run: Callable[..., Any]):
    answer = run("a", "--out", "b", "--json")
    assert json.loads(answer.stdout) == {"sigma": 2.0, "nan": None}


def raising(error: BaseException) -> Callable[[Settings], Any]:
    def end(settings: Settings) -> Any:
        raise error

    return end


@pytest.mark.parametrize(
    ("ends", "code", "notice"),
    [
        (raising(UserError("a: no such file")), 2, "error: a: no such file"),
        (
            raising(KeyboardInterrupt()),
            130,
            "stopped; to continue, run the same command with --resume",
        ),
        (raising(Interrupted("go on so")), 130, "stopped; go on so"),
        (
            lambda settings: Answer(settings, finished=False),
            130,
            "stopped before the end; to continue, run the same command with --resume",
        ),
        (lambda settings: Answer(settings, fault="a is damaged"), 2, "error: a is damaged"),
    ],
)
def test_how_a_command_ends(
    run: Callable[..., Any], ends: Callable[[Settings], Any], code: int, notice: str
):
    answer = run("a", "--out", "b", ends=ends)
    assert answer.exit_code == code and notice in answer.stderr.splitlines()


# all commands


def test_all_commands_are_rows():
    assert [row.name for row in COMMANDS] == list(dict.fromkeys(row.name for row in COMMANDS))
    assert {row.name for row in COMMANDS} == {name for name, _ in commands()}
    for row in COMMANDS:
        frozen = getattr(row.config, "__dataclass_params__", None)
        assert is_dataclass(row.config) and frozen is not None and frozen.frozen, row.name
        assert row.config.__doc__ and row.doc, row.name


def test_the_same_option_means_the_same_everywhere():
    """Checkpoint and puzzles: one help text and one default wherever a command runs puzzles.

    The first look, quickstart, is at another checkpoint.
    """
    both = [
        [next(f for f in fields(row.config) if f.name == name) for name in ("ckpt", "puzzles")]
        for row in COMMANDS
        if {"ckpt", "puzzles"} <= {f.name for f in fields(row.config)} and row.name != "quickstart"
    ]
    assert len(both) >= 8
    shared = {tuple((f.default, f.metadata["help"]) for f in pair) for pair in both}
    assert len(shared) == 1


def test_steps_are_supervision_steps_and_train_steps_are_the_optimizers(cli: Cli):
    for name, command in commands():
        by_option = {option: p for p in command.params for option in p.opts}
        steps, train_steps = by_option.get("--steps"), by_option.get("--train-steps")
        assert (train_steps is not None) == (name in ("train", "train-sae"))
        if steps is not None:
            assert re.search("supervision steps|steps of", steps.help), (name, steps.help)
        if train_steps is not None:
            assert steps is None and "optimizer steps" in train_steps.help


def test_train_understands_its_earlier_options(cli: Cli, grids: Path, tmp_path: Path):
    val = tmp_path / "val.txt"
    val.write_text("..34341221434321,1234341221434321\n")
    words = ["train", "--train", grids, "--val", val, "--preset", "tiny", "--d-model", 8]
    answer = cli(*words, "--batch-size", 2, "--n-sup", 1, "--steps", 2, "--out", tmp_path / "run")
    assert answer.code == 0 and "after 2 optimizer steps" in answer.out
    assert answer.err.splitlines()[0] == "--steps is now called --train-steps"


def value_options() -> Iterator[tuple[str, Any]]:
    """Every option that takes a value or stands for one of two, with its command."""
    for name, command in commands():
        for param in command.params:
            if param.opts[0].startswith("--") and (param.secondary_opts or not param.is_flag):
                yield name, param


def test_every_default_is_shown_once_and_in_one_wording(cli: Cli):
    shown = dict.fromkeys((name for name, _ in value_options()), 0)
    for name, param in value_options():
        assert "default" not in param.help, (name, param.opts)
        shown[name] += not param.required
    for name, number in shown.items():
        assert cli(*name.split(), "--help").out.count("default: ") == number, name


def test_what_an_option_needs_are_options_of_the_same_command():
    shared = 0
    for row in COMMANDS:
        options = option_fields(row.config)
        for f in options.values():
            for other, wanted in f.metadata.get("needs", {}).items():
                shared += 1
                assert other in options, (row.name, f.name)
                if isinstance(wanted, tuple) and not isinstance(options[other].default, bool):
                    kind = next(
                        kind for kind in kinds_of(row.config) if options[other] in fields(kind)
                    )
                    assert set(wanted) < set(get_args(get_type_hints(kind)[other]))
    assert shared >= 20


def kinds_of(config: type) -> Iterator[type]:
    yield config
    for f in fields(config):
        yield from f.metadata.get("group", ())


def test_one_name_has_one_meaning():
    """Names that meant different things in different commands keep only one of these."""
    users = {
        option: {name for name, command in commands() for p in command.params if option in p.opts}
        for option in ("--k", "--target", "--cells", "--train", "--val", "--n")
    }
    assert users == {
        "--k": {"search", "solve"},  # trajectories
        "--target": {
            "search",
            "solve",
            "basins",
            "origins",
            "trace",
        },  # state that starts elsewhere
        "--cells": {"info", "hooks"},  # how many
        "--train": {"train"},  # file
        "--val": {"train"},
        "--n": set(),
    }


def test_version(cli: Cli):
    answer = cli("--version")
    assert (answer.code, answer.out) == (0, f"trm-interp {__version__}\n")


def test_a_command_that_does_not_exist_is_one_line(cli: Cli):
    answer = cli("trian")
    assert answer.code == 2
    assert answer.err == "error: no such command 'trian'; did you mean 'train', 'trace'?\n"


def test_examples_name_commands_and_options_that_exist():
    registered = dict(commands())
    for row in COMMANDS:
        text = inspect.cleandoc(row.examples).replace("\\\n", " ")
        assert f"trm-interp {row.name}" in text, row.name
        for line in text.splitlines():
            words = shlex.split(line.split(" > ")[0].split("| ")[-1])
            at = words.index("trm-interp" if "trm-interp" in words else "trm_interp")
            name = " ".join(words[at + 1 : at + (3 if words[at + 1] == "data" else 2)])
            options = {
                option for p in registered[name].params for option in (*p.opts, *p.secondary_opts)
            }
            given = {word.split("=")[0] for word in words[at:] if word.startswith("--")}
            assert given <= options, line
