"""Public data folders that lie end in one line, before anything is allocated."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trm_interp.runtime.errors import UserError
from trm_interp.tasks.base import PuzzleError
from trm_interp.tasks.sudoku.dataset import load
from trm_interp.tasks.sudoku.grid import parse, to_tokens

SOLUTION = to_tokens(parse("1234341221434321"))[None]
INPUTS, LABELS, DATASET = "all__inputs.npy", "all__labels.npy", "dataset.json"


@pytest.fixture
def folder(tmp_path) -> Path:
    path = tmp_path / "data"
    path.mkdir()
    for name in (INPUTS, LABELS):
        np.save(path / name, SOLUTION)
    (path / DATASET).write_text(json.dumps({"seq_len": 16, "vocab_size": 6, "sets": ["all"]}))
    assert len(load(path)) == 1
    return path


@pytest.mark.parametrize(
    ("card", "problem"),
    [
        ("[]", "Expected `object`, got `array`"),
        ("null", "Expected `object`, got `null`"),
        ('{"seq_len": "16"}', "seq_len: Expected `int"),
        ('{"seq_len": 16.5}', "seq_len: Expected `int"),
        ('{"vocab_size": 5}', "says vocab_size 5, here 6"),
        ('{"vocab_size": 8}', "says vocab_size 8, here 6"),
        ('{"seq_len": ' + "9" * 5000 + "}", "damaged"),
        ("\xff\xfe", "damaged"),
        ("", "damaged"),
        ("[" * 10**5, "damaged"),
    ],
)
def test_cards(folder, card, problem):
    (folder / DATASET).write_bytes(card.encode("latin-1"))
    with pytest.raises(PuzzleError, match=f"{DATASET}.*{problem}") as caught:
        load(folder)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300 + len(str(folder))


def test_the_folder_of_nano_trm(folder):
    puzzle = SOLUTION.copy()
    puzzle[0, 0] = 1  # a blank

    def write(inputs: np.ndarray, labels: np.ndarray) -> None:
        np.save(folder / INPUTS, inputs)
        np.save(folder / LABELS, labels)

    (folder / DATASET).write_text('{"seq_len": 16, "vocab_size": 7}')
    write(puzzle + 1, SOLUTION + 1)  # 0 pad, 1 end, 2 blank, digit + 2
    puzzles = load(folder)
    assert (puzzles.inputs == puzzle).all() and (puzzles.labels == SOLUTION).all()
    for inputs, labels, message in (
        (puzzle, SOLUTION + 1, "input token 1 at 0; 2 to 6"),
        (puzzle * 0, SOLUTION + 1, "input token 0 at 0; 2 to 6"),
        (puzzle + 1, puzzle + 1, "label token 2 at 0; 3 to 6"),
        (puzzle + 2, SOLUTION + 1, "input token 7 at"),
    ):
        write(inputs, labels)
        with pytest.raises(PuzzleError, match=message):
            load(folder)


def header(shape: object, descr: str = "|u1") -> bytes:
    text = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape}, }}"
    padded = text.ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(padded).to_bytes(2, "little") + padded.encode()


@pytest.mark.parametrize(
    "content",
    [
        header((10**15, 16)),
        header((2**62, 16)) + bytes(16),
        header((10**30, 16)),
        header((-1, 16)) + bytes(16),
        header((1, 16), "|O") + bytes(16),
        header((1, 16), "<f4") + bytes(64),
        header((1, 16), "|S1") + bytes(16),
        header((16,)) + bytes(16),
        header(()) + bytes(16),
        header("(" * 90),
        b"",
        b"\x93NUMPY",
        b"PK\x03\x04",
        b"PK\x05\x06" + bytes(18),  # an empty zip archive
    ],
)
def test_arrays(folder, content):
    (folder / INPUTS).write_bytes(content)
    with pytest.raises(PuzzleError) as caught:
        load(folder)
    assert "\n" not in str(caught.value) and INPUTS in str(caught.value)


def test_what_a_header_claims_is_compared_with_the_file(folder):
    (folder / LABELS).write_bytes(header((10**15, 16)))
    with pytest.raises(PuzzleError, match="claims 16000000000000000 bytes, the file has 128"):
        load(folder)
    for name in (INPUTS, LABELS):
        (folder / name).write_bytes(header((0, 16)))
    with pytest.raises(PuzzleError, match="no puzzle in it"):
        load(folder)


def test_more_than_memory_holds_is_not_begun(folder):
    for name in (INPUTS, LABELS):
        with (folder / name).open("wb") as file:
            file.write(header((10**11, 16)))
            file.truncate(128 + 16 * 10**11)  # sparse: takes no room on disk
    with pytest.raises(UserError, match=r"would need .* of memory.*--limit"):
        load(folder)


def test_a_pipe_is_not_waited_for(folder):
    (folder / DATASET).unlink()
    os.mkfifo(folder / DATASET)
    with pytest.raises(UserError, match="named pipe"):
        load(folder)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from([INPUTS, LABELS, DATASET]), st.integers(0, 143), st.integers(0, 255))
def test_a_changed_byte_ends_in_puzzles_or_one_line(tmp_path_factory, name, at, value):
    folder = tmp_path_factory.mktemp("mutated")
    try:
        for array in (INPUTS, LABELS):
            np.save(folder / array, SOLUTION)
        (folder / DATASET).write_text('{"seq_len": 16, "vocab_size": 6}')
        content = bytearray((folder / name).read_bytes())
        content[at % len(content)] = value
        (folder / name).write_bytes(content)
        try:
            load(folder)
        except UserError as error:
            assert len(str(error)) < 300 + 2 * len(str(folder))
    finally:
        shutil.rmtree(folder)
