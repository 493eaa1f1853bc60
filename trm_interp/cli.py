"""The `trm-interp` command: reads settings, makes one call, prints what came of it."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from trm_interp.core.config import PRESETS, TrainConfig, TRMConfig
from trm_interp.landscape.commands import register as register_landscape_commands
from trm_interp.options import (
    AsJson,
    Cells,
    build,
    command,
    how_to_go_on,
    is_first_process,
    say,
    with_errors_in_one_line,
)
from trm_interp.report.commands import register as register_report_commands
from trm_interp.sae.commands import register as register_sae_commands
from trm_interp.search.commands import register as register_search_commands
from trm_interp.settings import (
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
data = typer.Typer(help="Make, import, rate, check and download puzzles.", no_args_is_help=True)
app.add_typer(data, name="data")


@command(app, "quickstart", QuickstartConfig, examples="trm-interp quickstart")
def quickstart(config: QuickstartConfig) -> None:
    """Solve puzzles with the checkpoint that ships, record every state, draw the trajectories."""
    from trm_interp.quickstart import look

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
) -> None:
    """Accuracy at every supervision step, with 95 % Wilson intervals over puzzles."""
    from trm_interp.evaluate import evaluate as run
    from trm_interp.files import write_text
    from trm_interp.progress import progress
    from trm_interp.tables import accuracy_table, show

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
    from trm_interp.collect import collect as run
    from trm_interp.progress import progress

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
    from trm_interp.errors import UserError
    from trm_interp.training import fit, reporting

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
    from trm_interp.errors import UserError
    from trm_interp.info import describe, fault, lines

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
    from trm_interp.record import hook_names
    from trm_interp.sources import open_checkpoint

    def body() -> None:
        model = open_checkpoint(ckpt or default_checkpoint(), cells=cells).model
        print("\n".join(hook_names(model.config, steps)))

    with_errors_in_one_line(body)


@data.command("make")
def data_make(
    preset: Annotated[
        str, typer.Argument(help="sudoku4, sudoku6, sudoku9, sudoku6-hard or sudoku9-hard")
    ],
    seed: Annotated[int, typer.Option(help="same seed, same puzzles", min=0)] = 0,
    out: Annotated[Path | None, typer.Option(help="folder; default data/PRESET")] = None,
    train: Annotated[int | None, typer.Option(help="training puzzles", min=1)] = None,
    val: Annotated[int | None, typer.Option(help="validation puzzles", min=1)] = None,
    test: Annotated[int | None, typer.Option(help="test puzzles", min=1)] = None,
    workers: Annotated[
        int | None, typer.Option(help="threads for hard puzzles; default all cores", min=1)
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="go on with hard puzzles where a run was stopped")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace the folder")] = False,
) -> None:
    """Generate training, validation and test puzzles, no two of them symmetric copies.

    \b
    Examples:
    trm-interp data make sudoku6 --seed 0
    trm-interp data make sudoku9-hard --test 10000
    """
    from trm_interp.progress import progress
    from trm_interp.tasks.sudoku.presets import make_preset

    def body() -> None:
        folder = out or Path("data") / preset
        given = {"train": train, "val": val, "test": test}
        sizes = {split: n for split, n in given.items() if n is not None}
        with progress("drawing", "puzzles") as update:
            card = make_preset(preset, folder, seed, overwrite, update, sizes, resume, workers)
        for split, known in card["splits"].items():
            print(f"wrote {folder / known['file']} ({card[split]} puzzles)")
        print(f"wrote {folder / 'card.json'}")

    with_errors_in_one_line(body, how_to_go_on(overwrite) if preset.endswith("-hard") else "")


@data.command("check")
def data_check(
    files: Annotated[list[Path], typer.Argument(help="training, test, ... puzzles: two or more")],
    json_: AsJson = False,
) -> None:
    """Prove that splits are disjoint: no copies, no one-clue-less neighbours, no lineage in two.

    What is found, invalid and repeated puzzles included, is listed with its lines, and ends in exit
    status 2.

    \b
    Example:
    trm-interp data check artifacts/data/sudoku9-hard/train.csv artifacts/data/sudoku9-hard/test.csv
    """
    from trm_interp.errors import UserError
    from trm_interp.progress import progress
    from trm_interp.tables import check_lines
    from trm_interp.tasks.sudoku.splits import check

    def body() -> None:
        with progress("comparing", "puzzles") as update:
            found = check(files, say, update)
        print(json.dumps(found) if json_ else "\n".join(check_lines(found)))
        if not found["clean"]:
            raise UserError("these files are no clean splits of one data set")

    with_errors_in_one_line(body)


@data.command("import")
def data_import(
    source: Annotated[Path, typer.Argument(help="lines, Sudoku-Extreme's CSV, or a public folder")],
    out: Annotated[Path, typer.Option(help="file of puzzle,solution lines")],
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="leave out bad lines")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace the file")] = False,
) -> None:
    """Check every puzzle of a file, its uniqueness included, and write plain lines.

    \b
    Example:
    trm-interp data import sudoku-extreme/test.csv --out data/extreme/test.txt
    """
    from trm_interp.progress import progress
    from trm_interp.tasks.sudoku.presets import import_file

    def body() -> None:
        with progress("solving", "puzzles") as update:
            card = import_file(source, out, skip_bad, overwrite, update)
        for line in card["skipped"]:
            say(f"skipped {line}")
        print(f"wrote {out} ({card['n']} puzzles) and {out.with_suffix('.json')}")

    with_errors_in_one_line(body)


@data.command("rate")
def data_rate(
    source: Annotated[Path, typer.Argument(help="puzzles in any known form")],
    json_: AsJson = False,
    seed: Annotated[int, typer.Option(help="of the relabelings that are averaged")] = 0,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="leave out bad lines")] = False,
) -> None:
    """Rate every puzzle: CSV to standard output, or with --json a list of objects.

    \b
    Example:
    trm-interp data rate artifacts/data/sudoku6/test.txt > ratings.csv
    """
    from trm_interp.progress import progress
    from trm_interp.tables import ratings

    def body() -> None:
        with progress("rating", "puzzles") as update:
            table, skipped = ratings(source, seed, skip_bad, update)
        for line in skipped:
            say(f"skipped {line}")
        if json_:
            print(table.to_json(orient="records"))
        else:
            print(table.to_csv(index=False), end="")

    with_errors_in_one_line(body)


@data.command("download")
def data_download(
    name: Annotated[str, typer.Argument(help="sudoku-extreme")],
    out: Annotated[Path, typer.Option(help="folder")] = Path("data/sudoku-extreme"),
) -> None:
    """Fetch Sudoku-Extreme's CSV files from the Hugging Face hub.

    \b
    Example:
    trm-interp data download sudoku-extreme
    """
    from trm_interp.errors import UserError
    from trm_interp.tasks.sudoku.presets import download_sudoku_extreme

    def body() -> None:
        if name != "sudoku-extreme":
            raise UserError(f"{name}: only sudoku-extreme can be downloaded")
        for path in download_sudoku_extreme(out):
            print(f"wrote {path}")

    with_errors_in_one_line(body)


register_sae_commands(app)
register_landscape_commands(app)
register_search_commands(app)
register_report_commands(app)


def main() -> None:
    app()
