"""Pages and tables that are made from the code and from what ships: nothing is typed twice."""

import json
import re
from collections.abc import Callable, Iterator
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd

from building.blocks import ROOT

ARTIFACTS = ROOT / "artifacts"
PLOTLY = "assets/plotly.min.js"
MARKER = re.compile(r"^<!-- table: ([\w-]+)(?: of ([\w, ]+))? -->$", re.MULTILINE)
# modules of the reference, by page: its title, what it is, modules
MODULES: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "reference/patch.md": (
        "Patching",
        "`trm_interp.patch` is for patches of your own; [its guide](../patching.md) has examples.",
        ("patch.recorded", "patch.patching", "patch.sources", "patch.places", "patch.attribution"),
    ),
    "reference/recording.md": (
        "Recording",
        "Hooks, stores and their arrays.",
        ("recording.hooks", "recording.store", "recording.stored_array", "recording.looped"),
    ),
    "reference/analysis.md": (
        "Analysis",
        "Pure functions on arrays: they know no task and no model.",
        tuple(
            f"analysis.{path.stem}"
            for path in sorted((ROOT / "trm_interp" / "analysis").glob("*.py"))
            if path.stem != "__init__"
        ),
    ),
    "reference/seams.md": (
        "Tasks and models",
        "The base classes that a new task or a new architecture fills in; "
        "[the guide](../guides/extend.md) says how.",
        ("tasks.base", "core.models.base", "core.models.config", "core.models.blocks"),
    ),
}


def cli() -> str:
    """All commands under the headings of `--help`, each with its examples and options."""
    from typer.main import get_command

    from trm_interp.cli.app import COMMANDS, app

    top: Any = get_command(app)
    parts = ["# Commands", "Every command has `--help`, which says the same."]
    for title in dict.fromkeys(command.title for command in COMMANDS):
        parts.append(f"## {title}")
        for row in (command for command in COMMANDS if command.title == title):
            command = top
            for word in row.name.split():
                command = command.commands[word]
            parts += [f"### trm-interp {row.name}", *_command(command)]
    return "\n\n".join(parts) + "\n"


def _command(command: Any) -> Iterator[str]:
    text, _, examples = str(command.help).partition("\n\n\b\nExamples:\n")
    yield text.strip()
    yield f"```console\n{examples.strip()}\n```"
    context = command.make_context(command.name, [], resilient_parsing=True)
    records = (one.get_help_record(context) for one in command.params)
    rows = [f"| `{name}` | {_cell(text)} |" for name, text in filter(None, records)]
    yield "\n".join(["| option | meaning |", "|---|---|", *rows])


def _cell(text: str) -> str:
    """Help as text of a table."""
    return escape(" ".join(text.split()), quote=False).replace("|", "\\|").replace("*", "\\*")


def public_names() -> str:
    """What `trm_interp` gives: every name with its signature and docstring."""
    import trm_interp

    homes = (f"trm_interp.{home.replace(':', '.')}" for home in trm_interp._HOMES.values())
    text = "Each of these is imported from `trm_interp` itself, as `trm_interp.load_checkpoint`."
    return "\n\n".join(["# Public names", text, *(f"::: {home}" for home in dict.fromkeys(homes))])


def modules(page: str) -> str:
    """The reference of some modules."""
    title, text, names = MODULES[page]
    shown = (
        f"## {name}\n\n::: trm_interp.{name}\n    options:\n      show_root_heading: false"
        for name in names
    )
    return "\n\n".join([f"# {title}", text, *shown]) + "\n"


