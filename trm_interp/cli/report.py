"""The commands that make figures, tables and verdicts, count what commands take, share work."""

from trm_interp.cli.options import Command
from trm_interp.report.settings import CompareConfig, CostConfig, FiguresConfig, PushConfig
from trm_interp.report.sweep.settings import SweepConfig

COMMANDS = [
    Command(
        name="figures",
        title="Studies",
        config=FiguresConfig,
        target="trm_interp.report.paper:run",
        doc="""
        Tables 1 and 2, figures 1 to 5 and the claims table: HTML and numbers, PNG, PDF.

        Every job is a command of its own, run in a folder of its own; the same command again goes
        on with what is missing, and with --retry-failed tries again what failed.
        """,
        examples="""
        trm-interp figures --out runs/figures --plan
        trm-interp figures --ckpt artifacts/trm-sudoku9 --out runs/figures9
        trm-interp figures --out runs/figures --only fig3,table2 --scale 0.1
        """,
        unit="s",
        label="expected work",
    ),
    Command(
        name="compare",
        title="Studies",
        config=CompareConfig,
        target="trm_interp.report.compare:run",
        doc="""
        The claims of the seed paper on several checkpoints: effects, verdicts, and over all.

        Every study is a command of its own, run in a folder a subject; the same command again goes
        on with what is missing, and with --retry-failed tries again what failed. Snapshots
        of one training run count as one checkpoint.
        """,
        examples="""
        trm-interp compare artifacts/trm-sudoku6 artifacts/trm-sudoku6-seed2 --out runs/compare
        trm-interp compare artifacts/trm-sudoku9 \\
            artifacts/trm-sudoku9@artifacts/data/sudoku9-hard/test.csv --out runs/nine --scale 0.1
        trm-interp compare runs/mine/kept/* --out runs/along --only F2,W1,W2
        """,
        unit="s",
        label="expected work",
    ),
    Command(
        name="cost",
        title="Studies",
        config=CostConfig,
        target="trm_interp.cli.cost:run",
        doc="""
        What a command would compute, write and take, from its options and one timed batch.

        Of eval, outcomes, losses, collect, settling, stability, search, basins, trace and train.
        Nothing is run or written.
        """,
        examples="""
        trm-interp cost "basins --starts 1000000 --n-puzzles 1"
        trm-interp cost "collect --sites states,resid --limit 10000"
        trm-interp cost "search --k 1024 --limit 1000" --tflops 400
        """,
        has_json=True,
    ),
    Command(
        name="sweep",
        title="Studies",
        config=SweepConfig,
        target="trm_interp.cli.sweep:run",
        doc="""
        Run a table of jobs, each an ordinary command line: seeds x settings x presets of training
        and of studies, with what needs what, on this machine or a Slurm cluster.

        The same command again goes on with what is missing: jobs that are done are skipped, those
        that were stopped are resumed, those that failed wait for --retry-failed. A job that fails
        keeps its log and stops only those that need it.
        """,
        examples="""
        trm-interp sweep seeds.yaml --dry-run
        trm-interp sweep seeds.yaml --workers 4
        trm-interp sweep seeds.yaml --executor slurm --retry-failed
        """,
        unit="jobs",
        label="sweep",
    ),
    Command(
        name="push",
        title="Models",
        config=PushConfig,
        target="trm_interp.report.push:run",
        doc="""
        Share a store, an SAE or a checkpoint on the Hugging Face hub, with a card that says what it
        is and where it comes from.

        All files are pushed in one commit, or none. `hf://owner/name` then stands for the folder in
        --ckpt, for the SAE and for the store of every command.
        """,
        examples="""
        trm-interp push runs/mine hf://me/my-trm --licence mit
        trm-interp push runs/states hf://me/my-states --licence cc-by-4.0
        trm-interp push runs/sae file:///shared/my-sae --licence mit
        """,
        has_json=True,
    ),
]
