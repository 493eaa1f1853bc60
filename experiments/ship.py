"""Turn a training run into a shipped checkpoint: weights, configuration, and a measured card.

    python experiments/ship.py runs/sudoku6-seed0 artifacts/data/sudoku6/test.txt \\
        artifacts/trm-sudoku6

Evaluates the run's best average on test puzzles, in the dtype it was trained in, and writes the
curve with its intervals into the card, next to what training wrote there.
"""

import argparse
import json
import shutil
from pathlib import Path
from typing import Any, get_args

from trm_interp.core.checkpoints.folder import CARD, CONFIG, WEIGHTS
from trm_interp.runtime.files import write_json
from trm_interp.runtime.progress import progress
from trm_interp.studies.accuracy import evaluate
from trm_interp.subjects.settings import Compile, EvalConfig


def ship(
    run: Path,
    test: Path,
    out: Path,
    steps: int,
    skip_bad: bool = False,
    limit: int | None = None,
    compile: Compile | None = None,
) -> dict[str, Any]:
    """The card of the shipped checkpoint. `compile`: as it was trained, where it is None."""
    card = json.loads((run / CARD).read_text())
    trained = card["train"]
    config = EvalConfig(
        ckpt=str(run),
        puzzles=test,
        steps=steps,
        batch_size=125,
        dtype=trained["dtype"],
        compile=compile or ("always" if trained["compile"] else "never"),
        limit=limit,
        skip_bad=skip_bad,
    )
    with progress("testing", "puzzles") as update:
        _, measured = evaluate(config, progress=update)
    # where the files stood while they were measured is nobody's business afterwards
    card["test"] = {k: v for k, v in measured.items() if k not in ("ckpt", "puzzles")}
    card["test"]["command"] = (
        f"trm-interp eval --ckpt {out} --puzzles {test} --steps {steps} "
        f"--batch-size {config.batch_size} --dtype {config.dtype} "
        f"--compile {config.compile}{' --skip-bad' if skip_bad else ''}"
        f"{f' --limit {limit}' if limit else ''}"
    )
    out.mkdir(parents=True, exist_ok=True)
    for name in (CONFIG, WEIGHTS):
        shutil.copyfile(run / name, out / name)
    write_json(out / CARD, card)
    return card


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="folder that `trm-interp train` wrote")
    parser.add_argument("test", type=Path, help="test puzzles")
    parser.add_argument("out", type=Path, help="folder of the checkpoint")
    parser.add_argument("--steps", type=int, default=16, help="supervision steps")
    parser.add_argument("--limit", type=int, help="test only so many puzzles")
    parser.add_argument("--compile", choices=get_args(Compile), help="default as it was trained")
    parser.add_argument("--skip-bad", action="store_true", help="leave out invalid puzzles")
    args = parser.parse_args()
    card = ship(
        *(args.run, args.test, args.out, args.steps),
        skip_bad=args.skip_bad,
        limit=args.limit,
        compile=args.compile,
    )
    test = card["test"]
    curve = " ".join(f"{100 * share:.1f}" for share in test["exact_at_step"])
    print(f"wrote {args.out}: exact % by step {curve} (n = {test['n']})")


if __name__ == "__main__":
    main()
