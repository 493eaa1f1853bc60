"""README and documentation: every command and every block of Python runs, and the site builds.

Commands run at small size and each line once; Python runs as it stands. What it puts out goes into
the site, which is built last and without a warning.
"""

import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from building import blocks, generated, site
from building.blocks import Output, Workplace, commands, name_of, pages, text_of
from typer.main import get_command

import trm_interp
from trm_interp.cli import app

ROOT = Path(__file__).parents[1]
TEXTS = ["README.md", *pages()]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    return Workplace(tmp_path_factory.mktemp("docs"))


@pytest.fixture(scope="module")
def outputs() -> dict[str, list[Output]]:
    """What the pages put out so far."""
    return {}


def lines() -> list[list[str]]:
    """Words of the lines of all shell blocks."""
    shell = [b for page in TEXTS for b in blocks.blocks(text_of(page)) if b.language == "bash"]
    return [words for block in shell for words in commands(block.code)]


def test_every_command_exists_and_takes_its_options():
    top = get_command(app)
    for words in lines():
        start = next((i for i, w in enumerate(words) if w.endswith("trm_interp")), None)
        if words[0] != "trm-interp" and start is None:
            assert words[0] in blocks.NOT_RUN or words[0].endswith("pip"), words
            continue
        rest = [word for word in words[1 if start is None else start + 1 :] if word != "..."]
        command: Any = top
        for _ in range(2 if rest[0] == "data" else 1):
            command = command.commands[rest.pop(0)]
        options = {option for param in command.params for option in param.opts}
        assert {word for word in rest if word.startswith("--")} <= options, words


def test_options_that_the_text_names_exist():
    def every(command: Any) -> set[str]:
        inner = getattr(command, "commands", {}).values()
        own = {o for param in command.params for o in (*param.opts, *param.secondary_opts)}
        return own.union(*map(every, inner))

    there = every(get_command(app)) | {"--nproc-per-node", "--dist", "--help", "--outputs"}
    for page in TEXTS:
        named = re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", text_of(page))
        assert set(named) <= there | {"--only", "--plan", "--execute", "--to", "--estimate"}, page


def test_files_that_the_text_names_exist():
    tests = {path.name for path in ROOT.glob("tests/**/test_*.py")}
    rooms = r"`((?:artifacts|experiments|notebooks|trm_interp|tests)/[\w./-]+)`"
    for page in TEXTS:
        assert set(re.findall(r"\btest_\w+\.py\b", text_of(page))) <= tests, page
        paths = [path for path in re.findall(rooms, text_of(page)) if "NAME" not in path]
        assert [path for path in paths if not (ROOT / path).exists()] == [], page


def test_every_page_is_in_the_navigation():
    folder = ROOT / "docs"
    written = {path.relative_to(folder).as_posix() for path in folder.rglob("*.md")}
    assert written <= set(pages())


def test_the_readme_says_what_the_tables_say():
    names = ("compare", "compare-search", "compare-features")
    files = [ROOT / "artifacts" / name / "verdicts.csv" for name in names]
    table = pd.concat([pd.read_csv(file) for file in files]).set_index("id")
    columns = [*table.columns[2:7], "over checkpoints"]
    rows = re.findall(r"^\| ([A-Z]\d\w?) [^|]*\| (.+) \|$", text_of("README.md"), re.MULTILINE)
    assert {name for name, _ in rows} == set(table.index)
    for name, cells in rows:
        full = [str(verdict).split(" (")[0] for verdict in table.loc[name, columns]]
        assert cells.split(" | ") == [one.replace("reproduced in part", "in part") for one in full]


def test_the_commands_of_the_readme_run(place: Workplace):
    place.run("README.md", python=False)
    assert len({name_of(list(line)) for line in place.ran}) >= 10


@pytest.mark.parametrize("page", pages())
def test_a_page_runs(page: str, place: Workplace, outputs: dict[str, list[Output]]):
    outputs[page] = place.run(page)


def test_sae_eval_tells_four_ways_apart(place: Workplace):
    (answer,) = (text for line, text in place.ran.items() if line[1] == "sae-eval")
    rows = [line.split("│") for line in answer.splitlines() if line.startswith("│")]
    kinds = ("as it is", "sae", "zero", "mean")
    losses = [cells[-2].split()[0] for cells in rows if cells[1].strip() in kinds]
    assert len(set(losses[-4:])) == 4, answer  # four ways at one tick


def test_the_examples_of_patching_show_what_they_say(
    place: Workplace, outputs: dict[str, list[Output]]
):
    names = place.names["patching.md"]
    shown = "".join(output.text for output in outputs["patching.md"])
    assert len(outputs["patching.md"]) == 7 and shown.count("\n") >= 5
    base, other = names["base"], names["other"]
    assert not torch.equal(base.before[0].z_H, other.before[0].z_H)
    assert names["effects"].change("loss").abs().max() > 0
    assert names["ablated"].change("cells").mean() < 0  # without the MLP less is right
    assert names["cut"].change("loss").abs().max() > 0
    swapped, asked = names["swapped"].tokens[0], base.readouts.tokens[:, -1]
    assert (swapped != asked).any()
    blanks = names["blanks"][:, names["model"].config.prefix :]
    before, after = ((tokens == 2)[blanks].sum() for tokens in (asked, names["steered"].tokens[0]))
    assert after > 2 * before  # more blanks are answered with a 1
    assert len(names["exact"]) == 20 and len(names["estimates"]) == 2 + 6 * 21


def test_the_site_builds_without_a_warning(outputs: dict[str, list[Output]], tmp_path: Path):
    blocks.save(outputs, tmp_path / "outputs.json")
    site.build(tmp_path / "site", tmp_path / "outputs.json")
    for page in {*outputs, *generated.PAGES}:
        html = (tmp_path / "site" / page).with_suffix(".html").read_text()
        assert not re.findall(r'<(?:script|img|iframe)[^>]* src="?https?:', html), page  # offline
    commands_page = (tmp_path / "site" / "reference" / "cli.html").read_text()
    for name in get_command(app).commands:  # type: ignore[attr-defined]
        assert f"trm-interp {name}" in commands_page
    api = (tmp_path / "site" / "reference" / "api.html").read_text()
    for name in {home.rpartition(":")[2] for home in trm_interp._HOMES.values() if ":" in home}:
        assert f".{name}" in api, name
    for page, shown in outputs.items():
        text = (tmp_path / "site" / page).with_suffix(".html").read_text()
        assert text.count('class="output"') >= sum('class="output"' in one.html for one in shown)
