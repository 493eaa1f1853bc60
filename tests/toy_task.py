"""A task that the package does not have, registered when this module is imported.

Latin squares of three symbols: every letter A, B, C once in each row and column, no boxes. Nothing
is as in Sudoku: blanks are token 4 and the letters 1 to 3, a file begins with a line of its own,
grids are written `.BC|B..|...`, and a solution follows after an arrow. Whatever works with this
task learns tokens, grid, rules and drawing from the task.
"""

import hashlib
from itertools import permutations, product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trm_interp.core.counter import hash64
from trm_interp.runtime.files import replacing
from trm_interp.tasks.base import (
    Bools,
    Progress,
    PuzzleError,
    PuzzleSet,
    Task,
    Tokens,
    no_progress,
)
from trm_interp.tasks.registry import register_task
from trm_interp.tasks.symmetry import Symmetry

LETTERS, SIDE, CELLS = "ABC", 3, 9
PAD, BLANK = 0, 4
HEADER, ARROW = "latin squares", " -> "
ORDERS = np.array(list(permutations(range(SIDE))))


def _squares() -> NDArray[np.uint8]:
    """[12, 9] all Latin squares as tokens."""
    every = np.array([rows for rows in product(permutations((1, 2, 3)), repeat=SIDE)], np.uint8)
    good = [square for square in every if all(len(set(column)) == SIDE for column in square.T)]
    return np.stack(good).reshape(-1, CELLS)


SQUARES = _squares()


