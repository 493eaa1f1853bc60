"""Subjects of a comparison: a checkpoint together with puzzles, by a name."""

import json
import math
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from trm_interp.core.checkpoints.folder import Checkpoint
from trm_interp.core.models.registry import settings_of
from trm_interp.core.training.states import MAY_CHANGE_ON_RESUME
from trm_interp.figures.look import Look
from trm_interp.report.claims import Claim
from trm_interp.report.effects import Effect
from trm_interp.report.plan import Plan
from trm_interp.report.recipes import Request
from trm_interp.report.settings import CompareConfig
from trm_interp.report.sweep.jobs import Job
from trm_interp.report.verdicts import Judged
from trm_interp.runtime.artifacts import existing
from trm_interp.runtime.errors import UserError
from trm_interp.runtime.settings import command_line

MOST_SCALE = 1000
SPLITS = ("test", "val", "train")  # files of these names are called by their folder's
NAME = re.compile(r"[\w.+@-]+")
AS_TRAINED = ("steps_done", "changes_on_resume", *MAY_CHANGE_ON_RESUME)  # differ between snapshots


@dataclass(frozen=True)
class Asked:
    """A subject as it was typed. `puzzles`: None for those that ship."""

    text: str
    name: str
    checkpoint: str
    puzzles: Path | None

    @classmethod
    def parsed(cls, text: str) -> "Asked":
        """Of [NAME=]CHECKPOINT[@PUZZLES]; a path that exists is one, whatever signs it has.

        >>> Asked.parsed("late=runs/mine@data/sudoku9/test.txt").name
        'late'
        >>> Asked.parsed("runs/mine@data/sudoku9/test.txt").name
        'mine@sudoku9'
        """
        name, rest = "", text
        if "=" in text and not existing(text).exists():
            name, _, rest = text.partition("=")
            if "/" in name:
                name, rest = "", text
        checkpoint, puzzles = rest, None
        if "@" in rest and not existing(rest).exists():
            checkpoint, _, file = rest.rpartition("@")
            if not checkpoint or not file:
                raise UserError(f"{text!r} is no subject: give CHECKPOINT or CHECKPOINT@PUZZLES")
            puzzles = Path(file)
        given = name or _name_of(checkpoint) + (f"@{_name_of(str(puzzles))}" if puzzles else "")
        if not NAME.fullmatch(given) or given.startswith("."):
            raise UserError(f"{text!r}: {given!r} cannot name a folder: give NAME=CHECKPOINT")
        return cls(text, given, checkpoint, puzzles)


def _name_of(path: str) -> str:
    """The last part of a path that tells something."""
    at = Path(path.rstrip("/"))
    is_split = at.suffix and at.stem in SPLITS and at.parent.name
    return at.parent.name if is_split else at.stem if at.suffix in (".txt", ".csv") else at.name


@dataclass
class Subject:
    """An opened subject with its studies in the folder `plan.request.out`.

    `judged`: its claims, once they are; `failed`: why each study that failed did.
    """

    name: str
    plan: Plan
    judged: list[tuple[Claim, Judged]] = field(default_factory=list)
    failed: Mapping[str, str] = field(default_factory=dict)

    @property
    def checkpoint(self) -> Checkpoint:
        return self.plan.checkpoint

    @cached_property
    def facts(self) -> dict[str, Any]:
        """What it is, in the columns of effects.csv; None for what the card does not say."""
        config, train = self.checkpoint.model.config, _part(self.checkpoint.card, "train")
        return {
            "subject": self.name,
            "puzzles": str(self.plan.puzzles),
            "task": self.plan.task.name,
            "architecture": self.checkpoint.model.architecture,
            "seed": train.get("seed"),
            "weights": config.n_weights,
            "training_step": training_step(self.checkpoint.card),
        }

    @cached_property
    def run(self) -> str:
        """Tells training runs apart: snapshots along one run are no independent models."""
        train = _part(self.checkpoint.card, "train")
        if "seed" not in train or "data_sha256" not in train:
            return self.checkpoint.sha256
        own = {name: value for name, value in train.items() if name not in AS_TRAINED}
        return json.dumps([settings_of(self.checkpoint.model.config), own], sort_keys=True)

    def effects(self) -> list[Effect]:
        """Those of all claims that were measured."""
        return [one for _, judged in self.judged for one in judged.effects]

    def commands(self, claim: Claim) -> list[str]:
        """The command lines whose results a claim is judged by, in the order in which they run."""
        return [shlex.join(["trm-interp", *job.words]) for job in self.jobs(claim)]

    def jobs(self, claim: Claim) -> list[Job]:
        """The jobs that a claim needs, with those that they need."""
        names = list(claim.needs)
        jobs = {job.name: job for job in self.plan.all}
        for name in names:  # grows while it is read
            names += [need for need in jobs[name].after if need not in names]
        return [job for job in self.plan.all if job.name in names]


