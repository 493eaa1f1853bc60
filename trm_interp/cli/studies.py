"""The commands that run studies."""

from trm_interp.cli.options import Command
from trm_interp.studies.settings import CONFIGS

STUDIES: dict[str, tuple[str, str, str]] = {
    # name: what the study shows, what progress counts, examples
    "outcomes": (
        "Which puzzles are solved when, lost again, and whether the halting head knows it.",
        "puzzles",
        """
        trm-interp outcomes --out runs/outcomes
        trm-interp outcomes --ckpt step_65104 --puzzles test.csv --limit 2000 --out runs/outcomes
        """,
    ),
    "trajectories": (
        "Paths of a state through one pooled PCA, in 2-D and 3-D, with the board of each step.",
        "puzzles",
        """
        trm-interp trajectories runs/states --out runs/trajectories
        trm-interp trajectories runs/states --site answer --pooled --umap --out runs/paths
        """,
    ),
    "divergence": (
        "Distance to the successes at every update, over puzzles and over starts of one puzzle.",
        "puzzles",
        """
        trm-interp divergence runs/states --out runs/divergence
        trm-interp divergence runs/states --starts 0 --out runs/divergence
        """,
    ),
    "losses": (
        "The loss after every H-cycle by outcome, in every convention.",
        "puzzles",
        """
        trm-interp losses --out runs/losses
        trm-interp losses --ckpt artifacts/trm-sudoku9 --limit 200 --steps 32 --out runs/losses
        """,
    ),
    "basins": (
        "Where runs of a puzzle end that start elsewhere: answers, states, solve maps.",
        "starts",
        """
        trm-interp basins --out runs/basins
        trm-interp basins --out runs/basins --index 3,17 --target all --per-position
        trm-interp basins --out runs/basins --slice 61 --starts 4000 --resume
        """,
    ),
    "origins": (
        "Do failures come from the puzzle, its symmetric copy or the start? Breadth against depth.",
        "runs",
        """
        trm-interp origins --out runs/origins
        trm-interp origins --ckpt artifacts/trm-sudoku9 --limit 40 --steps 8 --out runs/origins9
        """,
    ),
    "trace": (
        "When and where a run's fate is decided: patches between solved and failed starts.",
        "reruns",
        """
        trm-interp trace --out runs/trace
        trm-interp trace --limit 200 --pairs 40 --every h_cycle --out runs/trace
        trm-interp trace --sites states,blocks.0.hook_mlp_out --window 3 --out runs/windows
        """,
    ),
    "used": (
        "Is what probes and SAE features read used? Each is taken out, beside controls.",
        "reruns",
        """
        trm-interp used --out runs/used
        trm-interp used --moments 1,4 --once --sae runs/sae --out runs/used-features
        """,
    ),
    "spread": (
        "How far a change of one given, or of one cell's states, reaches after each evaluation.",
        "steps of changed runs",
        """
        trm-interp spread --out runs/spread
        trm-interp spread --kind state --after 2 --steps 2 --out runs/spread-late
        """,
    ),
    "stitch": (
        "How much of one model's state another one understands: a trained link, and its controls.",
        "link steps",
        """
        trm-interp stitch artifacts/trm-sudoku6 artifacts/trm-sudoku6-seed1 --out runs/stitch
        trm-interp stitch artifacts/trm-sudoku6 artifacts/trm-sudoku6 --steps 1 --out runs/own
        """,
    ),
    "lens": (
        "The output head on every state at every tick: when cells are decided, how often revised.",
        "puzzles",
        """
        trm-interp lens runs/states --out runs/lens
        """,
    ),
    "probes": (
        "Linear probes for candidates and rule violations, with controls, on unseen puzzles.",
        "fits",
        """
        trm-interp probes runs/states --out runs/probes
        trm-interp probes runs/states --out runs/probes --cycles 0-5,47 --held-out 0.5
        """,
    ),
    "settling": (
        "Do runs come to rest, cycle or wander, and do failures escape in long rollouts?",
        "puzzle steps",
        """
        trm-interp settling --out runs/settling
        trm-interp settling --ckpt artifacts/trm-sudoku9 --long 256 --out runs/settling9
        """,
    ),
    "stability": (
        "Lyapunov exponents by outcome, and the fixed points near where runs end.",
        "puzzle steps",
        """
        trm-interp stability --out runs/stability
        trm-interp stability --exponents 4 --sample 24 --fixed 0 --out runs/exponents
        """,
    ),
    "robustness": (
        "How large a noise the ends of runs survive, and in which directions.",
        "puzzle steps",
        """
        trm-interp robustness --out runs/robustness
        trm-interp robustness --epsilons 0.1,0.5,1 --draws 8 --leading 0 --out runs/robustness
        """,
    ),
    "internalisation": (
        "What is left when the inner loop is cut short, and how near its fixed point that is.",
        "puzzles",
        """
        trm-interp internalisation --out runs/internalisation
        trm-interp internalisation --ckpt runs/equilibrium --kept --out runs/over-training
        """,
    ),
}


def study(name: str, config: type, doc: str, unit: str, examples: str, module: str = "") -> Command:
    """The row of a study. `module`: where it is; by default the one of its name in `studies`."""
    return Command(
        name=name,
        title="Studies",
        config=config,
        target=f"{module or f'trm_interp.studies.{name}'}:run",
        doc=doc,
        examples=examples,
        unit=unit,
        has_json=True,
        says_out=True,
        shards=True,
    )


COMMANDS = [study(name, CONFIGS[name], *row) for name, row in STUDIES.items()]
