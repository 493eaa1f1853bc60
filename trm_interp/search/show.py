"""Solutions for people: boards with coloured cells."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console
from rich.text import Text

from trm_interp.tasks.base import Task

if TYPE_CHECKING:
    from trm_interp.search.solve import Solution

GIVEN, CHANGED, CONFLICT = "bold", "bold yellow", "on red"
MARKS = " *!#"  # after a cell, without colours: nothing, changed, in conflict, both
DARK = 60  # brightness, of 255
BETWEEN = "    "  # boards side by side


def board(task: Task, tokens: np.ndarray, styles: list[str], marks: str = "") -> list[Text]:
    """Lines of a board (tokens [cell]), a style for every cell.

    Behind a cell whose style has no background is the task's colour of its token. `marks`: a
    character after every cell instead of a space.
    """
    if colours := task.colours():
        styles = [
            style if " on " in f" {style}" else f"{style} {_behind(colours[token])}".strip()
            for style, token in zip(styles, tokens.tolist(), strict=True)
        ]
    return [
        Text.assemble(*((piece, "" if cell is None else styles[cell]) for piece, cell in line))
        for line in task.drawing(tokens, marks)
    ]


def _behind(colour: str) -> str:
    """The style of a background; with white characters on one that black ones vanish on."""
    if not colour:
        return ""
    red, green, blue = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
    is_dark = 0.21 * red + 0.72 * green + 0.07 * blue < DARK
    return f"{'white ' if is_dark else ''}on {colour}"


@dataclass(frozen=True)
class Board:
    """A solution as it is printed."""

    solution: Solution

    def show_on(self, console: Console) -> None:
        """Print it."""
        show_solution(self.solution, console)


def show_solution(solution: Solution, console: Console) -> None:
    """Print the board and a line about it, after the trace if there is one.

    An answer that breaks the rules is announced as such, and followed by the part of it that can be
    completed.
    """
    if solution.guesses is not None:
        show_trace(solution, console)
    at, task = f"line {solution.line}", solution.task
    givens = [GIVEN if given else "" for given in _is_given(solution)]
    if solution.several:
        _print(console, f"{at}: the puzzle has several solutions")
    if solution.confirmed:
        _show(console, board(task, solution.answer, givens))
    else:
        wrong = solution.broken
        _print(
            console, f"{at}: no solution found; this grid breaks the rules in {wrong.sum()} cells"
        )
        unchanged = np.zeros_like(wrong)
        _show(console, _marked(solution, solution.answer, unchanged, wrong, console))
        kept = solution.kept.sum()
        _print(console, f"{at}: of its {wrong.size} cells {kept} can be completed to a solution:")
        _show(console, board(task, solution.partial, givens))
    verdict = "confirmed by the rules" if solution.confirmed else "NOT confirmed by the rules"
    if solution.several and solution.confirmed:
        verdict += ", one of several solutions"
    _print(
        console,
        f"{at}: {verdict}; confidence {solution.confidence:.1%}; "
        f"supervision steps: {solution.steps} (trajectory {solution.trajectory + 1} of "
        f"{solution.trajectories}); network evaluations in all: {solution.evaluations}",
    )


def show_trace(solution: Solution, console: Console) -> None:
    """The guess after every H-cycle, those of a step side by side."""
    assert solution.guesses is not None and solution.guesses_q is not None
    console.print(legend(console))
    before, task = solution.puzzle, solution.task
    for step, (guesses, q) in enumerate(zip(solution.guesses, solution.guesses_q, strict=True)):
        boards, counts = [], []
        for guess in guesses:
            changed, clash = _differ(task, guess, before), _wrong(solution, guess)
            boards.append(_marked(solution, guess, changed, clash, console))
            counts.append(f"{changed.sum()} changed, {clash.sum()} in conflict")
            before = guess
        _print(
            console,
            f"step {step + 1}, confidence {1 / (1 + np.exp(-q[-1])):.1%}; cycle by cycle: "
            + "; ".join(counts),
        )
        for row in zip(*boards, strict=True):
            console.print(Text(BETWEEN).join(row), soft_wrap=True)
        console.print()


def legend(console: Console) -> Text:
    """What the colours mean, or the marks that replace them on a terminal without colours."""
    if _has_colours(console):
        cells = Text("given ", GIVEN) + Text("changed", CHANGED)
        return cells + Text(" ") + Text("in conflict", CONFLICT)
    changed, clash, both = MARKS[1:]
    return Text(f"{changed} changed, {clash} in conflict, {both} both")


def _wrong(solution: Solution, guess: np.ndarray) -> np.ndarray:
    """[cell]: filled cells of a guess that change a given or take part in breaking a rule."""
    broken = solution.task.verify(solution.puzzle[None], guess[None]).broken[0]
    return broken & (solution.task.glyphs(guess) != "")


def _is_given(solution: Solution) -> np.ndarray:
    return ~solution.task.asked(solution.puzzle)


def _differ(task: Task, tokens: np.ndarray, others: np.ndarray) -> np.ndarray:
    """[cell]: where two boards look different; a pad looks like a blank."""
    return task.glyphs(tokens) != task.glyphs(others)


def _print(console: Console, line: str) -> None:
    console.print(line, soft_wrap=True, highlight=False, markup=False)


def _show(console: Console, rows: list[Text]) -> None:
    for row in rows:
        console.print(row)


def _has_colours(console: Console) -> bool:
    return console.color_system is not None and not console.no_color


def _marked(
    solution: Solution, tokens: np.ndarray, changed: np.ndarray, clash: np.ndarray, console: Console
) -> list[Text]:
    """A board whose cells are coloured, or marked on a terminal without colours."""
    if _has_colours(console):
        styles = cell_styles(_is_given(solution), changed, clash)
        return board(solution.task, tokens, styles)
    marks = "".join(MARKS[at] for at in (changed + 2 * clash).tolist())
    return board(solution.task, tokens, [""] * len(tokens), marks)


def cell_styles(given: np.ndarray, changed: np.ndarray, clash: np.ndarray) -> list[str]:
    """Of every cell: a conflict is the background, so it shows on changed cells as well."""
    return [
        " ".join(
            [CHANGED if is_changed else GIVEN if is_given else "", CONFLICT if is_clash else ""]
        ).strip()
        for is_given, is_changed, is_clash in zip(given, changed, clash, strict=True)
    ]