@register_task
class Latin(Task):
    """3x3 Latin squares. Tokens: 0 pad, 1 to 3 the letters, 4 blank."""

    family = "latin"
    can_prove = True
    hints = ("latin-square",)
    typed_as = "letters A to C, blanks as '.', rows set apart by '|'"

    name = "latin3"
    title = "3x3 Latin square"
    cells, vocab, grid = CELLS, 5, (SIDE, SIDE)
    tokens = ("pad", *LETTERS, ".")
    answer_tokens = (1, 2, 3)

    # files

    @classmethod
    def sizes(cls) -> list[Task]:
        return [cls()]

    @classmethod
    def recognises(cls, path: Path) -> bool:
        if not path.is_file():
            return False
        with path.open("rb") as file:
            return file.readline(80).strip() == HEADER.encode()

    @classmethod
    def load(
        cls,
        path: str | Path,
        skip_bad: bool = False,
        limit: int | None = None,
        progress: Progress = no_progress,
        several: bool = False,
    ) -> PuzzleSet:
        content = Path(path).read_bytes()
        sha256 = {Path(path).name: hashlib.sha256(content).hexdigest()}
        lines = content.decode().splitlines()
        return cls._read(lines, str(path), sha256, skip_bad, limit, several)

    @classmethod
    def load_text(
        cls, text: str, name: str, skip_bad: bool = False, several: bool = False
    ) -> PuzzleSet:
        sha256 = {name: hashlib.sha256(text.encode()).hexdigest()}
        return cls._read(text.splitlines(), name, sha256, skip_bad, None, several)

    @classmethod
    def _read(
        cls,
        lines: list[str],
        source: str,
        sha256: dict[str, str],
        skip_bad: bool,
        limit: int | None,
        several: bool,
    ) -> PuzzleSet:
        rows: list[tuple[Tokens, Tokens, int]] = []
        bad: list[str] = []
        numbered = [(at, line) for at, line in enumerate(lines, 1) if line and line != HEADER]
        for at, line in numbered[:limit]:
            puzzle, _, solution = line.partition(ARROW)
            try:
                inputs = _parse(puzzle)
                answers = _solutions(inputs)
                if solution:
                    answers = answers[(answers == _parse(solution)).all(1)]
                if not len(answers) or (len(answers) > 1 and not several):
                    raise ValueError(f"{len(answers) or 'no'} solutions")
                rows.append((inputs, answers[0], at))
            except ValueError as error:
                bad.append(f"line {at}: {error}")
        if bad and not skip_bad:
            raise PuzzleError(f"{source}: {bad[0]}")
        if not rows:
            raise PuzzleError(f"{source}: no puzzle in it")
        inputs, labels, places = zip(*rows, strict=True)
        at_lines = np.array(places, np.int64)
        return PuzzleSet(
            cls(), np.stack(inputs), np.stack(labels), at_lines, source, sha256, tuple(bad)
        )

    @classmethod
    def typed(cls, text: str) -> str | None:
        return text if set(text) <= set(f"{LETTERS}.|") and text.count("|") == SIDE - 1 else None

    @classmethod
    def save(cls, path: str | Path, puzzles: PuzzleSet) -> str:
        task = puzzles.task
        pairs = zip(puzzles.inputs, puzzles.labels, strict=True)
        lines = [HEADER, *(f"{task.text(x)}{ARROW}{task.text(y)}" for x, y in pairs)]
        content = "".join(f"{line}\n" for line in lines).encode()
        with replacing(Path(path)) as temporary:
            temporary.write_bytes(content)
        return hashlib.sha256(content).hexdigest()

    # tokens and symmetries

    def asked(self, inputs: Tokens) -> Bools:
        return inputs == BLANK

    def symmetry(self, keys: Tensor) -> Symmetry:
        draws = hash64(keys[:, None], torch.arange(3, device=keys.device)) % len(ORDERS)
        rows, columns, letters = torch.from_numpy(ORDERS).to(keys.device)[draws].unbind(1)
        cells = (rows[:, :, None] * SIDE + columns[:, None, :]).flatten(1)
        ends = torch.tensor([[PAD, BLANK]], device=keys.device).expand(len(keys), -1)
        return Symmetry(cells, torch.cat([ends[:, :1], letters + 1, ends[:, 1:]], dim=1))

    def class_keys(self, inputs: Tokens) -> NDArray[np.uint64]:
        images = []
        for rows, columns, letters in product(ORDERS, repeat=3):
            moved = inputs[:, (rows[:, None] * SIDE + columns).ravel()]
            images.append(np.array([PAD, *(letters + 1), BLANK])[moved] @ 5 ** np.arange(CELLS))
        return np.min(images, axis=0).astype(np.uint64)

    # answers

    def violations(self, answers: Tokens) -> dict[str, Bools]:
        square = answers.reshape(*answers.shape[:-1], SIDE, SIDE)
        is_letter = (square > PAD) & (square < BLANK)
        same_row = square[..., :, :, None] == square[..., :, None, :]
        same_column = square[..., :, None, :] == square[..., None, :, :]  # [*, row, other, column]
        row = (same_row.sum(-1) > 1) & is_letter
        column = (same_column.sum(-2) > 1) & is_letter
        return {"row": row.reshape(answers.shape), "column": column.reshape(answers.shape)}

    def has_several_solutions(self, inputs: Tokens) -> Bools:
        return np.array([len(_solutions(one)) > 1 for one in inputs])

    # facts, ratings, drawing

    def places(self) -> dict[str, NDArray[np.int64]]:
        row, column = np.divmod(np.arange(CELLS), SIDE)
        return {"row": row, "column": column}

    def candidates(self, inputs: Tokens) -> tuple[tuple[str, ...], Bools]:
        square, can = inputs.reshape(SIDE, SIDE), np.ones((CELLS, SIDE), bool)
        for cell, token in enumerate(inputs):
            row, column = divmod(cell, SIDE)
            seen = np.concatenate([square[row], square[:, column]])
            can[cell] = ~np.isin([1, 2, 3], seen if token == BLANK else [])
            if token != BLANK:
                can[cell] = np.arange(1, 4) == token
        return tuple(LETTERS), can

    def board_facts(self, inputs: Tokens, labels: Tokens) -> dict[str, Bools]:
        return {"single": self.asked(inputs) & (self.candidates(inputs)[1].sum(1) == 1)}

    def ratings(self) -> tuple[str, ...]:
        return ("blanks",)

    def rate(
        self, puzzles: PuzzleSet, seed: int = 0, progress: Progress = no_progress
    ) -> dict[str, NDArray[Any]]:
        progress(len(puzzles), len(puzzles))
        return {"blanks": self.asked(puzzles.inputs).sum(1)}

    def text(self, tokens: Tokens) -> str:
        cells = "".join(LETTERS[token - 1] if 0 < token < BLANK else "." for token in tokens)
        return "|".join(cells[i : i + SIDE] for i in range(0, CELLS, SIDE))

    def identifiers(self, puzzles: PuzzleSet) -> NDArray[np.int64]:
        """By the line, for models with an embedding for every puzzle of three."""
        return puzzles.lines % 3

    def glyphs(self, tokens: Tokens) -> NDArray[np.str_]:
        return np.array(["", *LETTERS, ""])[tokens]


def _parse(text: str) -> Tokens:
    rows = text.strip().split("|")
    if [len(row) for row in rows] != [SIDE] * SIDE or not set(text.strip()) <= set(f"{LETTERS}.|"):
        raise ValueError(f"{text[:20]!r} is no square of {LETTERS}, dots and bars")
    tokens = [LETTERS.index(cell) + 1 if cell != "." else BLANK for cell in "".join(rows)]
    return np.array(tokens, np.uint8)


def _solutions(inputs: Tokens) -> NDArray[np.uint8]:
    return SQUARES[((inputs == BLANK) | (inputs == SQUARES)).all(1)]


def latin_puzzles(n: int, seed: int = 0, blanks: int = 4) -> PuzzleSet:
    """Squares with up to so many blanks, each with one solution."""
    rng = np.random.default_rng(seed)
    inputs: list[Tokens] = []
    while len(inputs) < n:
        puzzle = SQUARES[rng.integers(len(SQUARES))].copy()
        puzzle[rng.permutation(CELLS)[: rng.integers(1, blanks + 1)]] = BLANK
        if len(_solutions(puzzle)) == 1:
            inputs.append(puzzle)
    labels = np.stack([_solutions(one)[0] for one in inputs])
    return PuzzleSet(Latin(), np.stack(inputs), labels, np.arange(n) + 2, "latin", {})