def training_step(card: Mapping[str, Any]) -> int | None:
    """Optimizer steps after which the weights were taken: of a kept checkpoint its own, else those
    of the best validation, else all that were done."""
    for one in (card, _part(card, "validation")):
        if isinstance(one.get("step"), int):
            return one["step"]
    done = _part(card, "train").get("steps_done")
    return done if isinstance(done, int) else None


def _part(card: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = card.get(name)
    return part if isinstance(part, dict) else {}


def scales_of(config: CompareConfig, names: Sequence[str]) -> dict[str, float]:
    """The factor on the numbers of puzzles and starts, by subject. UserError for a name that no
    subject has, and for what is no factor."""
    scales = dict.fromkeys(names, config.scale)
    for part in filter(None, (config.scales or "").split(",")):
        name, _, factor = part.strip().partition("=")
        if name not in scales:
            raise UserError(f"scales: no subject {name!r}; there are {', '.join(names)}")
        try:
            scales[name] = float(factor)
        except ValueError:
            scales[name] = math.nan
        if not 0 < scales[name] <= MOST_SCALE:
            raise UserError(f"scales: {part.strip()!r} is not NAME=FACTOR with a factor up to 1000")
    return scales


def open_subjects(
    config: CompareConfig, jobs: Sequence[str], tell: Callable[[str], None]
) -> list[Subject]:
    """All subjects, before anything is computed. UserError for two of the same name, and for
    checkpoints and puzzles that cannot be read or do not go together."""
    asked = [Asked.parsed(text) for text in config.subjects]
    for i, one in enumerate(asked):
        if earlier := [other for other in asked[:i] if other.name == one.name]:
            raise UserError(
                f"{earlier[0].text} and {one.text} are both called {one.name}: "
                f"give one of them a name, such as other={one.text.rpartition('=')[2]}"
            )
    scales, subjects = scales_of(config, [one.name for one in asked]), []
    for one in asked:
        request = Request(
            one.checkpoint,
            one.puzzles,
            config.out / one.name,
            config.seed,
            config.device,
            Look.of(config),
            scales[one.name],
            config.skip_bad,
            command_line("compare", config),
        )
        try:
            plan = Plan(request, jobs)
        except UserError as error:
            raise UserError(_as_subject(str(error), one.checkpoint)) from None
        tell(f"{one.name}: {plan.checkpoint.path} on {plan.puzzles}")
        for line in plan.skipped:
            tell(f"{one.name}: skipped {line}")
        subjects.append(Subject(one.name, plan))
    return subjects


def _as_subject(problem: str, checkpoint: str) -> str:
    """A problem of --ckpt and --puzzles, in the words of this command."""
    return (
        problem.replace("give --puzzles", f"give {checkpoint}@PUZZLES")
        .replace("--puzzles ", f"{checkpoint}@")
        .replace("--ckpt ", "the checkpoint ")
        .replace("another --ckpt", "another checkpoint")
    )
