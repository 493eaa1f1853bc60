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
MARKS = " *!#"  # after a cell where there are no colours: nothing, changed, in conflict, both
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


def board(grid: Grid, styles: list[str], marks: str = "") -> list[Text]:
    """Lines of a board (digits), a style for every cell, boxes set apart.

    `marks`: a character after every cell, where there would else be a space.
    """
    shape = shape_of(len(grid))
    lines: list[Text] = []
    for row in range(shape.side):
        if row and row % shape.box_rows == 0:
            dashes = "-+-".join(["-" * (2 * shape.box_cols - 1)] * shape.box_rows)
            lines.append(Text(dashes + (" " if marks else "")))
        line = Text()
        for col in range(shape.side):
            cell = row * shape.side + col
            if col and col % shape.box_cols == 0:
                line.append("| ")
            line.append(str(grid[cell] or "."), styles[cell])
            if marks or col < shape.side - 1:
                line.append(marks[cell] if marks else " ")
        lines.append(line)
    return lines


def show_solution(solution: Solution, console: Console) -> None:
    """The board, then what is known about it; before it the trace, where there is one.

    Of an answer that breaks the rules that is said first, and after it comes what can be kept.
    """
    if solution.guesses is not None:
        show_trace(solution, console)
    at = f"line {solution.line}"
    givens = [GIVEN if given else "" for given in solution.puzzle]
    if solution.several:
        _say(console, f"{at}: the puzzle has several solutions")
    if solution.confirmed:
        _show(console, board(solution.answer, givens))
    else:
        wrong = broken(solution.puzzle, solution.answer)
        _say(console, f"{at}: no solution found; this grid breaks the rules in {wrong.sum()} cells")
        unchanged = np.zeros_like(wrong)
        _show(console, _marked(solution.puzzle, solution.answer, unchanged, wrong, console))
        kept = np.count_nonzero(solution.partial)
        _say(console, f"{at}: of its {wrong.size} cells {kept} can be completed to a solution:")
        _show(console, board(solution.partial, givens))
    verdict = "confirmed by the rules" if solution.confirmed else "NOT confirmed by the rules"
    if solution.several and solution.confirmed:
        verdict += ", one of several solutions"
    _say(
        console,
        f"{at}: {verdict}; confidence {solution.confidence:.1%}; "
        f"supervision steps: {solution.steps} (trajectory {solution.trajectory + 1} of "
        f"{solution.trajectories}); network evaluations in all: {solution.evaluations}",
    )


def broken(puzzle: Grid, answer: Grid) -> np.ndarray:
    """[cell] bool: blank, another digit than is given, or in conflict with another cell."""
    return (answer == 0) | ((puzzle > 0) & (answer != puzzle)) | conflicts(answer)


def show_trace(solution: Solution, console: Console) -> None:
    """The guess after every H-cycle, those of a step side by side."""
    assert solution.guesses is not None and solution.guesses_q is not None
    console.print(legend(console))
    before = solution.puzzle
    for step, (guesses, q) in enumerate(zip(solution.guesses, solution.guesses_q, strict=True)):
        boards, counts = [], []
        for guess in guesses:
            changed, clash = guess != before, conflicts(guess)
            boards.append(_marked(solution.puzzle, guess, changed, clash, console))
            counts.append(f"{changed.sum()} changed, {clash.sum()} in conflict")
            before = guess
        _say(
            console,
            f"step {step + 1}, confidence {1 / (1 + np.exp(-q[-1])):.1%}; cycle by cycle: "
            + "; ".join(counts),
        )
        for lines in zip(*boards, strict=True):
            console.print(Text(BETWEEN).join(lines), soft_wrap=True)
        console.print()


def legend(console: Console) -> Text:
    """What colours mean, or the marks that stand for them where there are none."""
    if _has_colours(console):
        cells = Text("given ", GIVEN) + Text("changed", CHANGED)
        return cells + Text(" ") + Text("in conflict", CONFLICT)
    changed, clash, both = MARKS[1:]
    return Text(f"{changed} changed, {clash} in conflict, {both} both")


def _say(console: Console, line: str) -> None:
    console.print(line, soft_wrap=True, highlight=False, markup=False)


def _show(console: Console, lines: list[Text]) -> None:
    for line in lines:
        console.print(line)


def _has_colours(console: Console) -> bool:
    return console.color_system is not None and not console.no_color


def _marked(
    puzzle: Grid, grid: Grid, changed: np.ndarray, clash: np.ndarray, console: Console
) -> list[Text]:
    """A board whose cells are coloured, or marked where there are no colours."""
    if _has_colours(console):
        return board(grid, _styles(puzzle, changed, clash))
    marks = "".join(MARKS[at] for at in (changed + 2 * clash).tolist())
    return board(grid, [""] * len(grid), marks)


def _styles(puzzle: Grid, changed: np.ndarray, clash: np.ndarray) -> list[str]:
    """Of every cell: a conflict is the background, so it shows on changed cells as well."""
    rows = zip(puzzle > 0, changed, clash, strict=True)
    return [
        " ".join(
            [CHANGED if is_changed else GIVEN if given else "", CONFLICT if is_clash else ""]
        ).strip()
        for given, is_changed, is_clash in rows
    ]
