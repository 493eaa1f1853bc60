"""The code blocks of README and documentation: read, made small, and run in one folder.

Commands (```bash blocks) run in this process with options that make them small, each line once,
however many pages have it. Python runs as it stands, one namespace a page; what it prints and the
value of its last line are its output, which the site shows below it.
"""

import ast
import io
import json
import os
import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import asdict, dataclass, field
from html import escape
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

ROOT = Path(__file__).resolve().parents[2]
PAGES = ROOT / "docs"
FENCE = re.compile(r"^```(python|bash)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
# what makes a command small; an option that is given twice has its last value
SMALL = {
    "eval": "--limit 8 --steps 4",
    "collect": "--limit 12 --steps 6",
    "train": "--train artifacts/data/sudoku9/val.txt --val artifacts/data/sudoku9/test.txt "
    "--train-steps 2 --batch-size 4 --n-sup 2 --d-model 16 --no-compile --val-limit 2",
    "train-sae": "--train-steps 60 --expansion 4 --batch-size 256 --l1 1",
    "features": "--surrogates 20 --all-puzzles",
    "steer": "--all-puzzles --limit 4 --controls 1",
    "sae-eval": "--all-puzzles --limit 4",
    "circuits": "--all-puzzles --limit 4 --top 3 --controls 2 --checked 1",
    "outcomes": "--limit 8 --steps 4",
    "divergence": "--starts 8",
    "losses": "--limit 8 --steps 4",
    "basins": "--starts 20 --n-puzzles 1 --limit 8 --steps 4 --shuffles 20",
    "origins": "--limit 2 --copies 2 --starts 2 --steps 2",
    "trace": "--limit 16 --starts 4 --pairs 2 --steps 4 --then 2 --exact 4 --later 5",
    "used": "--limit 8 --steps 3 --random 1",
    "spread": "--limit 4 --steps 1 --n-cells 1",
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
# no commands of ours, or with tests of their own, as they take long
NOT_RUN = ("torchrun", "python3", "python", "pip", "mkdocs", "jupyter", ".")
TESTED_APART = ("data make", "data download", "quickstart", "push", "sweep")


class Block(NamedTuple):
    """`language`: python or bash; `end`: where in the page's text its fence ends."""

    language: str
    code: str
    end: int


@dataclass
class Output:
    """What a Python block printed, and its last value as HTML."""

    text: str = ""
    html: str = ""


@dataclass
class Workplace:
    """A folder in which pages run, with `artifacts` in it. `ran`: what each line so far printed;
    `names`: the namespace of every page."""

    folder: Path
    ran: dict[tuple[str, ...], str] = field(default_factory=dict)
    names: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        if not (link := self.folder / "artifacts").exists():
            link.symlink_to(ROOT / "artifacts")

    def run(self, page: str, python: bool = True) -> list[Output]:
        """Run a page's blocks in their order; an output a Python block, which may be left out."""
        names = self.names[page] = {"__name__": page}
        outputs: list[Output] = []
        with inside(self.folder):
            for block in blocks(text_of(page)):
                if block.language == "python":
                    outputs += [run_python(block.code, names, page)] if python else []
                else:
                    for words in commands(block.code):
                        self.run_command(words)
        return outputs

    def run_command(self, words: list[str]) -> None:
        """Run a line of ours, small, unless it ran before or is left out; RuntimeError if it
        fails."""
        line = tuple(words)
        if words[0] != "trm-interp" or line in self.ran or name_of(words) in TESTED_APART:
            return
        done = invoke([*words[1:], *small(words)])
        self.ran[line] = done.stdout
        if done.exit_code or not (done.stdout + done.stderr).strip():
            raise RuntimeError(f"{' '.join(words)}: exit status {done.exit_code}: {done.output}")
        if "--out" in words and name_of(words) not in ("figures", "compare"):
            out = Path(words[words.index("--out") + 1])
            if not out.exists():
                raise RuntimeError(f"{' '.join(words)}: wrote no {out}")


def invoke(words: list[str]) -> Any:
    """`trm-interp words...` in this process; an error that it does not handle is raised here."""
    from typer.testing import CliRunner

    from trm_interp.cli import app

    with patch("trm_interp.explore.serving.serve", lambda server: None):  # which is till Ctrl-C
        done = CliRunner().invoke(app, words)
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done


def pages() -> list[str]:
    """The pages of the documentation that are written by hand, in the order of the navigation."""
    text = (PAGES / "building" / "mkdocs.yml").read_text()
    named = dict.fromkeys(re.findall(r"([\w/-]+\.md)$", text, re.MULTILINE))
    return [page for page in named if (PAGES / page).exists()]


def text_of(page: str) -> str:
    """The Markdown of a page, which is the README's or lies in `docs`."""
    return (ROOT / page if page == "README.md" else PAGES / page).read_text()


def blocks(text: str) -> Iterator[Block]:
    """The Python and shell blocks of a page."""
    for match in FENCE.finditer(text):
        yield Block(match[1], match[2], match.end())


def commands(code: str) -> list[list[str]]:
    """Words of every line of a shell block, without comments.

    >>> commands("trm-interp eval --limit 3  # few\\n")
    [['trm-interp', 'eval', '--limit', '3']]
    """
    text = code.replace("\\\n", " ")
    lines = (shlex.split(line, comments=True) for line in text.splitlines() if line.strip())
    return [words for words in lines if words]


def name_of(words: list[str]) -> str:
    """The command of a line, such as "data make"."""
    return " ".join(words[1 : 3 if words[1] == "data" else 2])


def small(words: list[str]) -> list[str]:
    """The options that make a line small; which steps it keeps is its own matter.

    >>> small(["trm-interp", "collect", "--steps", "0-3"])
    ['--limit', '12']
    """
    given = SMALL.get(name_of(words), "").split()
    keeps = name_of(words) == "collect" and "--steps" in words
    return given[: given.index("--steps")] if keeps else given


def run_python(code: str, names: dict[str, Any], page: str) -> Output:
    """Execute a block in a namespace; its last line is shown where it is an expression."""
    tree, value = ast.parse(code, page), None
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    with redirect_stdout(io.StringIO()) as printed:
        exec(compile(tree, page, "exec"), names)
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), page, "eval"), names)
    return Output(printed.getvalue(), "" if value is None else as_html(value))


