"""The command lines that make the figures and tables of the seed paper, with times and sizes."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from trm_interp.core.flops import step_flops
from trm_interp.core.models.base import RecursiveModel
from trm_interp.core.models.config import ModelConfig
from trm_interp.figures.look import Look
from trm_interp.recording.collect import sites_of
from trm_interp.recording.sites import RESIDUAL
from trm_interp.recording.store import estimate_bytes
from trm_interp.report.sweep.jobs import Job
from trm_interp.sae.settings import EvalSAEConfig, FeaturesConfig, TrainSAEConfig
from trm_interp.search.settings import SearchRun
from trm_interp.studies.settings import CONFIGS as STUDIES
from trm_interp.subjects.settings import CollectConfig

STORED, SAE_STORED = 256, 96  # puzzles in the store of states, and in the SAE's
BEGIN = 0.3  # minutes of every job: imports, compilers, pictures
STEPS = 16  # supervision steps that are recorded
FLAGS = ("resume", "overwrite")
CONFIGS: dict[str, type] = STUDIES | {
    **{"collect": CollectConfig, "search": SearchRun, "train-sae": TrainSAEConfig},
    **{"sae-eval": EvalSAEConfig, "features": FeaturesConfig},
}
UNIT_FLOPS = 306_616_320  # of a supervision step of the model that minutes were measured on


def shown_by(command: str) -> str:
    """What a command is for, in a sentence.

    >>> shown_by("outcomes"), shown_by("collect")
    ('Which puzzles are solved when.', 'Record activations of a checkpoint.')
    """
    first = (CONFIGS[command].__doc__ or "").partition("\n")[0]
    return first.partition(". ")[0].removesuffix(".") + ("" if first.endswith("?") else ".")


@dataclass(frozen=True)
class Request:
    """What all jobs of a plan share."""

    ckpt: str = ""  # default the one that ships
    puzzles: Path | None = None
    out: Path = Path("runs/landscape")
    seed: int = 0
    device: str = "auto"
    look: Look = Look(static=True)
    scale: float = 1.0  # of the numbers of puzzles and starts; below 1 for a trial
    skip_bad: bool = False
    made_by: str = ""  # the command line that asks


class Recipes:
    """Every job of the paper, for a model on the puzzles of a file, `n_puzzles` of them.

    ckpt: the folder or file of the model, as command lines name it.
    """

    def __init__(
        self, request: Request, model: RecursiveModel, ckpt: Path, puzzles: Path, n_puzzles: int
    ) -> None:
        self.out, self.scale, self.n_puzzles = request.out, request.scale, n_puzzles
        self.model, self.ckpt = model, str(ckpt)
        self.cost = cost_of(model.config) * request.scale
        skip_bad = ("--skip-bad",) if request.skip_bad else ()
        self.device = ("--device", request.device)
        self.on = ("--ckpt", self.ckpt, "--puzzles", str(puzzles), *self.device, *skip_bad)
        self.seed = ("--seed", str(request.seed))
        self.look = request.look.words

    def all(self) -> list[Job]:
        """The jobs; those that others need come first."""
        return [*self._studies(), *self._sae(), *self._searches()]

    def _studies(self) -> Iterator[Job]:
        stored, states = self._n(STORED, 16), ",".join(self.model.state_names)
        collect = ("collect", *self.on, "--limit", str(stored))
        size = self._megabytes(states, stored)
        answer, device = self.model.answer, self.device
        yield self._job("store", collect, 1, size, done="store.h5")
        yield self._of_puzzles("table1", "outcomes", 2, "--limit", self._n(1000, 16))
        yield self._of_store("fig2", "trajectories", 1)
        yield self._of_store(f"fig2-{answer}", "trajectories", 1, "--site", answer)
        yield self._of_puzzles("fig3", "basins", 15, "--starts", self._n(1000, 30))
        yield self._of_puzzles("fig4", "losses", 2, "--limit", self._n(512, 16))
        yield self._of_store("fig5", "divergence", 4, *device)
        yield self._of_puzzles("settling", "settling", 5, "--limit", self._n(256, 16))
        yield self._of_puzzles("stability", "stability", 5, "--limit", self._n(256, 16))
        yield self._of_puzzles("origins", "origins", 4, "--limit", self._n(60, 8))
        yield self._of_store("lens", "lens", 2, *device)
        yield self._of_store("probes", "probes", 3, *device)

    def _sae(self) -> Iterator[Job]:
        """An SAE of all sites of the residual stream, pooled as the paper pools them, and its
        features at the last one, which is the state that an evaluation writes."""
        names = self.model.site_names(self.model.config)
        site = names[-1] if names else self.model.latent
        residual = any(name.endswith(RESIDUAL) for name in names)
        sites = "resid" if residual else site
        stored, steps = self._n(SAE_STORED, 16), self._n(700, 20)
        store, sae = str(self.out / "fig1-store"), self.out / "fig1-sae"
        device, after = self.device, ("fig1-store", "fig1-sae")
        collect = ("collect", *self.on, "--limit", str(stored), "--sites", sites)
        size = self._megabytes(sites, stored)
        yield self._job("fig1-store", collect, 1, size, done="store.h5")
        train = ("train-sae", store, "--site", sites, "--balance", "--train-steps", str(steps))
        train = (*train, *self.seed, *device)
        yield self._job("fig1-sae", train, 6, 20, done="card.json", after=("fig1-store",))
        measure = ("sae-eval", str(sae), store, "--ckpt", self.ckpt, *device)
        yield Job(
            "sae",
            measure,
            sae,
            done="measures.json",
            after=after,
            minutes=BEGIN + 6 * self.cost,
            flags=flags_of(measure[0]),
            is_guest=True,
        )
        at = ("--site", site)
        features = ("features", str(sae), store, *at, *self.seed, *device, *self.look)
        yield self._job("fig1", features, 3, 10, after=after)

    def _searches(self) -> Iterator[Job]:
        yield self._search("table2")

    def _n(self, full: int, least: int) -> int:
        return max(least, round(full * self.scale))

    def _of_puzzles(self, name: str, command: str, minutes: float, *words: object) -> Job:
        """A study that runs the model."""
        common = (*self.on, *self.seed, *self.look)
        return self._job(name, (command, *map(str, words), *common), minutes, 10)

    def _of_store(self, name: str, command: str, minutes: float, *words: str) -> Job:
        """A study that reads the store of states."""
        store, common = str(self.out / "store"), (*self.seed, *self.look)
        return self._job(name, (command, store, *words, *common), minutes, 10, after=("store",))

    def _search(self, name: str, *words: object) -> Job:
        """Its table is a file in a folder of its own; the summary next to it comes last."""
        folder = self.out / name
        ends = (*self.seed, "--limit", str(self._n(200, 4)), "--out", str(folder / f"{name}.csv"))
        command = ("search", "--preset", "paper", *map(str, words), *self.on, *ends)
        minutes = BEGIN + 12 * self.cost
        flags = flags_of("search")
        return Job(name, command, folder, f"{name}.json", minutes=minutes, flags=flags)

    def _job(
        self,
        name: str,
        words: Iterable[str],
        minutes: float,
        megabytes: float,
        done: str = "summary.json",
        after: tuple[str, ...] = (),
    ) -> Job:
        """A command that fills a folder of that name. `minutes`: where a step is of UNIT_FLOPS."""
        folder = self.out / name
        words = (*words, "--out", str(folder))
        return Job(
            name,
            words,
            folder,
            done,
            after,
            minutes=BEGIN + minutes * self.cost,
            megabytes=megabytes,
            flags=flags_of(words[0]),
        )

    def _megabytes(self, sites: str, n_puzzles: int) -> float:
        """Size of a store of `n_puzzles`, or of all puzzles where the file has fewer."""
        arrays = sites_of(self.model.config, sites, STEPS)
        return estimate_bytes(arrays, min(n_puzzles, self.n_puzzles)) / 1e6


def flags_of(command: str) -> tuple[str, ...]:
    """Which of --resume and --overwrite a command has.

    >>> flags_of("lens")
    ('--overwrite',)
    """
    settings = CONFIGS[command].__dataclass_fields__
    return tuple(f"--{name}" for name in FLAGS if name in settings)


def cost_of(config: ModelConfig) -> float:
    """Arithmetic of a supervision step over that of the model that minutes are given for."""
    return step_flops(config) / UNIT_FLOPS
