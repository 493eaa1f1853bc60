"""The commands that train, run and record models, and describe files."""

from trm_interp.cli.options import Command
from trm_interp.recording.settings import HooksConfig, InfoConfig
from trm_interp.subjects.settings import CollectConfig, EvalConfig, QuickstartConfig, RunConfig

COMMANDS = [
    Command(
        name="quickstart",
        title="Models",
        config=QuickstartConfig,
        target="trm_interp.report.quickstart:run",
        doc="Solve puzzles with the checkpoint that ships, record every state, draw trajectories.",
        examples="trm-interp quickstart",
        unit="puzzles",
    ),
    Command(
        name="eval",
        title="Models",
        config=EvalConfig,
        target="trm_interp.studies.accuracy:run",
        doc="Accuracy at every supervision step, with 95 % Wilson intervals over puzzles.",
        examples="""
        trm-interp eval --ckpt artifacts/trm-sudoku6 --puzzles artifacts/data/sudoku6/test.txt
        trm-interp eval --ckpt step_65104 --puzzles test.csv --steps 32 --json
        torchrun --nproc-per-node 8 -m trm_interp eval --ckpt step_65104 --puzzles test.csv
        """,
        unit="puzzles",
        label="solving",
        has_json=True,
        shards=True,
        team=True,
        writes="csv",
    ),
    Command(
        name="collect",
        title="Models",
        config=CollectConfig,
        target="trm_interp.recording.collect:collect",
        doc="Record states and activations of every network evaluation into an HDF5 store.",
        examples="""
        trm-interp collect --ckpt artifacts/trm-sudoku6 --puzzles artifacts/data/sudoku6/test.txt \\
            --out runs/states --limit 64
        trm-interp collect --ckpt CKPT --puzzles FILE --out runs/resid --sites z_L,resid \\
            --steps 0-3,15 --resume
        """,
        unit="puzzles",
        label="recording",
        pushes=True,
        shards=True,
        team=True,
    ),
    Command(
        name="train",
        title="Models",
        config=RunConfig,
        target="trm_interp.subjects.training:run",
        doc="Train a recursive model on puzzle files: deep supervision, EMA, exact resume.",
        examples="""
        trm-interp data make sudoku6 --seed 0
        trm-interp train --train data/sudoku6/train.txt --val data/sudoku6/val.txt \\
            --out runs/mine --preset sudoku6
        trm-interp train --train T --val V --out runs/big --budget 22m --curriculum
        trm-interp train --train T --val V --out runs/big --budget 22m --curriculum --resume
        torchrun --nproc-per-node 2 -m trm_interp train --train T --val V --out runs/two
        """,
        unit="steps",
        label="training",
        pushes=True,
    ),
    Command(
        name="info",
        title="Models",
        config=InfoConfig,
        target="trm_interp.recording.info:run",
        doc="""
        What a store, a checkpoint, a file of puzzles or an SAE is. A store with a problem ends in
        exit status 2.
        """,
        examples="""
        trm-interp info artifacts/trm-sudoku6
        trm-interp info runs/states --json
        trm-interp info runs/states --validate
        """,
        has_json=True,
    ),
    Command(
        name="hooks",
        title="Models",
        config=HooksConfig,
        target="trm_interp.recording.listing:run",
        doc="Names of all hook points of a run.",
        examples="""
        trm-interp hooks --steps 1
        trm-interp hooks --ckpt step_65104 --cells 81
        """,
        has_json=True,
    ),
]