def as_html(value: Any) -> str:
    """A figure as a part of a page (plotly.js is the site's), a table as one, else its repr."""
    import pandas as pd
    import plotly.graph_objects as go

    if isinstance(value, go.Figure):
        return value.to_html(include_plotlyjs=False, full_html=False, config={"displaylogo": False})
    if isinstance(value, pd.DataFrame):  # the HTML of xarray needs a style sheet of its own
        return f'<div class="output">{value.to_html()}</div>'
    return f'<pre class="output">{escape(repr(value))}</pre>'


def with_outputs(text: str, outputs: list[Output]) -> str:
    """A page with the output of every Python block below it."""
    parts, at = [], 0
    python = [block for block in blocks(text) if block.language == "python"]
    for block, output in zip(python, outputs, strict=True):
        parts.append(text[at : block.end])
        at = block.end
        if output.text:
            parts.append(f"\n\n```text\n{output.text.rstrip()}\n```")
        if output.html:
            parts.append("\n\n" + output.html.replace("\n\n", "\n") + "\n")
    return "".join([*parts, text[at:]])


def save(outputs: dict[str, list[Output]], path: Path) -> None:
    """Keep what pages put out, for a build that executes nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({page: [asdict(o) for o in of] for page, of in outputs.items()}))


def saved(path: Path) -> dict[str, list[Output]]:
    """What `save` kept; nothing where there is no such file."""
    if not path.exists():
        return {}
    return {page: [Output(**o) for o in of] for page, of in json.loads(path.read_text()).items()}


@contextmanager
def inside(folder: Path) -> Iterator[None]:
    """Work in a folder for a while."""
    before = os.getcwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
