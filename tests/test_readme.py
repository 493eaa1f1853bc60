"""Every command of the README, in its order, at small size: each works and shows something."""

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

import trm_interp.explore.serving
from trm_interp.cli import app

ROOT = Path(__file__).parents[1]
Cli = Callable[..., Any]
# what makes a command small; an option that is given twice has its last value
SMALL = {
    "eval": "--limit 8 --steps 4",
    "collect": "--limit 12",
    "train": "--train artifacts/data/sudoku9/val.txt --val artifacts/data/sudoku9/test.txt "
    "--train-steps 2 --batch-size 4 --n-sup 2 --d-model 16 --no-compile --val-limit 2",
    "train-sae": "--train-steps 60 --expansion 4 --batch-size 256 --l1 1",
    "features": "--surrogates 20 --all-puzzles",
    "steer": "--all-puzzles --limit 4 --controls 1",
    "sae-eval": "--all-puzzles --limit 4",
    "outcomes": "--limit 8 --steps 4",
    "divergence": "--starts 8",
    "losses": "--limit 8 --steps 4",
    "basins": "--starts 20 --n-puzzles 1 --limit 8 --steps 4 --shuffles 20",
    "origins": "--limit 2 --copies 2 --starts 2 --steps 2",
    "trace": "--limit 16 --starts 4 --pairs 2 --steps 4 --then 2 --exact 4",
    "stitch": "--limit 4 --fit 8 --link-steps 2 --batch-size 4",
    "settling": "--limit 8 --long 32",
    "stability": "--limit 8 --sample 4 --fixed 0 --steps 5",
    "robustness": "--limit 8 --sample 4 --steps 4 --then 2 --draws 2 --starts 2 --epsilons 0.5,2",
    "internalisation": "--limit 8 --steps 2 --caps 0,1",
    "figures": "--plan",
    "compare": "--plan",
    "search": "--limit 4 --k 2 --steps 2",
    "explore": "--limit 4 --steps 2",
}
NOT_RUN = ("torchrun", "python3", "pip")
TESTED_APART = ("data make",)  # minutes where nothing is compiled yet


def commands() -> list[list[str]]:
    """Words of every line of the README's shell blocks, without comments."""
    blocks = re.findall(r"```bash\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    text = "\n".join(blocks).replace("\\\n", " ")
    return [shlex.split(line, comments=True) for line in text.splitlines() if line.strip()]


def name_of(words: list[str]) -> str:
    return " ".join(words[: 2 if words[0] == "data" else 1])


def test_every_command_exists_and_takes_its_options():
    top = get_command(app)
    for words in commands():
        start = next((i for i, w in enumerate(words) if w.endswith("trm_interp")), None)
        if words[0] != "trm-interp" and start is None:
            assert words[0] in NOT_RUN or words[0].endswith("pip")
            continue
        rest = [word for word in words[1 if start is None else start + 1 :] if word != "..."]
        command: Any = top
        for _ in range(2 if rest[0] == "data" else 1):
            command = command.commands[rest.pop(0)]
        options = {option for param in command.params for option in param.opts}
        assert {word for word in rest if word.startswith("--")} <= options, words


def test_every_command_runs_and_shows_something(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "artifacts").symlink_to(ROOT / "artifacts")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(trm_interp.explore.serving, "serve", lambda server: None)  # till Ctrl-C
    ran = set()
    for words in commands():
        if words[0] != "trm-interp":
            continue
        name = name_of(words[1:])
        if name in TESTED_APART:
            continue
        answer = cli(*words[1:], *SMALL.get(name, "").split())
        assert answer.code == 0, (words, answer)
        assert len(answer.out.splitlines()) + len(answer.err.splitlines()) > 0, words
        if "--out" in words and name not in ("figures", "compare"):
            out = tmp_path / words[words.index("--out") + 1]
            assert out.exists(), words
        if name == "sae-eval":
            rows = [line.split("│") for line in answer.out.splitlines() if line.startswith("│")]
            kinds = ("as it is", "sae", "zero", "mean")
            losses = [cells[-2].split()[0] for cells in rows if cells[1].strip() in kinds]
            assert len(set(losses[-4:])) == 4, answer.out  # four ways at one tick
        ran.add(name)
    assert len(ran) >= 18


def test_options_that_the_text_names_exist():
    def every(command: Any) -> set[str]:
        inner = getattr(command, "commands", {}).values()
        own = {o for param in command.params for o in (*param.opts, *param.secondary_opts)}
        return own.union(*map(every, inner))

    named = re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", (ROOT / "README.md").read_text())
    assert set(named) <= every(get_command(app)) | {"--nproc-per-node", "--dist", "--help"}
