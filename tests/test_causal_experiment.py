"""experiments/causal.py: parts are commands that exist, done once, each with its own words."""

from pathlib import Path
from types import SimpleNamespace

import causal
import pytest
from option_world import commands


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The words of every command that would have run; one of a `broken` folder fails."""
    words: list[list[str]] = []

    def run(command: list[str], check: bool) -> SimpleNamespace:
        words.append(command[3:])
        return SimpleNamespace(returncode=int("broken" in command))

    monkeypatch.setattr(causal, "subprocess", SimpleNamespace(run=run))
    return words


def part(name: str, folder: Path, scale: float = 1.0, ckpt: str = "trm") -> bool:
    return causal.run_part(name, ckpt, folder / name, scale, [])


def test_every_part_is_a_command_that_exists(ran: list[list[str]], tmp_path: Path):
    options = {
        name: {option for parameter in command.params for option in parameter.opts}
        for name, command in commands()
    }
    assert all(part(name, tmp_path) for name in causal.PARTS)
    assert len(ran) == len(causal.PARTS)
    for (command, *words), name in zip(ran, causal.PARTS, strict=True):
        assert {word for word in words if word.startswith("--")} <= options[command], name
        assert words[words.index("--out") + 1] == str(tmp_path / name)
        assert len({"--resume", "--overwrite"} & set(words)) == 1  # both begin where nothing is
        assert ("--resume" in options[command]) == ("--resume" in words), name
        assert not {"CKPT", "AT/states", "AT/sae"} & set(words)
    circuits = next(words for words in ran if words[0] == "circuits")
    assert circuits[1:3] == [str(tmp_path / "sae"), str(tmp_path / "states")]


def test_a_part_that_is_done_is_not_run_again(
    ran: list[list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert part("spread", tmp_path) and part("spread", tmp_path) and len(ran) == 1
    assert not part("spread", tmp_path, scale=0.5) and len(ran) == 1
    assert "choose another --out" in capsys.readouterr().out
    for _ in range(2):
        assert not part("used", tmp_path, ckpt="broken")
    assert len(ran) == 3 and part("used", tmp_path)


def test_numbers_follow_the_scale(ran: list[list[str]], tmp_path: Path):
    assert part("trace", tmp_path, scale=0.01)
    words = ran[0]
    numbers = [words[words.index(name) + 1] for name in ("--limit", "--pairs", "--exact")]
    assert numbers == ["2", "2", "2"]  # 1.92, 0.16 and 0.48


def test_what_ships_replaces_what_was_there_of_a_part(tmp_path: Path):
    out, to = tmp_path / "out", tmp_path / "to"
    for file, size in (("trace/trace.csv", 10), ("trace/huge.csv", causal.SMALL + 1)):
        (out / file).parent.mkdir(parents=True, exist_ok=True)
        (out / file).write_text("x" * size)
    for file in ("trace/huge.csv", "spread/old.csv", "trace-all-cells/kept.csv"):
        (to / file).parent.mkdir(parents=True, exist_ok=True)
        (to / file).write_text("of an earlier run")
    causal.ship(out, to)
    names = sorted(str(file.relative_to(to)) for file in to.rglob("*.csv"))
    assert names == ["spread/old.csv", "trace-all-cells/kept.csv", "trace/trace.csv"]
