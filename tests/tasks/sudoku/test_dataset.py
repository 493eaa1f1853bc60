import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from sudoku_oracles import is_solution

from trm_interp.runtime.errors import UserError
from trm_interp.tasks.base import PuzzleError, PuzzleSet
from trm_interp.tasks.sudoku.canonical import class_keys
from trm_interp.tasks.sudoku.dataset import load, save_lines
from trm_interp.tasks.sudoku.forge import presets
from trm_interp.tasks.sudoku.forge.importing import download_sudoku_extreme, import_file
from trm_interp.tasks.sudoku.forge.presets import (
    PRESETS,
    Preset,
    make_preset,
)
from trm_interp.tasks.sudoku.grid import from_tokens, parse, to_tokens


def digits(puzzles):
    """Puzzles and solutions as digits, 0 for a blank."""
    return from_tokens(puzzles.inputs), from_tokens(puzzles.labels)


A, A_SOLVED = ".3....1.3......2", "1324241332414132"
B, B_SOLVED = "1234....2....32.", "1234341221434321"
TWO = "12343412........"  # rows 3 and 4: 2143 4321, 2341 4123 and others
NONE = "123....4........"  # the fourth cell needs a 4, which its column and box have


@pytest.fixture
def file(tmp_path):
    """Write a text file, its path."""

    def write(*lines: str, name: str = "puzzles.txt") -> Path:
        path = tmp_path / name
        path.write_text("\n".join(lines) + "\n")
        return path

    return write


@pytest.fixture(scope="session")
def extreme() -> Path:
    """Shared puzzles of Sudoku-Extreme's kind, which are no part of the repository."""
    path = Path(__file__).parents[3].parent / "shared" / "puzzles" / "extreme_test.csv"
    if not path.exists():
        pytest.skip("no shared puzzles next to the repository")
    return path


# Reading --------------------------------------------------------------------------------------


def test_lines_with_comments_blanks_and_solutions(file):
    path = file("# 4x4", "", f"  {A},{A_SOLVED}", A.replace(".", "0") + "," + A_SOLVED, "")
    puzzles = load(path)
    assert len(puzzles) == 2
    assert puzzles.task.grid[0] == 4
    assert puzzles.lines.tolist() == [3, 4]
    assert (digits(puzzles)[0] == parse(A)).all()
    assert (digits(puzzles)[1] == parse(A_SOLVED)).all()
    assert (puzzles.inputs == to_tokens(parse(A))).all() and puzzles.inputs.dtype == np.uint8
    assert (puzzles.labels == to_tokens(parse(A_SOLVED))).all()
    assert puzzles.source == str(path) and puzzles.skipped == ()
    assert puzzles.sha256 == {path.name: hashlib.sha256(path.read_bytes()).hexdigest()}


def test_missing_solutions_are_solved(file):
    puzzles = load(file(A, f"{B},{B_SOLVED}", A))
    assert (
        digits(puzzles)[1] == np.stack([parse(s) for s in (A_SOLVED, B_SOLVED, A_SOLVED)])
    ).all()


def test_windows_line_ends_and_byte_order_mark(tmp_path):
    path = tmp_path / "dos.txt"
    path.write_bytes(b"\xef\xbb\xbf" + f"{A},{A_SOLVED}\r\n{B},{B_SOLVED}\r\n".encode())
    assert load(path).lines.tolist() == [1, 2]


def test_sudoku_extreme_csv(file):
    rows = [f'"kaggle",{A},{A_SOLVED},0', f"17_clue,{B},{B_SOLVED},12"]
    puzzles = load(file("source,question,answer,rating", *rows, name="train.csv"))
    assert puzzles.lines.tolist() == [2, 3]
    assert (digits(puzzles)[1] == np.stack([parse(A_SOLVED), parse(B_SOLVED)])).all()


def write_folder(path: Path, inputs: np.ndarray, labels: np.ndarray, **card) -> Path:
    path.mkdir(parents=True)
    np.save(path / "all__inputs.npy", inputs)
    np.save(path / "all__labels.npy", labels)
    (path / "dataset.json").write_text(json.dumps({"seq_len": 16, "vocab_size": 6, **card}))
    return path


def test_public_folder(tmp_path):
    inputs, labels = (to_tokens(np.stack([parse(a), parse(b)])) for a, b in
                      ((A, B), (A_SOLVED, B_SOLVED)))  # fmt: skip
    write_folder(tmp_path / "data" / "test", inputs, labels)
    for path in (tmp_path / "data" / "test", tmp_path / "data"):
        puzzles = load(path)
        assert (puzzles.inputs == inputs).all() and (puzzles.labels == labels).all()
        assert puzzles.lines.tolist() == [0, 1]
        assert set(puzzles.sha256) == {"all__inputs.npy", "all__labels.npy", "dataset.json"}
    write_folder(tmp_path / "data" / "train", inputs, labels)
    with pytest.raises(PuzzleError, match="name one of test, train"):
        load(tmp_path / "data")


