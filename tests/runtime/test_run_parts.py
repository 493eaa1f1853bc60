"""Parts of a run as files: read if they are what was saved, else computed again."""

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trm_interp.runtime.errors import UserError
from trm_interp.runtime.outputs import mark
from trm_interp.runtime.runs import Run

IDENTITY = "identity.json"
SHAPES = {"a": (2, 3), "b": (2,)}
IDENTITY_NOW = {"seed": 0, "radius": np.float32(0.5)}


def compute() -> dict[str, np.ndarray]:
    return {"a": np.arange(6).reshape(2, 3), "b": np.array([True, False])}


def archive(**arrays: Any) -> bytes:
    to = io.BytesIO()
    np.savez(to, **arrays)
    return to.getvalue()


def bomb() -> bytes:
    to = io.BytesIO()
    with zipfile.ZipFile(to, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("a.npy", bytes(10**6))
    return to.getvalue()


DAMAGED = {
    "empty": b"",
    "text": b"no archive",
    "truncated": archive(**compute())[:-40],
    "flipped": archive(**compute()).replace(b"\x05", b"\x06"),
    "other arrays": archive(a=compute()["a"], c=np.zeros(2)),
    "other shapes": archive(a=np.zeros((3, 2)), b=np.zeros(2)),
    "text in arrays": archive(a=np.full((2, 3), "x"), b=np.zeros(2)),
    "objects": archive(a=np.full((2, 3), None), b=np.zeros(2)),
    "bomb": bomb(),
}


def opened(out: Path, tell: Callable[[str], None] = print, **more: Any) -> Run:
    names = ("*.csv", "parts/")
    identity = {"identity": IDENTITY_NOW | more, "identity_file": "parts/identity.json"}
    return Run(out, "basins", names, **identity, resume=True, tell=tell)


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_part_is_computed_again(tmp_path: Path, damage: str):
    lines: list[str] = []
    with opened(tmp_path) as run:
        run.part("x/1", SHAPES, compute)
    file = tmp_path / "parts" / "x" / "1.npz"
    file.write_bytes(DAMAGED[damage])
    with opened(tmp_path, lines.append) as run:
        arrays = run.part("x/1", SHAPES, compute)
    assert arrays["a"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert lines == [f"{file} is damaged: computing it again"]

    def fails() -> Any:
        raise AssertionError("it is there")

    with opened(tmp_path) as run:
        assert run.part("x/1", SHAPES, fails)["b"].tolist() == [True, False]


@pytest.mark.parametrize("text", ["", "[]", "null", "{", "\xff", "3"])
def test_a_damaged_identity_is_one_line(tmp_path: Path, text: str):
    with opened(tmp_path):
        pass
    (tmp_path / "parts" / IDENTITY).write_text(text, encoding="latin-1")
    with pytest.raises(UserError, match=IDENTITY) as error, opened(tmp_path):
        pass
    assert len(str(error.value)) < 300 + len(str(tmp_path))


def test_parts_of_another_run_or_of_nobody_are_left_alone(tmp_path: Path):
    with opened(tmp_path):
        pass
    with (
        pytest.raises(UserError, match=r"is of another run: seed \(0 there, 1 now\)"),
        opened(tmp_path, seed=1),
    ):
        pass
    mark(tmp_path / "foreign", "basins")
    (tmp_path / "foreign" / "parts").mkdir()
    with (
        pytest.raises(UserError, match="parts was not made by `basins`"),
        opened(tmp_path / "foreign"),
    ):
        pass
