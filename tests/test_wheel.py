"""`pip install .`: the package that is installed works from any folder, with what ships in it."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MOST = 10e6  # bytes of the wheel
COMMANDS = """
import sys
from trm_interp.cli import main

for words in (
    ["hooks", "--steps", "1"],
    ["outcomes", "--limit", "4", "--steps", "2", "--out", "outcomes"],
    ["figures", "--plan", "--out", "figures"],
    ["solve", ".....5.1......1.26..35.1.6....5.2..."],
    ["eval", "--ckpt", "artifacts/trm-sudoku9", "--limit", "4", "--steps", "2"],
):
    sys.argv = ["trm-interp", *words]
    try:
        main()
    except SystemExit as end:
        assert not end.code, (words, end.code)
import trm_interp
assert trm_interp.__file__.startswith(sys.prefix), trm_interp.__file__
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy of the tree, so that nothing is left in it; nothing is downloaded."""
    tree, out = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    for name in ("trm_interp", "artifacts"):
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-q"]
    subprocess.run([*build, "-w", str(out), str(tree)], check=True, timeout=120)
    (file,) = out.glob("*.whl")
    return file


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment of its own with the wheel; the dependencies are those of this one."""
    folder = tmp_path_factory.mktemp("env")
    venv.create(folder, with_pip=False, symlinks=True)
    scheme = {"base": str(folder), "platbase": str(folder)}
    packages = Path(sysconfig.get_path("purelib", "venv", scheme))
    # a path file is read for this line alone: editable packages of that folder stay out of it
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    python = folder / "bin" / "python"
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "-q", "--no-deps"]
    subprocess.run([*install, "--no-index", str(wheel)], check=True, timeout=120)
    return folder / "bin"


def run(installed: Path, cwd: Path, *words: str) -> str:
    """Standard output of a program of the environment, in a folder that knows no clone."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [str(installed / words[0]), *words[1:]],
        cwd=cwd,
        env=environment | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_wheel_is_small_and_has_what_ships(wheel: Path):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    inside = {name.removeprefix("trm_interp/") for name in names}
    assert wheel.stat().st_size < MOST
    wanted = {"py.typed", "sae/dashboard.html", "artifacts/trm-sudoku6/model.safetensors"}
    assert wanted | {"artifacts/data/sudoku9/test.txt"} <= inside
    assert not [name for name in names if name.endswith(("train.txt", ".png", ".jsonl"))]
    assert not [name for name in names if name.split("/")[0] in ("tests", "experiments")]


def test_commands_find_what_ships_from_another_folder(installed: Path, tmp_path: Path):
    out = run(installed, tmp_path, "python", "-c", COMMANDS)
    assert "step.0.h.0.l.0.hook_z_L" in out and "core minutes" in out
    assert "confirmed by the rules" in out and "trm-sudoku9 on" in out
    assert (tmp_path / "outcomes" / "summary.json").exists()


def test_the_script_takes_a_first_look(installed: Path, tmp_path: Path):
    out = run(installed, tmp_path, "trm-interp", "quickstart", "--limit", "8", "--record", "2")
    assert "trm-sudoku9-extreme" in out and (tmp_path / "quickstart" / "trajectories.html").exists()