def test_bad_public_folders(tmp_path):
    inputs, labels = to_tokens(parse(A))[None], to_tokens(parse(A_SOLVED))[None]
    with pytest.raises(PuzzleError, match="seq_len 81, here 16"):
        load(write_folder(tmp_path / "a", inputs, labels, seq_len=81))
    with pytest.raises(PuzzleError, match="row 0: label token 1 at 0; 2 to 5"):
        load(write_folder(tmp_path / "b", inputs, inputs))
    with pytest.raises(PuzzleError, match="row 0: input token 0 at 0; 1 to 5"):
        load(write_folder(tmp_path / "c", inputs * 0, labels))
    with pytest.raises(PuzzleError, match="900 cells"):
        load(write_folder(tmp_path / "d", np.ones((1, 900), int), np.ones((1, 900), int)))
    with pytest.raises(PuzzleError, match="inputs .1, 16., labels .2, 16."):
        load(write_folder(tmp_path / "e", inputs, labels.repeat(2, axis=0)))
    with pytest.raises(PuzzleError, match="not a plain NumPy array"):
        load(write_folder(tmp_path / "f", np.array([{"a": "pickle"}]), labels))
    (tmp_path / "empty").mkdir()
    with pytest.raises(PuzzleError, match="no all__inputs.npy"):
        load(tmp_path / "empty")
    (tmp_path / "f" / "all__inputs.npy").unlink()
    (tmp_path / "f" / "x.txt").touch()
    with pytest.raises(PuzzleError, match=r"a folder; name one of x\.txt"):
        load(tmp_path / "f")


def test_limit_reads_the_first(file):
    path = file("#", A, "nonsense", B)
    assert load(path, limit=1).lines.tolist() == [2]
    assert load(path, limit=3, skip_bad=True).lines.tolist() == [2, 4]


def test_lines_round_trip(tmp_path, file):
    puzzles = load(file(A, B))
    digest = save_lines(tmp_path / "new" / "out.txt", *digits(puzzles))
    again = load(tmp_path / "new" / "out.txt")
    assert (again.inputs == puzzles.inputs).all()
    assert (again.labels == puzzles.labels).all()
    assert again.sha256 == {"out.txt": digest}
    assert os.listdir(tmp_path / "new") == ["out.txt"]


def test_save_leaves_the_old_file_after_an_error(tmp_path, monkeypatch):
    path = tmp_path / "out.txt"
    path.write_text("old")
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        save_lines(path, parse(A)[None], parse(A_SOLVED)[None])
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["out.txt"]


def test_subset_keeps_what_belongs_together(file):
    puzzles = load(file(A, B, A))
    for index in (slice(1, 3), [1, 2], np.array([1, 2])):
        assert puzzles.subset(index).lines.tolist() == [2, 3]
    assert from_tokens(puzzles.subset([1, 0]).labels[0]).tolist() == parse(B_SOLVED).tolist()
    assert len(puzzles.subset([])) == 0
    with pytest.raises(ValueError, match="belong together"):
        PuzzleSet(puzzles.task, puzzles.inputs, puzzles.labels, puzzles.lines[:2], "", {})


# Bad lines ------------------------------------------------------------------------------------

BAD = {
    A[:-1]: "15 cells; a Sudoku here has 16, 36, 81 or 256",
    "." * 36: "36 cells where line 1 has 16",
    A.replace("1", "5"): "character '5' at 6; digits are 1 to 4, blanks . 0 _ *",
    A.replace("1", "é"): "character 'é' at 6; digits are 1 to 4, blanks . 0 _ *",
    "11..............": "contradictory givens",
    NONE: "no solution",
    TWO: "several solutions",
    "................": "several solutions",
    f"{A},{A_SOLVED},x": "3 fields; a line is puzzle or puzzle,solution",
    f"{A},{A_SOLVED[:-1]}": "solution has 15 cells, its puzzle 16",
    f"{A},{A_SOLVED[:-1]}x": "solution: character 'x' at 15; digits are 1 to 4, blanks . 0 _ *",
    f"{A},{A_SOLVED[:-1]}.": "solution has blanks",
    f"{A},{B_SOLVED}": "solution changes a given",
    f"{A},{A_SOLVED[:-1]}1": "solution changes a given",
    f"{A},{A_SOLVED[:-2]}42": "solution repeats a digit in a row, column or box",
}


