"""What in the recursion makes a run succeed? Patches, ablations, changes, pushes and circuits.

    python experiments/causal.py                        # all subjects, under an hour on two cores
    python experiments/causal.py --estimate                     # how long that would be, no more
    python experiments/causal.py --scale 1 --out runs/whole     # 2.5 times the puzzles
    python experiments/causal.py --only sudoku6 --scale 0.1 --out runs/trial
    python experiments/causal.py --parts trace,spread --ship artifacts

Subjects are three seeds of 6x6 Sudoku, 9x9 Sudoku and 10x10 mazes; `--workers` of them run at once,
a thread each. Every part is a command of its own in a folder OUT/SUBJECT/PART, with figures and the
numbers that they plot; what it prints is in OUT/SUBJECT/PART.log. Parts that are done are skipped,
by the words in OUT/SUBJECT/PART.txt, and one that was stopped goes on where it can. used and
circuits need the parts states and sae. Then `verdicts.csv`: is early commitment causal, where does
the answer live, are failures wrong or unfinished, is what can be read used, do ends come back from
noise, do edges between features hold? `seconds.csv` has the seconds of a core that parts took.
`--ship` copies small tables and draws some figures, as PNG, into FOLDER/causal-SUBJECT.
"""

import argparse
import json
import shutil
import signal
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from children import STOPPED, end_together, finished

from trm_interp.analysis.estimates import with_span
from trm_interp.figures.pictures import NoPictures, draw
from trm_interp.report.causal import verdicts


class Model(NamedTuple):
    """`a_step`: milliseconds of a core that a supervision step of one run takes, on a machine whose
    cores are all busy; `pairs`: share of the puzzles that some starts solve and some do not."""

    ckpt: str
    a_step: float
    pairs: float


SUBJECTS = {
    "sudoku6": Model("artifacts/trm-sudoku6", 7.0, 0.4),
    "sudoku6-seed1": Model("artifacts/trm-sudoku6-seed1", 7.0, 0.4),
    "sudoku6-seed2": Model("artifacts/trm-sudoku6-seed2", 7.0, 0.4),
    "sudoku9": Model("artifacts/trm-sudoku9", 25.0, 0.3),
    "maze10": Model("artifacts/trm-maze10", 17.5, 0.1),
}
BY_ITSELF = 12.0  # seconds that a part takes beside its supervision steps: imports, fits, figures
SCALE = 0.4  # at which all subjects take under an hour on two cores
SMALL = 100_000  # bytes of a table that ships
FIGURES = ("trace/trace", "trace/sealed", "spread/locality", "robustness/epsilon_50")  # that ship
SIZE = {"width": 1000, "height": 620}  # pixels
TWICE = {"estimates.csv", "by_rating.csv"}  # tables of figures that others have, too
Words = Callable[[Callable[[int], int]], str]
ON, LATE = "--ckpt CKPT", "--kind state --after 4"
SAE = "--site z_L --arch topk --active 16 --expansion 8 --train-steps 300 --held-out 0.5"
PARTS: dict[str, Words] = {  # by name: the command, of what a number becomes at this scale
    "trace": lambda n: f"trace {ON} --limit {n(192)} --pairs {n(16)} --exact {n(48)} --resume",
    "spread": lambda n: f"spread {ON} --limit {n(64)} --steps 2 --overwrite",
    "spread-late": lambda n: f"spread {ON} {LATE} --limit {n(64)} --steps 2 --overwrite",
    "robustness": lambda n: f"robustness {ON} --limit {n(192)} --sample {n(24)} --overwrite",
    "states": lambda n: f"collect {ON} --limit {n(96)} --sites z_L --resume",
    "sae": lambda n: f"train-sae AT/states {SAE} --resume",
    "used": lambda n: f"used {ON} --limit {n(128)} --moments 1,4 --random 1 --sae AT/sae --resume",
    "circuits": lambda n: "circuits AT/sae AT/states --top 8 --overwrite",
}


FORMER = {"used": "used-sae"}  # what a part replaces where it ships: probes once more, and features


def numbers(scale: float) -> Callable[[int], int]:
    """What a number becomes, at least 2."""
    return lambda full: max(2, round(full * scale))


def seconds(part: str, model: Model, scale: float) -> float:
    """Of one core, about: those of its supervision steps, and what every part takes.

    trace: 8 starts of every puzzle, then of every pair both ways the 26 whole cells, each with
    three controls, and the others, 10 of 16 steps on average and 8 more; used: 92 removals, 13.5
    steps on average, from half of the puzzles; robustness: of every end 100 pushes, 15 starts, and
    derivatives.
    """
    n = numbers(scale)
    pairs = min(n(16), max(1, round(n(192) * model.pairs)))
    steps = {
        "trace": n(192) * 8 * 16 + pairs * 2 * (4 * 26 + n(48)) * 18,
        "used": n(128) * 16 + n(128) / 2 * 92 * 13.5,
        "spread": n(64) * 5 * 2,
        "spread-late": n(64) * 5 * 6,
        "robustness": n(192) * 16 + n(24) * 2000,
        "states": n(96) * 16,
    }
    training = 20.0 if part == "sae" else 0.0  # 300 steps at any scale
    return BY_ITSELF + training + steps.get(part, 0) * model.a_step / 1000


def in_all(subjects: Sequence[str], parts: Sequence[str], scale: float, workers: int) -> str:
    """The estimate in words."""
    each = sorted(
        (sum(seconds(part, SUBJECTS[one], scale) for part in parts) for one in subjects),
        reverse=True,
    )
    ends = [0.0] * workers
    for one in each:
        ends[ends.index(min(ends))] += one
    return (
        f"about {sum(each) / 60:.0f} minutes of one core, {max(ends) / 60:.0f} with {workers} busy "
        "cores; parts that are done take none"
    )


