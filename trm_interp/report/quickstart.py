"""A first look at a TRM: solve, record, draw, and say what to try next."""

import time
from pathlib import Path

import numpy as np

from trm_interp.analysis.outcomes import half_failed, outcome_table
from trm_interp.analysis.trajectories import trajectories
from trm_interp.cli.options import say
from trm_interp.cli.tables import accuracy_table, show
from trm_interp.core.checkpoints.folder import Checkpoint
from trm_interp.figures.style import write_html
from trm_interp.figures.trajectories import trajectory_figure
from trm_interp.recording.collect import record_puzzles
from trm_interp.recording.states import states_of
from trm_interp.recording.store import Store
from trm_interp.runtime.errors import UserError
from trm_interp.runtime.files import write_text
from trm_interp.runtime.outputs import maker, mark, remove_own, writing
from trm_interp.runtime.progress import progress
from trm_interp.subjects.evaluate import solve
from trm_interp.subjects.opening import open_both, open_device
from trm_interp.subjects.settings import CollectConfig, QuickstartConfig, first_look

SITES = "z_L,z_H,resid"
COMMAND = "quickstart"
NAMES = ("accuracy.csv", "trajectories.html", "plotly.min.js", "store/")


def look(config: QuickstartConfig, steps: int = 16) -> None:
    """Everything that `trm-interp quickstart` does, into `config.out`."""
    began = time.monotonic()
    device = open_device(config.device)
    checkpoint, puzzles = open_both(
        config.ckpt or first_look(), config.puzzles, device, config.n, config.skip_bad, say
    )
    file = Path(puzzles.source)
    n_weights = sum(p.numel() for p in checkpoint.model.parameters())
    print(f"{checkpoint.path}: {n_weights:,} weights; {len(puzzles)} puzzles of {file}")

    overwrite = config.overwrite
    with writing(config.out, COMMAND, NAMES, overwrite=overwrite, resumable=False, clear=False):
        store = config.out / "store"
        if (
            store.exists() and maker(store) != COMMAND
        ):  # in a folder of this command's, but not made by it
            raise UserError(f"{store} was not made by `{COMMAND}`: choose another --out")
        with progress("solving", "puzzles") as update:
            read = solve(checkpoint.model, puzzles, steps, progress=update)
        remove_own(config.out, COMMAND, NAMES)
        solved = read.solved.numpy()
        table = outcome_table(solved)
        show(accuracy_table(table, f"{len(puzzles)} unseen puzzles"))
        table_file = config.out / "accuracy.csv"
        write_text(table_file, table.to_csv(index=False))

        chosen = half_failed(solved[:, -1], config.record)
        mark(store, COMMAND)
        settings = CollectConfig(
            ckpt=str(checkpoint.path),
            puzzles=file,
            out=store,
            sites=SITES,
            steps=str(steps),
            batch_size=8,
            device=config.device,
        )
        identity = {"checkpoint_sha256": checkpoint.sha256, "data_sha256": dict(puzzles.sha256)}
        subset = puzzles.subset(chosen)
        with progress("recording", "puzzles") as update:
            record_puzzles(checkpoint, subset, settings, identity, progress=update)
        figure_file = draw(store, config.out / "trajectories.html", checkpoint.path.name)
    print(f"wrote {table_file}, {store} and {figure_file} in {time.monotonic() - began:.0f} s")
    print(_next_steps(config, checkpoint, file, figure_file))


def draw(store_path: Path, to: Path, model_name: str) -> Path:
    """The trajectories of a store as an interactive page."""
    with Store(store_path) as store:
        found = trajectories(states_of(store, "z_L"), n_components=2, relative=True)
        frame = store.frame().pivot(index="puzzle", columns="step")
        figure = trajectory_figure(
            found.paths,
            found.explained,
            frame["loss"].to_numpy(),
            frame["solved"].to_numpy(),
            [f"puzzle of line {line}" for line in store["puzzle_id"][:]],
            np.arange(store.n_steps),
            f"{model_name}: latent state z_L of {store.n_puzzles} puzzles, "
            f"{found.paths.shape[1]} updates each",
            "z_L",
        )
    return write_html(figure, to)


def _next_steps(
    config: QuickstartConfig, checkpoint: Checkpoint, puzzles: Path, figure: Path
) -> str:
    ckpt = checkpoint.path
    return f"""
Look:   open {figure} in a browser (hover a point; click the legend to hide solved or failed)
Read:   python -c "from trm_interp.recording.store import Store; \\
            print(Store('{config.out / "store"}').frame())"
Next:   trm-interp info {config.out / "store"}
        trm-interp eval --ckpt {ckpt} --puzzles {puzzles} --steps 32
        trm-interp collect --ckpt {ckpt} --puzzles {puzzles} --out runs/states --limit 256
        trm-interp hooks --steps 1"""
