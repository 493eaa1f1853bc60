"""The commands on sparse autoencoders."""

from trm_interp.cli.options import Command
from trm_interp.sae.circuits_settings import CircuitsConfig
from trm_interp.sae.settings import EvalSAEConfig, FeaturesConfig, SteerConfig, TrainSAEConfig

COMMANDS = [
    Command(
        name="train-sae",
        title="Features",
        config=TrainSAEConfig,
        target="trm_interp.sae.train:run",
        doc="Train a sparse autoencoder on activations of one store or several; exact resume.",
        examples="""
        trm-interp train-sae runs/states --site z_L --out runs/sae
        trm-interp train-sae runs/states --site z_L,z_H --out runs/sae --arch topk --active 24
        trm-interp train-sae runs/states --site z_L --out runs/sae --revive resample
        trm-interp train-sae runs/states --site z_L --out runs/sae --resume
        trm-interp train-sae runs/states runs/more --site z_L --out runs/pooled
        """,
        unit="steps",
        label="training",
        pushes=True,
    ),
    Command(
        name="sae-eval",
        title="Features",
        config=EvalSAEConfig,
        target="trm_interp.sae.evaluate:run",
        doc="Measure an SAE on held-out puzzles: FVU, L0, dead features, loss recovered.",
        examples="""
        trm-interp sae-eval runs/sae runs/states
        trm-interp sae-eval runs/sae runs/states --tick 60 --overwrite
        trm-interp sae-eval runs/sae runs/states --no-loop --json --out runs/quick.json
        """,
        unit="puzzles",
        label="encoding",
        has_json=True,
    ),
    Command(
        name="features",
        title="Features",
        config=FeaturesConfig,
        target="trm_interp.sae.features:run",
        doc="What features do over time and mean on the board: tables, figure 1, dashboard.",
        examples="""
        trm-interp features runs/sae runs/states --out runs/features
        trm-interp features runs/sae runs/other --out runs/features --all-puzzles --limit 200
        """,
        unit="puzzles",
        label="encoding",
    ),
    Command(
        name="steer",
        title="Features",
        config=SteerConfig,
        target="trm_interp.sae.steer:run",
        doc="Ablate, clamp or steer one feature while the model runs, next to matched controls.",
        examples="""
        trm-interp steer runs/sae runs/states --feature 12
        trm-interp steer runs/sae runs/states --feature 12 --mode clamp --value 1 --ticks 0-20
        trm-interp steer runs/sae runs/states --feature 12 --mode steer --value 0.5 --at-cells 0-5
        """,
        unit="features",
        label="steering",
        has_json=True,
        says_out=True,
        shards=True,
    ),
    Command(
        name="circuits",
        title="Features",
        config=CircuitsConfig,
        target="trm_interp.sae.circuits:run",
        doc="Which features drive which ones an H-cycle later: a graph, checked by ablation.",
        examples="""
        trm-interp circuits runs/sae runs/states --out runs/circuits
        trm-interp circuits runs/sae runs/states --features 3,17,40 --ticks 5,12 --out runs/two
        """,
        unit="puzzles",
        label="following",
        has_json=True,
        says_out=True,
        shards=True,
    ),
]
