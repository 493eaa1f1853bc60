"""`import trm_interp` is cheap, and offers what its table says."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import trm_interp

SOURCE = Path(trm_interp.__file__)


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_takes_no_library():
    """Not even to list the names or to look for one that does not exist."""
    heavy = {"torch", "numpy", "pandas", "h5py", "plotly", "transformer_lens", "sae_lens"}
    assert (
        python(
            f"""
import sys
import trm_interp
dir(trm_interp), hasattr(trm_interp, "nowhere"), trm_interp.UserError
print({heavy} & set(sys.modules))
"""
        )
        == "set()\n"
    )


@pytest.mark.parametrize("name", trm_interp.__all__)
def test_every_name_is_there_with_a_docstring(name: str):
    value = getattr(trm_interp, name)
    assert value.__doc__ and value.__doc__.strip() != "", name
    assert name in dir(trm_interp) and vars(trm_interp)[name] is value


def test_rooms_are_attributes():
    assert python("import trm_interp; print(trm_interp.analysis.__name__)") == (
        "trm_interp.analysis\n"
    )
    rooms = {path.parent.name for path in SOURCE.parent.glob("*/__init__.py")} - {"cli"}
    assert rooms <= set(dir(trm_interp))
    with pytest.raises(AttributeError, match="'trm_interp' has no attribute 'nowhere'"):
        trm_interp.nowhere  # noqa: B018


def test_only_public_names_are_listed():
    rooms = {path.parent.name for path in SOURCE.parent.glob("*/__init__.py")} - {"cli"}
    assert set(dir(trm_interp)) == {*trm_interp.__all__, *rooms, "__version__"}


def test_type_checkers_see_the_same_names():
    tree = ast.parse(SOURCE.read_text())
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {}
    for node in block.body:
        assert isinstance(node, ast.ImportFrom) and node.module is not None
        for alias in node.names:
            home = f"{node.module.removeprefix('trm_interp.')}:{alias.name}"
            seen[alias.asname or alias.name] = home
    assert seen == trm_interp._HOMES and sorted(seen) == sorted(trm_interp.__all__)
    assert (SOURCE.parent / "py.typed").exists()


def test_a_study_by_its_name(copier: Path, grids: Path, tmp_path: Path):
    settings = {"ckpt": str(copier), "puzzles": grids, "steps": 2, "device": "cpu"}
    lines: list[str] = []
    out = str(tmp_path / "out")  # paths may be text
    result = trm_interp.run_study("outcomes", out=out, tell=lines.append, **settings)
    assert result is not None and (tmp_path / "out" / "summary.json").exists()
    with pytest.raises(trm_interp.UserError, match="no study 'dreams'; there are outcomes,"):
        trm_interp.run_study("dreams")
    with pytest.raises(trm_interp.UserError, match="limit must be at least 1, got 0"):
        trm_interp.run_study("outcomes", out=tmp_path / "none", limit=0)
    with pytest.raises(trm_interp.UserError, match="no setting 'depth'; there are .*limit"):
        trm_interp.run_study("outcomes", out=tmp_path / "none", depth=3)
    with pytest.raises(trm_interp.UserError, match="out must be given"):
        trm_interp.run_study("outcomes")
