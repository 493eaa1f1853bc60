"""Options that had no value in earlier versions and have one now."""

from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal

import pytest
import typer
from option_world import commands
from typer.testing import CliRunner

from trm_interp.cli import options
from trm_interp.cli.options import Command, add
from trm_interp.runtime.settings import setting


@dataclass(frozen=True)
class Settings:
    fast: Literal["auto", "yes", "no"] = setting(
        "auto", "how fast", switches={"--fast": "yes", "--slow": "no"}
    )
    resume: bool = setting(False, "go on")


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> Any:
    """What a command of these settings printed: the value of `fast`."""
    module = ModuleType("toy")
    vars(module).update(run=lambda config, tell, progress: config.fast, lines=lambda fast: [fast])
    monkeypatch.setattr(options, "import_module", lambda name: module)
    app = typer.Typer()
    row = Command(
        name="toy", title="Toys", config=Settings, target="toy:run", doc="A toy.", examples="toy"
    )
    add(app, row)
    return CliRunner().invoke(app, words)


@pytest.mark.parametrize(
    ("words", "value", "notice"),
    [
        (["--fast"], "yes", "--fast is now called --fast yes"),
        (["--fast", "--resume"], "yes", "--fast is now called --fast yes"),
        (["--slow"], "no", "--slow is now called --fast no"),
        (["--fast", "no"], "no", ""),
        (["--fast=no"], "no", ""),
        (["--resume"], "auto", ""),
    ],
)
def test_what_was_a_switch_goes_on_being_one(
    monkeypatch: pytest.MonkeyPatch, words: list[str], value: str, notice: str
):
    answer = run(monkeypatch, *words)
    assert (answer.exit_code, answer.stdout) == (0, f"{value}\n")
    assert answer.stderr == (f"{notice}\n" if notice else "")


def test_a_word_that_is_no_value_is_refused(monkeypatch: pytest.MonkeyPatch):
    answer = run(monkeypatch, "--fast", "so")
    assert (answer.exit_code, answer.stdout) == (2, "")
    assert answer.stderr == "error: --fast: 'so' is not one of 'auto', 'yes', 'no'\n"


@pytest.mark.parametrize("name", dict(commands()))
def test_a_command_without_words_takes_its_defaults_or_says_what_is_missing(name: str):
    """The first command of the README has none; looking at the next word must not need one."""
    command: Any = dict(commands())[name]
    needed = [parameter for parameter in command.params if parameter.required]
    if needed:
        with pytest.raises(Exception, match="Missing parameter"):
            command.make_context(name, [])
    else:
        context = command.make_context(name, [])
        sources = {context.get_parameter_source(one).name for one in context.params}
        assert sources == {"DEFAULT"}