@pytest.mark.parametrize(("line", "reason"), BAD.items())
def test_a_bad_line_is_named_with_its_reason(file, line, reason):
    path = file(A, "# comment", line, B)
    with pytest.raises(PuzzleError) as caught:
        load(path)
    head = f"{path}: 1 bad line of 3; --skip-bad goes on without them"
    assert str(caught.value) == f"{head}\n  line 3: {reason}"
    skipping = load(path, skip_bad=True)
    assert skipping.lines.tolist() == [1, 4]
    assert skipping.skipped == (f"line 3: {reason}",)
    assert all(is_solution(p, s) for p, s in zip(*digits(skipping), strict=True))


def test_the_first_bad_lines_are_shown_and_the_rest_counted(file):
    with pytest.raises(PuzzleError) as caught:
        load(file(A, *["x"] * 7))
    message = str(caught.value).splitlines()
    assert "7 bad lines of 8" in message[0]
    assert [text.split(":")[0].strip() for text in message[1:-1]] == [
        f"line {i}" for i in range(2, 7)
    ]
    assert message[-1].strip() == "and 2 more"


def test_rows_of_a_csv_need_all_fields(file):
    path = file("source,question,answer,rating", f"x,{A},{A_SOLVED},0", f"x,{A}")
    with pytest.raises(PuzzleError, match="line 3: 2 fields, the header has 4"):
        load(path)


def test_missing_and_empty_files_are_one_line_errors(tmp_path, file):
    for path, reason in ((tmp_path / "absent", "no such file"), (file(), "no puzzle"),
                         (file("# only", ""), "no puzzle")):  # fmt: skip
        with pytest.raises(PuzzleError, match=reason) as caught:
            load(path)
        assert "\n" not in str(caught.value) and str(path) in str(caught.value)
    with pytest.raises(PuzzleError, match="no good line among 2; first, line 1: 1 cells"):
        load(file("x", "y"), skip_bad=True)
    with pytest.raises(PuzzleError, match="1 bad line of 1"):
        load(file("x"))


def test_a_binary_file_is_a_bad_file(tmp_path):
    path = tmp_path / "model.pt"
    path.write_bytes(bytes(range(256)) * 10)
    with pytest.raises(PuzzleError, match="bad line"):
        load(path)


def test_files_with_solutions_need_no_numba(file):
    path = file(f"{A},{A_SOLVED}")
    code = (
        "import sys; from trm_interp.tasks.sudoku.dataset import load; "
        f"assert len(load({str(path)!r})) == 1; print({{'numba', 'torch'}} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True,
        cwd=Path(__file__).parents[3],
    )  # fmt: skip
    assert done.stdout.strip() == "set()"


def test_shared_puzzles(extreme):
    puzzles = load(extreme, limit=500)
    assert puzzles.task.grid[0] == 9 and len(puzzles) == 500
    assert puzzles.lines.tolist() == list(range(2, 502))
    assert all(is_solution(p, s) for p, s in zip(*digits(puzzles), strict=True))