def contributing() -> str:
    """How to add a study, a task or an architecture, out of CONTRIBUTING.md."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    sections = re.split(r"^## ", text, flags=re.MULTILINE)
    kept = [f"## {one}" for one in sections if re.match(r"Add an? ", one)]
    head = (
        "# Add a study, a task, an architecture\n\nEach is one file and one line; the tests hold a "
        "whole toy of each, and say which part is missing. The checks are in CONTRIBUTING.md.\n"
    )
    return "\n".join([head, *kept])


def artifacts() -> str:
    """The cards of all checkpoints and data sets that ship."""
    parts = [
        "# What ships",
        "Facts of every card (`card.json`), which also holds the settings of the training, "
        "intervals and checksums. Steps count from 1 in these tables.",
        "## Checkpoints",
        _markdown(pd.DataFrame(map(_checkpoint, _checkpoint_cards()))),
        "## Puzzles",
        _markdown(pd.DataFrame(map(_puzzles, sorted(ARTIFACTS.glob("data/*/card.json"))))),
    ]
    return "\n\n".join(parts) + "\n"


def _checkpoint_cards() -> list[Path]:
    return [*sorted(ARTIFACTS.glob("*/card.json")), *sorted(ARTIFACTS.glob("zoo/*/card.json"))]


def _checkpoint(path: Any) -> dict[str, Any]:
    card = json.loads(path.read_text())
    test, train = card["test"], card["train"]
    curve = test["exact_at_step"]
    steps = {f"exact % after step {at}": f"{100 * curve[at - 1]:.1f}" for at in (1, 2, 4, 8, 16)}
    return {
        "artifacts/": path.parent.relative_to(ARTIFACTS).as_posix(),
        "task": card["task"],
        "seed": train["seed"],
        "test puzzles": test["n"],
        **steps,
        "test command": f"`{test['command']}`",
    }


def _puzzles(path: Any) -> dict[str, Any]:
    card = json.loads(path.read_text())
    sizes = {name: card[name] for name in ("train", "val", "test")}
    name = path.parent.name
    command = f"`trm-interp data make {card['preset']} --seed {card['seed']}`"
    return {
        "artifacts/data/": name,
        **sizes,
        "copies": card.get("classes", "-"),
        "made by": command,
    }


def verdicts(of: str) -> str:
    """Every claim on every subject, and over checkpoints: of `compare`, or of `compare-OF`."""
    folder = f"compare-{of}" if of else "compare"
    return _markdown(pd.read_csv(ARTIFACTS / folder / "verdicts.csv"))


def ablations(_: str) -> str:
    """What `experiments/ablations.py` came to."""
    return (ARTIFACTS / "ablations" / "ablations.md").read_text().strip()


def effects(claims: str) -> str:
    """Effects of some claims by subject, with 95 % intervals."""
    table = pd.read_csv(ARTIFACTS / "compare" / "effects.csv")
    table = table[table["claim"].isin([one.strip() for one in claims.split(",")])]
    table["value"] = [
        f"{one.estimate:.2g} [{one.low:.2g}, {one.high:.2g}], n {one.n}"
        for one in table.itertuples()
    ]
    table["claimed"] = [
        f"{'above' if one.claimed > 0 else 'below'} {one.null:g}" for one in table.itertuples()
    ]
    subjects = list(dict.fromkeys(table["subject"]))
    keys = ["claim", "effect", "claimed"]
    wide = table.drop_duplicates([*keys, "subject"])  # F2 and W1 share theirs
    wide = wide.pivot(index=keys, columns="subject", values="value")[subjects]
    return _markdown(wide.reset_index().fillna("-"))


def commands(claims: str) -> str:
    """The commands that measured some claims on the first subject."""
    table = pd.read_csv(ARTIFACTS / "compare" / "effects.csv")
    table = table[table["claim"].isin([one.strip() for one in claims.split(",")])]
    table = table[table["subject"] == table["subject"].iloc[0]]
    return "\n".join(f"- `{one}`" for one in dict.fromkeys(table["command"]))


def _markdown(table: pd.DataFrame) -> str:
    def row(cells: Any) -> str:
        return "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |"

    lines = [row(table.columns), row("---" for _ in table.columns)]
    return "\n".join([*lines, *(row(one) for one in table.itertuples(index=False))])


TABLES: dict[str, Callable[[str], str]] = {
    "verdicts": verdicts,
    "ablations": ablations,
    "effects": effects,
    "commands": commands,
}
PAGES: dict[str, Callable[[], str]] = {
    "reference/cli.md": cli,
    "reference/api.md": public_names,
    **{page: lambda page=page: modules(page) for page in MODULES},
    "reference/artifacts.md": artifacts,
    "guides/extend.md": contributing,
}


def with_tables(text: str) -> str:
    """A page with its markers (`<!-- table: effects of T1 -->`) replaced by tables."""
    return MARKER.sub(lambda match: TABLES[match[1]](match[2] or ""), text)
