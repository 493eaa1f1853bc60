"""Every command at its smallest: a tiny world of files, and words that run in it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import typer
from conftest import invoke

from trm_interp.cli import app


class World(NamedTuple):
    """A checkpoint of 4x4 puzzles, puzzles, a store, an SAE and a shard; `out` for what commands
    write."""

    ckpt: Path
    puzzles: Path
    val: Path  # no copies of `puzzles`
    store: Path
    sae: Path
    shard: Path  # of eval, 1/1
    out: Path

    @property
    def table(self) -> Path:
        """A table of jobs."""
        file = self.val.with_name("jobs.yaml")
        if not file.exists():
            file.write_text("jobs: {one: {run: hooks}, two: {needs: one, run: 'info {one}'}}\n")
        return file


def make_world(ckpt: Path, puzzles: Path, folder: Path) -> World:
    """Record a store of 13 puzzles and train an SAE for three steps."""
    val = folder / "val.txt"
    val.write_text("..34341221434321,1234341221434321\n")
    world = World(
        ckpt,
        puzzles,
        val,
        folder / "store",
        folder / "sae",
        *(folder / name for name in ("shard", "out")),
    )
    for words in (
        ["collect", "--ckpt", ckpt, "--puzzles", puzzles, "--steps", 2, "--out", world.store],
        ["train-sae", world.store, "--site", "z_L", "--out", world.sae, *SMALL_SAE],
        [
            "eval",
            *SMALL_EVAL,
            "--ckpt",
            ckpt,
            "--puzzles",
            puzzles,
            "--shard",
            "1/1",
            "--out",
            world.shard,
        ],
    ):
        answer = invoke(*words)
        assert answer.code == 0, answer.err
    return world


SMALL_EVAL = ["--steps", 1, "--limit", 3]
SMALL_SAE = ["--train-steps", 3, "--expansion", 2, "--batch-size", 16, "--buffer-mb", 1]
SMALL_TRAIN = ["--preset", "tiny", "--train-steps", 1, "--d-model", 8, "--batch-size", 2]
SMALL_TRAIN += ["--n-sup", 1, "--n-heads", 2, "--val-limit", 2]
SMALL_BASINS = ["--starts", 4, "--neighbours", 2, "--slice", 2, "--steps", 1, "--n-puzzles", 1]
SMALL_BASINS += ["--shuffles", 3, "--limit", 4]


def smallest(world: World) -> dict[str, list[Any]]:
    """Words that run each command in about a second; those that need a network are left out."""
    model = ["--ckpt", world.ckpt, "--puzzles", world.puzzles]
    made, out = ["--out", world.out], world.out
    on_store = [world.store, *made]
    on_sae = [world.sae, world.store, "--limit", 1]
    return {
        "quickstart": [*model, *made, "--limit", 3, "--record", 2],
        "eval": [*model, *SMALL_EVAL],
        "collect": [*model, *made, "--steps", 1, "--limit", 3],
        "train": ["--train", world.puzzles, "--val", world.val, *made, *SMALL_TRAIN],
        "info": [world.store],
        "explore": [*model, *SMALL_EVAL, "--sae", world.sae, "--store", world.store],
        "hooks": ["--ckpt", world.ckpt, "--steps", 1],
        "train-sae": [world.store, *made, "--site", "z_L", *SMALL_SAE],
        "sae-eval": on_sae,
        "features": [*on_sae, *made, "--surrogates", 19],
        "steer": [*on_sae, "--feature", 0, "--controls", 1],
        "circuits": [*on_sae, *made, "--top", 2, "--controls", 1],
        "search": [*model, "--steps", 1, "--limit", 2, "--k", 2, "--out", out / "t.csv"],
        "solve": ["1234............", "--ckpt", world.ckpt, "--steps", 1, "--k", 2],
        "outcomes": [*model, *made, "--limit", 3, "--steps", 2],
        "losses": [*model, *made, "--limit", 3, "--steps", 2],
        "trajectories": on_store,
        "divergence": [*on_store, "--starts", 0],
        "lens": on_store,
        "probes": [*on_store, "--cycles", "0"],
        "basins": [*model, *made, *SMALL_BASINS],
        "origins": [*model, *made, "--limit", 2, "--copies", 2, "--starts", 2, "--steps", 1],
        "trace": [
            *[*model, *made, "--starts", 3, "--steps", 4, "--then", 2, "--sigma", 4],
            *["--pairs", 1, "--exact", 1],
        ],
        "used": [
            *[*model, *made, "--limit", 6, "--steps", 2, "--random", 1, "--sae", world.sae],
            *["--features", 1],
        ],
        "spread": [*model, *made, "--steps", 1, "--n-cells", 1],
        "stitch": [
            *[world.ckpt, world.ckpt, "--puzzles", world.puzzles, *made, "--limit", 2],
            *["--fit", 2, "--steps", 1, "--link-steps", 1, "--batch-size", 2],
        ],
        "settling": [*model, *made, "--limit", 2, "--steps", 5, "--long", 0],
        "stability": [*model, *made, "--limit", 2, "--steps", 5, "--fixed", 0, "--exponents", 1],
        "robustness": [
            *[*model, *made, "--limit", 2, "--steps", 1, "--then", 2, "--epsilons", "1"],
            *["--draws", 1, "--starts", 1, "--iterations", 1],
        ],
        "internalisation": [*model, *made, "--limit", 2, "--steps", 1, "--caps", "0,1"],
        "figures": [*model, *made, "--plan"],
        "compare": [f"{world.ckpt}@{world.puzzles}", *made, "--plan"],
        "merge": [world.shard],
        "cost": [f"eval --ckpt '{world.ckpt}' --puzzles '{world.puzzles}' --steps 1", "--json"],
        "sweep": [world.table, *made, "--dry-run"],
        "push": [world.ckpt, f"file://{out}", "--licence", "mit"],
        "data make": ["sudoku4", *made, "--n-train", 1, "--n-val", 1, "--n-test", 1],
        "data rate": [world.puzzles],
        "data check": [world.puzzles, world.puzzles],
        "data import": [world.puzzles, "--out", out / "p.txt"],
    }


def commands() -> Iterator[tuple[str, Any]]:
    """Every command of the app, by its words."""

    def walk(group: Any, path: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
        for name, command in group.commands.items():
            if hasattr(command, "commands"):
                yield from walk(command, (*path, name))
            else:
                yield " ".join((*path, name)), command

    return walk(typer.main.get_command(app), ())