# Presets, import, download --------------------------------------------------------------------


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The 4x4 data set, in a folder."""
    path = tmp_path_factory.mktemp("made") / "sudoku4"
    make_preset("sudoku4", path, seed=1)
    return path


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_preset_made_twice_has_the_same_bytes_and_another_seed_others(made, tmp_path):
    counts = []
    make_preset("sudoku4", tmp_path / "again", seed=1, progress=lambda *at: counts.append(at))
    assert contents(tmp_path / "again") == contents(made)
    assert counts[0] == (0, 300) and counts[-1] == (300, 300)
    make_preset("sudoku4", tmp_path / "other", seed=2)
    assert contents(tmp_path / "other")["test.txt"] != contents(made)["test.txt"]


def test_splits_share_no_class_and_hold_no_class_twice(made):
    sets = {split: load(made / f"{split}.txt") for split in ("train", "val", "test")}
    assert {split: len(puzzles) for split, puzzles in sets.items()} == PRESETS["sudoku4"].sizes
    keys = class_keys(np.concatenate([digits(puzzles)[0] for puzzles in sets.values()]))
    assert len(np.unique(keys)) == len(keys) == 300


def test_the_card_tells_what_is_there(made):
    card = json.loads((made / "card.json").read_text())
    assert (card["preset"], card["seed"], card["harder_of"]) == ("sudoku4", 1, 1)
    for split, size in PRESETS["sudoku4"].sizes.items():
        on_card = card["splits"][split]
        assert (
            on_card["sha256"] == hashlib.sha256((made / on_card["file"]).read_bytes()).hexdigest()
        )
        for name in ("clues", "tier", "waves"):
            assert sum(on_card[name].values()) == on_card["n"] == size
        assert on_card["guesses"]["max"] == 0  # true of every 4x4 puzzle with one solution


def test_extra_givens_come_from_the_solution():
    puzzles, solutions = np.tile(parse(A), (500, 1)), np.tile(parse(A_SOLVED), (500, 1))
    given = presets._with_givens(puzzles, solutions, most=3, seed=0, start=7)
    assert all(is_solution(p, s) for p, s in zip(given, solutions, strict=True))
    extra = (given > 0).sum(1) - 4
    # each of 0, 1, 2, 3 in 125 of 500, standard deviation sqrt(500 * 3 / 16) = 9.7
    assert (abs(np.bincount(extra) - 125) < 4 * 9.7).all() and len(np.bincount(extra)) == 4
    later = presets._with_givens(puzzles[3:], solutions[3:], most=3, seed=0, start=10)
    assert (later == given[3:]).all()


def test_a_folder_that_exists_is_replaced_on_request_only(made, tmp_path, monkeypatch):
    monkeypatch.setitem(PRESETS, "tiny4", Preset(side=4, train=3, val=2, test=1))
    out = tmp_path / "out"
    out.mkdir()
    make_preset("tiny4", out)  # an empty folder is nothing to lose
    first = contents(out)
    with pytest.raises(UserError, match="exists: use --overwrite"):
        make_preset("tiny4", out, seed=5)
    assert contents(out) == first
    make_preset("tiny4", out, seed=5, overwrite=True)
    assert contents(out) != first
    (out / "notes.md").touch()
    with pytest.raises(PuzzleError, match=r"holds notes\.md: not a data set"):
        make_preset("tiny4", out, overwrite=True)
    with pytest.raises(PuzzleError, match="is a file"):
        make_preset("tiny4", out / "notes.md", overwrite=True)
    assert os.listdir(tmp_path) == ["out"]


def test_an_interrupted_preset_leaves_nothing(tmp_path, monkeypatch):
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_preset("sudoku4", tmp_path / "out", progress=interrupt)
    assert os.listdir(tmp_path) == []


def test_impossible_presets_are_refused(tmp_path, monkeypatch):
    with pytest.raises(PuzzleError, match="no preset 'sudoku5'; there are sudoku4, sudoku6"):
        make_preset("sudoku5", tmp_path / "out")
    monkeypatch.setitem(PRESETS, "many", Preset(side=4, train=50, val=0, test=0))
    with pytest.raises(PuzzleError, match="classes, 50 are wanted"):  # 36 minimal classes exist
        make_preset("many", tmp_path / "out")
    assert os.listdir(tmp_path) == []


def test_import_checks_and_writes_lines_and_a_card(file, tmp_path):
    source = file("source,question,answer,rating", f"x,{A},{A_SOLVED},0", f"x,{TWO},{B_SOLVED},0")
    out = tmp_path / "data" / "test.txt"
    with pytest.raises(PuzzleError, match="line 3: several solutions"):
        import_file(source, out)
    assert not out.parent.exists()
    card = import_file(source, out, skip_bad=True)
    assert out.read_text() == f"{A},{A_SOLVED}\n"
    assert json.loads(out.with_suffix(".json").read_text()) == card
    assert card["skipped"] == ["line 3: several solutions"]
    assert (card["n"], card["class_keys"], card["clues"]) == (1, 1, {"4": 1})
    with pytest.raises(UserError, match="exists"):
        import_file(source, out, skip_bad=True)
    import_file(source, out, skip_bad=True, overwrite=True)


def test_download_names_the_hub_and_its_errors(tmp_path, monkeypatch):
    calls = []

    def fetch(repo: str, name: str, repo_type: str, local_dir: Path) -> str:
        calls.append((repo, name, repo_type))
        return str(Path(local_dir) / name)

    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(hf_hub_download=fetch))
    out = tmp_path / "hub"
    assert download_sudoku_extreme(out) == [out / "train.csv", out / "test.csv"]
    assert calls == [
        ("sapientinc/sudoku-extreme", f"{n}.csv", "dataset") for n in ("train", "test")
    ]

    def offline(*args, **kwargs) -> str:
        raise ConnectionError("no route to host\nand a long story")

    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(hf_hub_download=offline))
    with pytest.raises(PuzzleError, match=r"could not download .*: no route to host$"):
        download_sudoku_extreme(out)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(PuzzleError, match="pip install huggingface_hub"):
        download_sudoku_extreme(out)
