"""The `trm-interp` command: reads settings, makes one call, prints what came of it."""

import json
import sys
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated, Any

import typer

from trm_interp.cli.data import register as register_data_commands
from trm_interp.cli.options import (
    AsJson,
    Cells,
    build,
    command,
    how_to_go_on,
    is_first_process,
    say,
    with_errors_in_one_line,
)
from trm_interp.cli.report import register as register_report_commands
from trm_interp.cli.sae import register as register_sae_commands
from trm_interp.cli.search import register as register_search_commands
from trm_interp.cli.studies import register as register_landscape_commands
from trm_interp.core.config import PRESETS, TrainConfig, TRMConfig
from trm_interp.runtime.limits import at_most
from trm_interp.subjects.settings import (
    MOST_RECORDED,
    CollectConfig,
    EvalConfig,
    QuickstartConfig,
    RunConfig,
    default_checkpoint,
)

app = typer.Typer(
    help="Open up Tiny Recursive Models: train, run, record and look inside.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


@command(app, "quickstart", QuickstartConfig, examples="trm-interp quickstart")
def quickstart(config: QuickstartConfig) -> None:
    """Solve puzzles with the checkpoint that ships, record every state, draw the trajectories."""
    from trm_interp.report.quickstart import look

    look(config)


@command(
    app,
    "eval",
    EvalConfig,
    examples="""
    trm-interp eval --ckpt artifacts/trm-sudoku6 --puzzles artifacts/data/sudoku6/test.txt
    trm-interp eval --ckpt step_65104 --puzzles test.csv --steps 32 --json
    torchrun --nproc-per-node 8 -m trm_interp eval --ckpt step_65104 --puzzles test.csv
    """,
)
def evaluate(
    config: EvalConfig,
    json_: AsJson = False,
    csv: Annotated[Path | None, typer.Option(help="also write the table as CSV")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace that CSV file")] = False,
) -> None:
    """Accuracy at every supervision step, with 95 % Wilson intervals over puzzles."""
    from trm_interp.cli.tables import accuracy_table, show
    from trm_interp.runtime.files import require_apart, write_text
    from trm_interp.runtime.outputs import require_own_table
    from trm_interp.runtime.progress import progress
    from trm_interp.subjects.evaluate import COLUMNS
    from trm_interp.subjects.evaluate import evaluate as run

    if csv:
        require_apart(csv, puzzles=config.puzzles, ckpt=config.ckpt)
        require_own_table(csv, COLUMNS, overwrite)
    with progress("solving", "puzzles") as update:
        table, summary = run(config, say, update)
    if not is_first_process():
        return
    if csv:
        write_text(csv, table.to_csv(index=False))
    if json_:
        print(json.dumps(summary))
    else:
        show(accuracy_table(table, f"{summary['ckpt']} on {summary['puzzles']}"))
    if csv:
        say(f"wrote {csv}")


@command(
    app,
    "collect",
    CollectConfig,
    examples="""
    trm-interp collect --ckpt artifacts/trm-sudoku6 --puzzles artifacts/data/sudoku6/test.txt \\
        --out runs/states --limit 64
    trm-interp collect --ckpt CKPT --puzzles FILE --out runs/resid --sites z_L,resid \\
        --steps 0-3,15 --resume
    """,
)
def collect(config: CollectConfig) -> None:
    """Record states and activations of every network evaluation into an HDF5 store."""
    from trm_interp.recording.collect import collect as run
    from trm_interp.runtime.progress import progress

    with progress("recording", "puzzles") as update:
        out = run(config, say, update)
    if is_first_process():
        print(f"wrote {out} (look at it: trm-interp info {out})")


def _with_preset(preset: str | None, given: dict[str, Any]) -> tuple[dict[str, Any], TrainConfig]:
    """Model settings and training settings: what was given, over the preset, over the defaults."""
    named = PRESETS[preset] if preset else {}
    chosen = named | given
    in_model = {name: chosen.pop(name) for name in list(chosen) if name in _MODEL_FIELDS}
    build(TRMConfig, in_model)
    return in_model, build(TrainConfig, chosen)


_MODEL_FIELDS = TRMConfig.__dataclass_fields__


@command(
    app,
    "train",
    RunConfig,
    examples="""
    trm-interp data make sudoku6 --seed 0
    trm-interp train --train data/sudoku6/train.txt --val data/sudoku6/val.txt \\
        --out runs/mine --preset sudoku6
    trm-interp train --train T --val V --out runs/big --budget 22m --curriculum --decay cosine
    trm-interp train --train T --val V --out runs/big --budget 22m --curriculum --decay cosine \\
        --resume
    torchrun --nproc-per-node 2 -m trm_interp train --train T --val V --out runs/two
    """,
    overrides=(TRMConfig, TrainConfig),
    hide=("cells", "vocab"),
)
def train(
    run: RunConfig,
    given: dict[str, Any],
    preset: Annotated[
        str | None, typer.Option(help=f"defaults for a known run: {', '.join(PRESETS)}")
    ] = None,
) -> None:
    """Train a TRM on puzzle files: deep supervision, EMA, exact resume."""
    from trm_interp.runtime.errors import UserError
    from trm_interp.subjects.training import fit, reporting

    if preset and preset not in PRESETS:
        raise UserError(f"--preset {preset}: there are {', '.join(PRESETS)}")
    model, config = _with_preset(preset, given)
    with reporting(config) as report:
        trained = fit(run, model, config, report, say)
    at = trained.best.get("exact_at_step")
    score = f"best {at[-1]:.1%} exact of the validation puzzles" if at else "not validated yet"
    if is_first_process():
        print(f"wrote {trained.out} after {trained.steps} optimizer steps, {score}")
        if not trained.finished:
            say(f"stopped before the end: {how_to_go_on(run.overwrite)}")
    if not trained.finished:
        raise typer.Exit(130)


@app.command("info")
def info(
    path: Annotated[str, typer.Argument(help="a store or a checkpoint")],
    json_: AsJson = False,
    validate: Annotated[
        bool, typer.Option("--validate", help="read all of a store, with every checksum")
    ] = False,
    cells: Cells = None,
) -> None:
    """What a store or a checkpoint is. A store with a problem ends in exit status 2.

    \b
    Examples:
    trm-interp info artifacts/trm-sudoku6
    trm-interp info runs/states --json
    trm-interp info runs/states --validate
    """
    from trm_interp.recording.info import describe, fault, lines
    from trm_interp.runtime.errors import UserError

    def body() -> None:
        known = describe(path, validate, cells)
        print(json.dumps(known) if json_ else "\n".join(lines(known)))
        if problem := fault(known):
            raise UserError(problem)

    with_errors_in_one_line(body)


@app.command("hooks")
def hooks(
    ckpt: Annotated[str | None, typer.Option(help="checkpoint; default the one that ships")] = None,
    steps: Annotated[int, typer.Option(help="supervision steps of the run", min=1)] = 16,
    cells: Cells = None,
) -> None:
    """Names of all hook points of a run.

    \b
    Example:
    trm-interp hooks --steps 1
    """
    from trm_interp.recording.hooks import hook_names
    from trm_interp.subjects.opening import open_checkpoint

    def body() -> None:
        at_most("steps", steps, MOST_RECORDED)
        if not ckpt:
            say(f"taking {default_checkpoint()}")
        model = open_checkpoint(ckpt or default_checkpoint(), cells=cells).model
        for name in hook_names(model.config, steps):
            print(name)

    with_errors_in_one_line(body)


register_data_commands(app)
register_sae_commands(app)
register_landscape_commands(app)
register_search_commands(app)
register_report_commands(app)


def main() -> None:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # names of files need not be in its encoding
            stream.reconfigure(errors="backslashreplace")
    app()
