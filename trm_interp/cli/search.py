"""The commands that search: settings in, one call, what came of it out."""

import json
from typing import Annotated, Any

import typer

from trm_interp.cli.options import AsJson, build, command, is_first_process, say
from trm_interp.search.config import PRESETS, SOLVE, SearchConfig, SearchRun, SolveConfig


def register(app: typer.Typer) -> None:
    """Add search and solve."""

    @command(
        app,
        "search",
        SearchRun,
        examples="""
        trm-interp search --ckpt artifacts/trm-sudoku6 \\
            --puzzles artifacts/data/sudoku6/test.txt --limit 100 --out runs/search.csv
        trm-interp search --ckpt CKPT --puzzles FILE --preset paper --json
        trm-interp search --ckpt CKPT --puzzles FILE --preset ptrm --stop q --adaptive --json
        torchrun --nproc-per-node 8 -m trm_interp search --ckpt CKPT --puzzles FILE --out t.csv
        """,
        overrides=(SearchConfig,),
    )
    def search(
        run: SearchRun,
        given: dict[str, Any],
        preset: Annotated[
            str | None, typer.Option(help=f"defaults of a published search: {', '.join(PRESETS)}")
        ] = None,
        json_: AsJson = False,
    ) -> None:
        """K trajectories a puzzle: best by Q, votes, pass@K and rule check, after every step."""
        from trm_interp.cli.tables import show
        from trm_interp.runtime.errors import UserError
        from trm_interp.runtime.progress import progress
        from trm_interp.search.run import search_file
        from trm_interp.search.show import cost_line, search_table

        if preset and preset not in PRESETS:
            raise UserError(f"--preset {preset}: there are {', '.join(PRESETS)}")
        config = build(SearchConfig, (PRESETS[preset] if preset else {}) | given)
        with progress("searching", "puzzles") as update:
            _, summary = search_file(run, config, say, update)
        if not is_first_process():
            return
        if json_:
            print(json.dumps(summary.to_json()))
        else:
            show(search_table(summary))
            print(cost_line(summary))
        if run.out:
            say(f"wrote {run.out}")

    @command(
        app,
        "solve",
        SolveConfig,
        examples="""
        trm-interp solve ".....5.1......1.26..35.1.6....5.2..."
        trm-interp solve puzzles.txt --json
        cat puzzles.txt | trm-interp solve - --trace
        """,
        overrides=(SearchConfig,),
        defaults=SOLVE,
    )
    def solve(config: SolveConfig, given: dict[str, Any], json_: AsJson = False) -> None:
        """Solve puzzles: the board, the confidence, the cost, and whether the rules confirm it.

        Searches symmetric copies with noise until a grid obeys the rules, 32 trajectories unless
        told otherwise.
        """
        from rich.console import Console

        from trm_interp.search.show import show_solution
        from trm_interp.search.solve import solve as run

        solutions = run(config, build(SearchConfig, SOLVE | given), say)
        if json_:
            puzzles = [solution.to_json() for solution in solutions]
            print(json.dumps({"n": len(puzzles), "puzzles": puzzles}))
            return
        console = Console(markup=False, emoji=False)
        for solution in solutions:
            show_solution(solution, console)
