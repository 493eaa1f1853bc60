"""Where the checkpoints and puzzles that ship are: in a clone, or inside the installed package."""

from pathlib import Path

FOLDER = "artifacts"
FORMS = "our folder, a public step_N, a nano-trm .ckpt, or hf://owner/repo"  # of checkpoints
PACKAGE = Path(__file__).resolve().parents[1]


def source_tree() -> Path | None:
    """Root of the source tree that this package runs from; None where it was installed."""
    root = PACKAGE.parent
    return root if (root / "pyproject.toml").is_file() else None


def artifact(name: str) -> Path:
    """A file or folder that ships: "trm-sudoku6", "data/sudoku9/test.txt".

    It is looked for in `artifacts/` of the current folder, in the source tree and in the installed
    package, in this order; where it is in none of them, the first path, for an error message.

    >>> artifact("trm-sudoku6").exists(), artifact("trm-nowhere")
    (True, PosixPath('artifacts/trm-nowhere'))
    """
    here = Path(FOLDER) / name
    tree = source_tree()
    places = [here, *([tree / FOLDER / name] if tree else []), PACKAGE / FOLDER / name]
    return next((place for place in places if place.exists()), here)


def shipped_checkpoints() -> list[str]:
    """Checkpoints that ship, as `--ckpt` takes them.

    >>> "artifacts/trm-sudoku6" in shipped_checkpoints()
    True
    """
    folder = artifact("trm-sudoku6").parent
    names = (file.parent.name for file in folder.glob("*/model.safetensors"))
    return [f"{FOLDER}/{name}" for name in sorted(names)]


def existing(path: str | Path) -> Path:
    """The path itself, or where it says `artifacts/NAME` and nothing is there, what ships.

    So `artifacts/trm-sudoku6` means the same in every folder.
    """
    path = Path(path)
    if path.parts[:1] == (FOLDER,) and len(path.parts) > 1 and not path.exists():
        return artifact(str(Path(*path.parts[1:])))
    return path
