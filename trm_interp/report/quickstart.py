"""A first look at a model: solve, record, draw, and say what to try next."""

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from rich.table import Table

from trm_interp.analysis.outcomes import half_failed, outcome_table
from trm_interp.analysis.trajectories import trajectories
from trm_interp.core.checkpoints.folder import Checkpoint
from trm_interp.core.models.base import RecursiveModel
from trm_interp.figures.index import INDEX, Entry, index_page, of_table
from trm_interp.figures.paper import caption_of
from trm_interp.figures.style import write_html
from trm_interp.figures.trajectories import trajectory_figure
from trm_interp.recording.collect import record_puzzles
from trm_interp.recording.sites import RESIDUAL
from trm_interp.recording.states import states_of
from trm_interp.recording.store import Store
from trm_interp.runtime.errors import UserError
from trm_interp.runtime.limits import counted
from trm_interp.runtime.outputs import maker, mark
from trm_interp.runtime.progress import Update
from trm_interp.runtime.runs import Run, Tell, quiet
from trm_interp.runtime.settings import command_line
from trm_interp.studies.accuracy import accuracy_table
from trm_interp.subjects.evaluate import solve
from trm_interp.subjects.opening import open_both, open_device
from trm_interp.subjects.settings import CollectConfig, QuickstartConfig, first_look
from trm_interp.tasks.base import PuzzleSet

COMMAND = "quickstart"
ACCURACY, STORE, FIGURE = "accuracy.csv", "store", "trajectories.html"
NAMES = (ACCURACY, FIGURE, INDEX, "plotly.min.js", f"{STORE}/")


@dataclass(frozen=True)
class FirstLook:
    """What `quickstart` made: `accuracy` and the recorded store are also files in `out`."""

    checkpoint: Path
    n_weights: int
    puzzles: Path
    n: int
    accuracy: pd.DataFrame
    out: Path
    seconds: float

    @property
    def table(self) -> Path:
        return self.out / ACCURACY

    @property
    def store(self) -> Path:
        return self.out / STORE

    @property
    def figure(self) -> Path:
        return self.out / FIGURE


def run(
    config: QuickstartConfig,
    tell: Tell = print,
    progress: Update = quiet,
    steps: int = 16,
) -> FirstLook:
    """Solve puzzles, record some of them and draw their trajectories, all into `config.out`."""
    began = time.monotonic()
    device = open_device(config.device)
    checkpoint, puzzles = open_both(
        config.ckpt or first_look(config.task),
        config.puzzles,
        device,
        config.n,
        config.skip_bad,
        tell,
    )
    n_weights = sum(p.numel() for p in checkpoint.model.parameters())
    with Run(
        config.out,
        COMMAND,
        NAMES,
        overwrite=config.overwrite,
        resumable=False,
        clears_at_once=False,
        tell=tell,
        progress=progress,
    ) as output:
        store = config.out / STORE
        if store.exists() and maker(store) != COMMAND:  # in a folder of this command's
            raise UserError(f"{store} was not made by `{COMMAND}`: choose another --out")
        output.stage("solving")
        read = solve(checkpoint.model, puzzles, steps, progress=output.advance)
        output.clear()
        solved = read.solved.numpy()
        table = outcome_table(solved)
        output.write_text(ACCURACY, table.to_csv(index=False))

        mark(store, COMMAND)
        chosen = puzzles.subset(half_failed(solved[:, -1], config.record))
        output.stage("recording")
        _record(checkpoint, chosen, config, store, steps, output.advance)
        figure = paths_of(store, checkpoint.path.name)
        write_html(figure, config.out / FIGURE)
        shown = [Entry(FIGURE, caption_of(figure))]
        rows = [of_table(ACCURACY, table), Entry(f"{STORE}/", "The recorded states, a store.")]
        made_by = command_line(COMMAND, config)
        output.write_text(INDEX, index_page(f"trm-interp {COMMAND}", made_by, [], shown, rows))
    return FirstLook(
        checkpoint.path,
        n_weights,
        Path(puzzles.source),
        len(puzzles),
        table,
        config.out,
        time.monotonic() - began,
    )


def _record(
    checkpoint: Checkpoint,
    puzzles: PuzzleSet,
    config: QuickstartConfig,
    store: Path,
    steps: int,
    progress: Update,
) -> None:
    settings = CollectConfig(
        ckpt=str(checkpoint.path),
        puzzles=Path(puzzles.source),
        out=store,
        sites=_sites(checkpoint.model),
        steps=str(steps),
        batch_size=8,
        device=config.device,
    )
    identity = {"checkpoint_sha256": checkpoint.sha256, "data_sha256": dict(puzzles.sha256)}
    record_puzzles(checkpoint, puzzles, settings, identity, progress=progress)


def _sites(model: RecursiveModel) -> str:
    """All states, and the residual stream of a model that has one."""
    has_residual = any(name.endswith(RESIDUAL) for name in model.site_names(model.config))
    return "states,resid" if has_residual else "states"


def paths_of(store_path: Path, model_name: str) -> go.Figure:
    """The trajectories of a store's latent state."""
    with Store(store_path) as store:
        state = store.latent
        pooled = trajectories(states_of(store, state), n_components=2, relative=True)
        frame = store.frame().pivot(index="puzzle", columns="step")
        return trajectory_figure(
            pooled.paths,
            pooled.explained,
            frame["loss"].to_numpy(),
            frame["solved"].to_numpy(),
            [f"puzzle of line {line}" for line in store["puzzle_id"][:]],
            np.arange(store.n_steps),
            f"{model_name}: latent state {state} of {counted(store.n_puzzles, 'puzzle')}, "
            f"{pooled.paths.shape[1]} updates each",
            state,
        )


def lines(look: FirstLook) -> list[str | Table]:
    """What was made, and what to do next."""
    ckpt, puzzles, files = look.checkpoint, look.puzzles, (look.table, look.store, look.figure)
    return [
        f"{ckpt}: {look.n_weights:,} weights; {counted(look.n, 'puzzle')} of {puzzles}",
        accuracy_table(look.accuracy, counted(look.n, "unseen puzzle")),
        f"wrote {files[0]}, {files[1]} and {files[2]} in {look.seconds:.0f} s",
        f"""
Look:   open {look.figure} in a browser (hover a point; click the legend to hide solved or failed)
Read:   python -c "import trm_interp; print(trm_interp.Store('{look.store}').frame())"
Next:   trm-interp info {look.store}
        trm-interp eval --ckpt {ckpt} --puzzles {puzzles} --steps 32
        trm-interp collect --ckpt {ckpt} --puzzles {puzzles} --out runs/states --limit 256
        trm-interp hooks --steps 1""",
    ]
