"""JSON that lies is refused in one line: file, field, what was expected."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import msgspec
import pytest

from trm_interp.runtime.errors import UserError
from trm_interp.runtime.schema import read_json


@dataclass
class Part:
    file: str
    rows: Annotated[int, msgspec.Meta(ge=1, le=10)]


@dataclass
class Whole:
    name: str
    parts: list[Part] = field(default_factory=list)
    meta: dict[str, Any] = field(default_factory=dict)


def test_a_good_file_is_read(tmp_path: Path):
    file = tmp_path / "a.json"
    file.write_text('{"name": "x", "parts": [{"file": "f", "rows": 3}], "more": 1}')
    assert read_json(file, Whole) == Whole("x", [Part("f", 3)])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "damaged (Expecting value"),
        ('{"name": "x"', "damaged ("),
        (b"\xff\xfe\x00", "damaged ("),
        ("[" * 10**5, "damaged ("),
        ('{"name": ' + "9" * 5000 + "}", "damaged ("),
        ("null", "its content: Expected `object`, got `null`"),
        ("[1]", "its content: Expected `object`, got `array`"),
        ("{}", "its content: Object missing required field `name`"),
        ('{"name": 3}', "name: Expected `str`, got `int`"),
        ('{"name": "x", "parts": [{"file": "f"}]}', "parts[0]: Object missing required"),
        (
            '{"name": "x", "parts": [{"file": "f", "rows": 1e15}]}',
            "parts[0].rows: Expected `int`",
        ),
        (
            '{"name": "x", "parts": [{"file": "f", "rows": 99}]}',
            "parts[0].rows: Expected `int` <= 10",
        ),
    ],
)
def test_a_bad_one_is_told_in_one_line(tmp_path: Path, text: str | bytes, expected: str):
    file = tmp_path / "a.json"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError) as caught:
        read_json(file, Whole, advice="record again")
    line = str(caught.value)
    assert line.startswith(f"{file}") and expected in line and line.endswith(": record again")
    assert "\n" not in line and len(line) < 300 + len(str(file))


def test_size_and_kind_are_looked_at_first(tmp_path: Path):
    file = tmp_path / "big.json"
    with file.open("wb") as to:
        to.truncate(10**12)  # sparse
    with pytest.raises(UserError, match=r"big.json has 1000000 MB, more than such a file can"):
        read_json(file, Whole)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="a named pipe"):
        read_json(tmp_path / "pipe", Whole)
