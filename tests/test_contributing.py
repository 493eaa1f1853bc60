"""What CONTRIBUTING.md names is there: files, tests, functions and lists."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "CONTRIBUTING.md").read_text()
NAMED = re.findall(r"`([^`\n]+)`", TEXT)
PYTHON = [*ROOT.glob("trm_interp/**/*.py"), *ROOT.glob("tests/**/*.py")]
SOURCE = "\n".join(path.read_text() for path in PYTHON)
PLACES = (ROOT, ROOT / "trm_interp")  # rooms are named from the package on
PLACEHOLDER = re.compile(r"NAME|FAMILY|ROOM")  # what the reader fills in


def test_files_and_folders_exist():
    paths = [name for name in NAMED if "/" in name and " " not in name]
    # an environment is where its reader made it
    paths = [n for n in paths if not PLACEHOLDER.search(n) and not n.startswith(".venv/")]
    assert len(paths) > 20
    missing = [name for name in paths if not any((at / name).exists() for at in PLACES)]
    assert not missing


def test_tests_and_names_exist():
    tests = [name for name in NAMED if re.fullmatch(r"test(_[a-z]+){3,}", name)]
    lists = [name for name in NAMED if re.fullmatch(r"_?[A-Z][A-Z]+", name)]
    classes = [name for name in NAMED if re.fullmatch(r"[A-Z]\w*[a-z]\w*", name)]
    assert len(tests) >= 2 and len(lists) > 8 and len(classes) > 6
    assert [name for name in tests if f"def {name}(" not in SOURCE] == []
    assert [n for n in lists if not re.search(rf"^{n}\b[^\n]*=", SOURCE, re.M)] == []
    defined = r"^(class {0}\b|{0} = )"
    assert [n for n in classes if not re.search(defined.format(n), SOURCE, re.M)] == []


def test_every_command_names_a_file_that_exists():
    commands = re.findall(r"^\.venv/bin/(?:python -m pytest|python) .*", TEXT, re.M)
    words = [word for line in commands for word in line.split("#")[0].split()[1:]]
    paths = [word for word in words if word.startswith("tests/")]
    assert paths and all((ROOT / path).exists() for path in paths)
