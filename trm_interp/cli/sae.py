"""The commands on sparse autoencoders: settings in, one call, what came of it out."""

import json
from typing import Any

import typer

from trm_interp.cli.options import AsJson, command, how_to_go_on, say
from trm_interp.sae.config import EvalSAEConfig, FeaturesConfig, SteerConfig, TrainSAEConfig


def register(app: typer.Typer) -> None:
    """Add train-sae, sae-eval, features and steer."""

    @command(
        app,
        "train-sae",
        TrainSAEConfig,
        examples="""
        trm-interp train-sae runs/states --site z_L --out runs/sae
        trm-interp train-sae runs/states --site z_L,z_H --out runs/sae --arch topk --k 24 --balance
        trm-interp train-sae runs/states --site z_L --out runs/sae --revive resample
        trm-interp train-sae runs/states --site z_L --out runs/sae --resume
        """,
    )
    def train(config: TrainSAEConfig) -> None:
        """Train a sparse autoencoder on recorded activations; exact resume."""
        from trm_interp.runtime.progress import progress
        from trm_interp.sae.train import train_sae

        with progress("training", "steps") as update:
            finished = train_sae(config, say, update)
            last = update.note
        if not finished:
            say(f"stopped before the end: {how_to_go_on(config.overwrite)}")
            raise typer.Exit(130)
        measure = f"measure it: trm-interp sae-eval {config.out} STORE"
        print(f"wrote {config.out} ({'; '.join(filter(None, [last, measure]))})")

    @command(
        app,
        "sae-eval",
        EvalSAEConfig,
        examples="""
        trm-interp sae-eval runs/sae runs/states
        trm-interp sae-eval runs/sae runs/states --tick 60 --overwrite
        trm-interp sae-eval runs/sae runs/states --no-loop --json --out runs/quick.json
        """,
    )
    def evaluate(config: EvalSAEConfig, json_: AsJson = False) -> None:
        """Measure an SAE on held-out puzzles: FVU, L0, dead features, loss recovered."""
        from trm_interp.runtime.progress import progress
        from trm_interp.sae.evaluate import evaluate_sae, lines, measures_file

        with progress("encoding", "puzzles") as update:
            result = evaluate_sae(config, say, update)
        if json_:
            print(json.dumps(result.to_json()))
        else:
            _print(lines(result))
        say(f"wrote {measures_file(config)}")

    @command(
        app,
        "features",
        FeaturesConfig,
        examples="""
        trm-interp features runs/sae runs/states --out runs/features
        trm-interp features runs/sae runs/other --out runs/features --all-puzzles --limit 200
        """,
    )
    def features(config: FeaturesConfig) -> None:
        """What features do over time and mean on the board: tables, figure 1, offline dashboard."""
        from trm_interp.runtime.progress import progress
        from trm_interp.sae.features import look_at_features

        with progress("encoding", "puzzles") as update:
            files = look_at_features(config, say, update)
        for name, file in files.items():
            print(f"wrote {file} ({name})")

    @command(
        app,
        "steer",
        SteerConfig,
        examples="""
        trm-interp steer runs/sae runs/states --feature 12
        trm-interp steer runs/sae runs/states --feature 12 --mode clamp --value 1 --ticks 0-20
        trm-interp steer runs/sae runs/states --feature 12 --mode steer --value 0.5 --cells 0-5
        """,
    )
    def steer(config: SteerConfig, json_: AsJson = False) -> None:
        """Ablate, clamp or steer one feature while the model runs, beside matched controls."""
        from trm_interp.runtime.progress import progress
        from trm_interp.sae.steer import lines
        from trm_interp.sae.steer import steer as run

        with progress("steering", "features") as update:
            result = run(config, say, update)
        if json_:
            print(json.dumps(result.to_json()))
        else:
            _print(lines(result))
        if config.out:
            say(f"wrote {config.out}")


def _print(parts: list[Any]) -> None:
    """Tables and lines."""
    from trm_interp.cli.tables import show

    for part in parts:
        print(part) if isinstance(part, str) else show(part)
