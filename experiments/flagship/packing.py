"""Fold a training state and its logs into few files of bounded size, and unfold them again.

    python experiments/flagship/packing.py pack runs/flagship/state log.txt
    python experiments/flagship/packing.py unpack runs/flagship/state runs/here

Some ways of moving files between machines take only a few of limited size. A packed state is its
parts as they are and one `logs.tar.gz` with all small files of the folder. Unpacking gives the
folder that `train.py --resume` and `evaluate.py --state` read. Standard library only.
"""

import argparse
import json
import shutil
import tarfile
from collections.abc import Iterable
from pathlib import Path

from trm_interp.runtime.errors import UserError, in_one_line
from trm_interp.runtime.files import replacing
from trm_interp.runtime.locks import LOCK, locked_folder

INDEX, LOGS = "state.json", "logs.tar.gz"
MOST_FILES, MOST_BYTES = 6, 15 * 2**20
MOST_UNPACKED = 64 * 2**20  # of one file of the logs


def pack(state: Path, others: Iterable[Path] = ()) -> list[Path]:
    """Fold the small files of a state's folder, and `others`, into its logs; the files that remain.

    Parts that the index does not name, of a save that was cut short, are removed. A kill leaves the
    folder as it was or packed. UserError where there is no state, or the packed one would not be
    MOST_FILES of MOST_BYTES at most; nothing has changed then.
    """
    if not (state / INDEX).is_file():
        raise UserError(f"{state / INDEX} is missing: no state to pack")
    with locked_folder(state):
        return _pack(state, others)


def _pack(state: Path, others: Iterable[Path]) -> list[Path]:
    parts = [state / name for name in json.loads((state / INDEX).read_text())["files"]]
    leftovers = {*state.glob("step-*.safetensors*"), *state.glob(".*.partial")} - set(parts)
    small = [path for path in sorted(state.iterdir()) if path.is_file()]
    small = [path for path in small if path not in {*parts, *leftovers, state / LOGS, state / LOCK}]
    given = [path for path in others if path.is_file() and path not in small]
    with replacing(state / LOGS) as to:
        with tarfile.open(to, "w:gz") as archive:
            for path in [*small, *given]:
                archive.add(path, arcname=path.name, recursive=False)
        packed = [*parts, to]
        if large := [path for path in packed if path.stat().st_size > MOST_BYTES]:
            size = large[0].stat().st_size / 2**20
            raise UserError(f"{large[0]}: {size:.1f} MiB are more than {MOST_BYTES >> 20}")
        if len(packed) > MOST_FILES:
            raise UserError(f"{state}: {len(packed)} files are more than {MOST_FILES}")
    for path in [*small, *leftovers]:
        path.unlink()
    return [*parts, state / LOGS]


def unpack(packed: Path, to: Path) -> None:
    """Write the folder that was packed. UserError for what `pack` did not write."""
    if not (packed / LOGS).is_file():
        raise UserError(f"{packed / LOGS} is missing: not a packed state")
    if to.exists() and any(to.iterdir()):
        raise UserError(f"{to} is not empty: name a new folder")
    to.mkdir(parents=True, exist_ok=True)
    try:
        with tarfile.open(packed / LOGS) as archive:
            for member in archive:
                is_plain = member.isfile() and Path(member.name).name == member.name
                if not is_plain or member.size > MOST_UNPACKED:
                    raise UserError(f"{packed / LOGS}: {member.name[:60]!r} is no log of a state")
                archive.extract(member, to, filter="data")
    except (tarfile.TarError, EOFError, OSError) as error:
        raise UserError(f"{packed / LOGS} is damaged ({error}): bring it again") from None
    for part in packed.glob("step-*.safetensors"):
        shutil.copy2(part, to / part.name)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = parser.add_subparsers(dest="what", required=True)
    packing = what.add_parser("pack", help="fold the small files of a state into one")
    packing.add_argument("state", type=Path, help="folder of the state")
    packing.add_argument("others", type=Path, nargs="*", help="more files to fold in")
    unpacking = what.add_parser("unpack", help="the folder that was packed")
    unpacking.add_argument("packed", type=Path, help="folder of the packed state")
    unpacking.add_argument("to", type=Path, help="new folder")
    args = parser.parse_args(arguments)
    with in_one_line():
        if args.what == "unpack":
            unpack(args.packed, args.to)
            print(f"wrote {args.to}")
            return
        for path in pack(args.state, args.others):
            print(f"{path.stat().st_size / 1e6:6.1f} MB  {path}")


if __name__ == "__main__":
    main()
