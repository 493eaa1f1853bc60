"""The commands on puzzle files: settings in, one call, what came of it out."""

import json
from pathlib import Path
from typing import Annotated

import typer

from trm_interp.cli.options import AsJson, how_to_go_on, say, with_errors_in_one_line


def register(app: typer.Typer) -> None:
    """Add data make, check, import, rate and download."""
    data = typer.Typer(help="Make, import, rate, check and download puzzles.", no_args_is_help=True)
    app.add_typer(data, name="data")

    @data.command("make")
    def data_make(
        preset: Annotated[
            str, typer.Argument(help="sudoku4, sudoku6, sudoku9, sudoku6-hard or sudoku9-hard")
        ],
        seed: Annotated[int, typer.Option(help="same seed, same puzzles")] = 0,
        out: Annotated[Path | None, typer.Option(help="folder; default data/PRESET")] = None,
        train: Annotated[int | None, typer.Option(help="training puzzles")] = None,
        val: Annotated[int | None, typer.Option(help="validation puzzles")] = None,
        test: Annotated[int | None, typer.Option(help="test puzzles")] = None,
        workers: Annotated[
            int | None, typer.Option(help="threads for hard puzzles; default all cores")
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
        from trm_interp.runtime.progress import progress
        from trm_interp.tasks.sudoku.forge.presets import make_preset

        def body() -> None:
            folder = out or Path("data") / preset
            given = {"train": train, "val": val, "test": test}
            sizes = {split: n for split, n in given.items() if n is not None}
            with progress("drawing", "puzzles") as update:
                card = make_preset(preset, folder, seed, overwrite, update, sizes, resume, workers)
            for split, known in card["splits"].items():
                print(f"wrote {folder / known['file']} ({card[split]} puzzles)")
            print(f"wrote {folder / 'card.json'}")

        # --overwrite, of the data set, stays when its build is resumed
        with_errors_in_one_line(body, how_to_go_on(overwrite) if preset.endswith("-hard") else "")

    @data.command("check")
    def data_check(
        files: Annotated[list[Path], typer.Argument(help="training, test, ... puzzles")],
        json_: AsJson = False,
    ) -> None:
        """Prove that splits are disjoint: no copies, no one-clue-less neighbours, no lineage twice.

        What is found, invalid and repeated puzzles included, is listed with its lines, and ends in
        exit status 2. One file is checked by itself.

        \b
        Example:
        trm-interp data check artifacts/data/sudoku6/train.txt artifacts/data/sudoku6/test.txt
        """
        from trm_interp.cli.tables import check_lines
        from trm_interp.runtime.errors import UserError
        from trm_interp.runtime.progress import progress
        from trm_interp.tasks.sudoku.splits import check

        def body() -> None:
            if len(files) == 1:
                say(f"{files[0]}: checked by itself; name two files or more to compare splits")
            with progress("comparing", "puzzles") as update:
                found = check(files, say, update)
            print(json.dumps(found) if json_ else "\n".join(check_lines(found)))
            if not found["clean"]:
                raise UserError("these files are no clean splits of one data set")

        with_errors_in_one_line(body)

    @data.command("import")
    def data_import(
        source: Annotated[Path, typer.Argument(help="lines, grids, CSV, or a public folder")],
        out: Annotated[Path, typer.Option(help="file of puzzle,solution lines")],
        skip_bad: Annotated[bool, typer.Option("--skip-bad", help="leave out bad lines")] = False,
        overwrite: Annotated[bool, typer.Option("--overwrite", help="replace the file")] = False,
    ) -> None:
        """Check every puzzle of a file, its uniqueness included, and write plain lines.

        \b
        Example:
        trm-interp data import sudoku-extreme/test.csv --out data/extreme/test.txt
        """
        from trm_interp.runtime.progress import progress
        from trm_interp.tasks.sudoku.forge.presets import import_file

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
        from trm_interp.cli.tables import ratings
        from trm_interp.runtime.progress import progress

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
        from trm_interp.runtime.errors import UserError
        from trm_interp.tasks.sudoku.forge.presets import download_sudoku_extreme

        def body() -> None:
            if name != "sudoku-extreme":
                raise UserError(f"{name}: only sudoku-extreme can be downloaded")
            for path in download_sudoku_extreme(out):
                print(f"wrote {path}")

        with_errors_in_one_line(body)