def run_part(name: str, ckpt: str, out: Path, scale: float, more: list[str]) -> bool:
    """Whether the part is done; it is not run again where it was.

    What a command that cannot resume left half done is replaced.
    """
    words = PARTS[name](numbers(scale)).split()
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
    log = out.with_name(f"{name}.log")
    code, took = finished([*words, "--out", str(out), *more], log)
    with out.with_name("seconds.csv").open("a") as file:
        file.write(f"{name},{took:.1f},{code}\n")
    if code in (-signal.SIGINT, 130):
        STOPPED.set()
    if code == 0:
        done.write_text(f"{text}\n")
    ended = "done" if code == 0 else f"failed ({code}), see {log}"
    print(f"{out}: {ended}, {took:.0f} s of a core", flush=True)
    return code == 0


def ship(out: Path, to: Path) -> None:
    """The summaries, the small tables and the figures of all parts, in place of what was there."""
    for part in PARTS:
        for name in (part, FORMER.get(part, part)) if (out / part).exists() else ():
            shutil.rmtree(to / name, ignore_errors=True)
    for file in sorted([*out.glob("*/*.csv"), *out.glob("*/summary.json"), *out.glob("*.csv")]):
        if file.stat().st_size <= SMALL and file.name not in TWICE:
            target = to / file.relative_to(out)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
    for name in FIGURES:
        page, target = out / f"{name}.html", to / f"{name}.png"
        try:
            picture = draw(figure_on(page), "png", **SIZE) if page.exists() else None
        except NoPictures as why:
            print(f"{target} is not drawn: {why}", flush=True)
            return
        if picture is not None:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(picture)


def figure_on(page: Path) -> str:
    """The JSON of the figure that a page shows: the second and third argument of newPlot."""
    rest = page.read_text(encoding="utf-8").rpartition("Plotly.newPlot(")[2]
    given = []
    for _ in range(3):
        rest = rest.lstrip(", \n")
        one, end = json.JSONDecoder().raw_decode(rest)
        given.append(one)
        rest = rest[end:]
    return json.dumps({"data": given[1], "layout": given[2]})


def run_subject(subject: str, parts: Sequence[str], args: argparse.Namespace) -> list[str]:
    """All parts, one after another, and the verdicts; names of those that are not done."""
    model, out = SUBJECTS[subject], args.out / subject
    more = args.more.split()
    failed = [
        f"{subject} {part}"
        for part in parts
        if STOPPED.is_set() or not run_part(part, model.ckpt, out / part, args.scale, more)
    ]
    out.mkdir(parents=True, exist_ok=True)
    verdicts(out).assign(subject=subject).to_csv(out / "verdicts.csv", index=False)
    if args.ship:
        ship(out, args.ship / f"causal-{subject}")
    return failed


def settings() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/causal"))
    parser.add_argument("--only", help=f"subjects, of {', '.join(SUBJECTS)} (default: all)")
    parser.add_argument("--parts", help=f"of {', '.join(PARTS)} (default: all)")
    parser.add_argument(
        "--scale",
        type=float,
        default=SCALE,
        help=f"of the numbers of puzzles, pairs and ends, whose full ones are 1 (default: {SCALE})",
    )
    parser.add_argument("--workers", type=int, default=2, help="subjects at once (default: 2)")
    parser.add_argument("--estimate", action="store_true", help="say how long it takes, and stop")
    parser.add_argument("--ship", type=Path, help="folder for folders of small tables and figures")
    parser.add_argument("--more", default="", help="further words of every part, such as a device")
    args = parser.parse_args()
    args.only = args.only.split(",") if args.only else list(SUBJECTS)
    args.parts = args.parts.split(",") if args.parts else list(PARTS)
    if unknown := [*({*args.only} - SUBJECTS.keys()), *({*args.parts} - PARTS.keys())]:
        parser.error(f"there is no {unknown[0]}")
    if args.workers < 1 or not args.scale > 0:
        parser.error("--workers must be at least 1, --scale above 0")
    return args


def main() -> None:
    args = settings()
    subjects = [one for one in args.only if Path(SUBJECTS[one].ckpt).exists()]
    for one in args.only:
        if one not in subjects:
            print(f"{SUBJECTS[one].ckpt} is not there: leaving {one} out", flush=True)
    parts = [part for part in PARTS if part in args.parts]
    print(in_all(subjects, parts, args.scale, args.workers), flush=True)
    if args.estimate:
        return
    longest = sorted(subjects, key=lambda one: -SUBJECTS[one].a_step)  # first, so that all end soon
    end_together()
    with ThreadPoolExecutor(args.workers) as pool:
        try:
            failed = [
                one
                for of in pool.map(lambda one: run_subject(one, parts, args), longest)
                for one in of
            ]
        except KeyboardInterrupt:  # the commands are stopped, too; they keep what they have
            STOPPED.set()
            raise
    tables = [pd.read_csv(args.out / one / "verdicts.csv") for one in subjects]
    table = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()
    for row in json.loads(table.to_json(orient="records") or "[]"):
        number = with_span(row["value"], row["low"], row["high"], ".2f")
        print(f"{row['subject']}: {row['question']} {row['what']}: {number}; {row['verdict']}")
    if failed:
        sys.exit(f"not done: {', '.join(failed)}")


if __name__ == "__main__":
    main()
