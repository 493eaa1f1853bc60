"""What in the recursion makes a run succeed? Patches, ablations, changes, pushes and circuits.

    python experiments/causal.py                                # 6x6 (three seeds) and 9x9
    python experiments/causal.py --only sudoku6 --scale 0.25 --out runs/trial
    python experiments/causal.py --parts trace,used --ship artifacts

Every part is a command of its own in a folder OUT/SUBJECT/PART, with figures and the numbers that
they plot. Parts that are done are skipped, by the words in OUT/SUBJECT/PART.txt, and one that was
stopped goes on where it can. used-sae and circuits need the parts states and sae. Then
`verdicts.csv`: is early commitment causal, where does the answer live, are failures wrong or
unfinished, is what can be read used, do ends come back from noise, do edges between features hold?
`--ship` copies small tables into FOLDER/causal-SUBJECT.
"""

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from trm_interp.analysis.estimates import with_span
from trm_interp.report.causal import verdicts

SUBJECTS = {
    "sudoku6": "artifacts/trm-sudoku6",
    "sudoku6-seed1": "artifacts/trm-sudoku6-seed1",
    "sudoku6-seed2": "artifacts/trm-sudoku6-seed2",
    "sudoku9": "artifacts/trm-sudoku9",
    "maze10": "artifacts/trm-maze10",
}
SMALL = 100_000  # bytes of a table that ships
TWICE = {"estimates.csv", "by_rating.csv"}  # tables of figures that others have, too
Words = Callable[[Callable[[int], int]], str]
ON, LATE = "--ckpt CKPT", "--kind state --after 4"
SAE = "--site z_L --arch topk --active 16 --expansion 8 --train-steps 300 --held-out 0.5"
PARTS: dict[str, Words] = {  # by name: the command, of what a number becomes at this scale
    "trace": lambda n: f"trace {ON} --limit {n(192)} --pairs {n(16)} --exact {n(48)} --resume",
    "used": lambda n: f"used {ON} --limit {n(128)} --moments 1,4 --random 1 --resume",
    "spread": lambda n: f"spread {ON} --limit {n(64)} --steps 2 --resume",
    "spread-late": lambda n: f"spread {ON} {LATE} --limit {n(64)} --steps 2 --resume",
    "robustness": lambda n: f"robustness {ON} --limit {n(192)} --sample {n(24)} --resume",
    "states": lambda n: f"collect {ON} --limit {n(96)} --sites z_L --resume",
    "sae": lambda n: f"train-sae AT/states {SAE} --resume",
    "used-sae": lambda n: (
        f"used {ON} --limit {n(128)} --moments 1,4 --random 1 --sae AT/sae --resume"
    ),
    "circuits": lambda n: "circuits AT/sae AT/states --top 8 --overwrite",
}


def run_part(name: str, ckpt: str, out: Path, scale: float, more: list[str]) -> bool:
    """Whether the part is done; it is not run again where it was.

    What a command that cannot resume left half done is replaced.
    """
    words = PARTS[name](lambda full: max(2, round(full * scale))).split()
    places = {
        "CKPT": ckpt,
        "AT/states": str(out.parent / "states"),
        "AT/sae": str(out.parent / "sae"),
    }
    words = [places.get(word, word) for word in words]
    done, text = out.with_name(f"{name}.txt"), " ".join(words)
    if done.exists():
        if (before := done.read_text().strip()) == text:
            return True
        print(f"{out} is of `{before}`: choose another --out", flush=True)
        return False
    out.parent.mkdir(parents=True, exist_ok=True)
    began = time.perf_counter()
    command = [sys.executable, "-m", "trm_interp", *words, "--out", str(out), *more]
    code = subprocess.run(command, check=False).returncode
    if code == 0:
        done.write_text(f"{text}\n")
    print(
        f"{out}: {'done' if code == 0 else f'failed ({code})'}, "
        f"{time.perf_counter() - began:.0f} s",
        flush=True,
    )
    return code == 0


def ship(out: Path, to: Path) -> None:
    """The summaries and the small tables of all parts, in place of what was there of them."""
    for part in PARTS:
        if (out / part).exists():
            shutil.rmtree(to / part, ignore_errors=True)
    for file in sorted([*out.glob("*/*.csv"), *out.glob("*/summary.json"), *out.glob("*.csv")]):
        if file.stat().st_size <= SMALL and file.name not in TWICE:
            target = to / file.relative_to(out)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/causal"))
    parser.add_argument("--only", help=f"subjects, of {', '.join(SUBJECTS)} (default: all)")
    parser.add_argument("--parts", help=f"of {', '.join(PARTS)} (default: all)")
    parser.add_argument("--scale", type=float, default=1.0, help="of the numbers of puzzles")
    parser.add_argument("--ship", type=Path, help="folder for folders of small tables")
    parser.add_argument("--more", default="", help="further words of every part, such as a device")
    args = parser.parse_args()
    subjects = args.only.split(",") if args.only else list(SUBJECTS)
    parts = args.parts.split(",") if args.parts else list(PARTS)
    if unknown := [*({*subjects} - SUBJECTS.keys()), *({*parts} - PARTS.keys())]:
        parser.error(f"there is no {unknown[0]}")
    tables, failed = [], []
    for subject in subjects:
        ckpt = SUBJECTS[subject]
        if not Path(ckpt).exists():
            print(f"{ckpt} is not there: leaving {subject} out", flush=True)
            continue
        for part in parts:
            if not run_part(part, ckpt, args.out / subject / part, args.scale, args.more.split()):
                failed.append(f"{subject} {part}")
        (args.out / subject).mkdir(parents=True, exist_ok=True)
        tables.append(verdicts(args.out / subject).assign(subject=subject))
        tables[-1].to_csv(args.out / subject / "verdicts.csv", index=False)
        if args.ship:
            ship(args.out / subject, args.ship / f"causal-{subject}")
    table = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()
    for row in json.loads(table.to_json(orient="records") or "[]"):
        number = with_span(row["value"], row["low"], row["high"], ".2f")
        print(f"{row['subject']}: {row['question']} {row['what']}: {number}; {row['verdict']}")
    if failed:
        sys.exit(f"not done: {', '.join(failed)}")


if __name__ == "__main__":
    main()
