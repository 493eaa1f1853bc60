"""A search for people: its table, and boards with coloured cells."""

from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from trm_interp.search.selection import SHARES
from trm_interp.search.solve import Solution
from trm_interp.tasks.sudoku.grid import Grid, conflicts, shape_of

HEADINGS = ("baseline", "best Q", "vote", "vote by Q", "pass@K", "verified")
GIVEN, CHANGED, CONFLICT = "bold", "bold yellow", "on red"
BETWEEN = "    "  # boards side by side


def search_table(summary: dict[str, Any]) -> Table:
    """Shares of the puzzles after every step, in per cent."""
    table = Table(
        title=f"{summary['ckpt']} on {summary['n']} puzzles of {summary['puzzles']}, %",
        caption="95 % Wilson intervals over puzzles; steps count from 1",
    )
    for heading in ("step", *HEADINGS):
        table.add_column(heading, justify="right")
    for step in range(summary["steps"]):
        cells = []
        for name in SHARES:
            share, low, high = (
                100 * summary[f"{name}{end}"][step] for end in ("", "_low", "_high")
            )
            cells.append(f"{share:.1f} ({low:.0f}-{high:.0f})")
        table.add_row(str(step + 1), *cells)
    return table


def cost_line(summary: dict[str, Any]) -> str:
    """Network evaluations beside those of K trajectories that all run to the end."""
    spent, grid = summary["evaluations"], summary["evaluations_of_the_full_grid"]
    return (
        f"{spent:,} network evaluations, {spent / summary['n']:,.0f} a puzzle; "
        f"{spent / grid:.1%} of K {summary['k']} x {summary['steps']} steps"
    )


def board(grid: Grid, styles: list[str]) -> list[Text]:
    """Lines of a board (digits), a style for every cell, boxes set apart."""
    shape = shape_of(len(grid))
    lines: list[Text] = []
    for row in range(shape.side):
        if row and row % shape.box_rows == 0:
            dashes = "-" * (2 * shape.box_cols - 1)
            lines.append(Text("-+-".join([dashes] * shape.box_rows)))
        line = Text()
        for col in range(shape.side):
            if col:
                line.append(" | " if col % shape.box_cols == 0 else " ")
            cell = row * shape.side + col
            line.append(str(grid[cell] or "."), styles[cell])
        lines.append(line)
    return lines


def show_solution(solution: Solution, console: Console) -> None:
    """The board, then what is known about it; before it the trace, where there is one."""
    if solution.guesses is not None:
        show_trace(solution, console)
    styles = [GIVEN if given else "" for given in solution.puzzle]
    for line in board(solution.answer, styles):
        console.print(line)
    verdict = "confirmed by the rules" if solution.confirmed else "NOT confirmed by the rules"
    if solution.several:
        verdict += ", one of several solutions"
    console.print(
        f"line {solution.line}: {verdict}; confidence {solution.confidence:.1%}; "
        f"supervision steps: {solution.steps} (trajectory {solution.trajectory + 1} of "
        f"{solution.trajectories}); network evaluations in all: {solution.evaluations}",
        soft_wrap=True,
        highlight=False,
    )


def show_trace(solution: Solution, console: Console) -> None:
    """The guess after every H-cycle, those of a step side by side."""
    assert solution.guesses is not None and solution.guesses_q is not None
    legend = (
        Text("given ", GIVEN) + Text("changed", CHANGED) + Text(" ") + Text("in conflict", CONFLICT)
    )
    console.print(legend)
    before = solution.puzzle
    for step, (guesses, q) in enumerate(zip(solution.guesses, solution.guesses_q, strict=True)):
        boards, counts = [], []
        for guess in guesses:
            changed, clash = guess != before, conflicts(guess)
            boards.append(board(guess, _styles(solution.puzzle, changed, clash)))
            counts.append(f"{changed.sum()} changed, {clash.sum()} in conflict")
            before = guess
        console.print(
            f"step {step + 1}, confidence {1 / (1 + np.exp(-q[-1])):.1%}; cycle by cycle: "
            + "; ".join(counts),
            soft_wrap=True,
            highlight=False,
        )
        for lines in zip(*boards, strict=True):
            console.print(Text(BETWEEN).join(lines), soft_wrap=True)
        console.print()


def _styles(puzzle: Grid, changed: np.ndarray, clash: np.ndarray) -> list[str]:
    """Of every cell: a conflict is the background, so it shows on changed cells as well."""
    rows = zip(puzzle > 0, changed, clash, strict=True)
    return [
        " ".join(
            [CHANGED if is_changed else GIVEN if given else "", CONFLICT if is_clash else ""]
        ).strip()
        for given, is_changed, is_clash in rows
    ]
