"""Tiny models and puzzles, and shape annotations that are checked while the tests run."""

import os
import signal
from collections.abc import Callable
from importlib import import_module
from itertools import islice, permutations
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from checked import checking
from typer.testing import CliRunner
from xdist.scheduler import LoadFileScheduling

# started in the background of a shell, this process and those that it starts would ignore Ctrl-C
signal.signal(signal.SIGINT, signal.default_int_handler)
# programs that tests start share two cores with the tests of another worker
os.environ.setdefault("OMP_NUM_THREADS", "1")
if not torch.cuda.is_available():  # before anything imports triton
    os.environ.setdefault("TRITON_INTERPRET", "1")

CHECKED = ["checkpoints.folder", "infer", "models.base", "models.blocks"]
CHECKED += ["models.layers", "models.trm"]
CHECKED += ["losses", "tangent", "training.optimizers"]
CHECKED = [f"trm_interp.core.{name}" for name in [*CHECKED, "training.trainer"]]
CHECKED += ["trm_interp.recording.hooks", "trm_interp.analysis", "trm_interp.figures"]
CHECKED += [f"trm_interp.search.{name}" for name in ("engine", "noise", "selection")]
# first: what a hooked module imports is otherwise compiled anew in every process, not read from
# its bytecode
for library in ("beartype.claw", "diptest", "plotly.express", "scipy.stats", "transformer_lens"):
    import_module(library)
with checking(CHECKED):
    import trm_interp.analysis.bimodality
    import trm_interp.analysis.control
    import trm_interp.analysis.fixed_points
    import trm_interp.analysis.lyapunov
    import trm_interp.analysis.outcomes
    import trm_interp.analysis.settling
    import trm_interp.analysis.trajectories
    import trm_interp.core.checkpoints.folder
    import trm_interp.core.infer
    import trm_interp.core.models.trm  # the registry imports it later
    import trm_interp.core.tangent
    import trm_interp.core.training.trainer
    import trm_interp.figures.dynamics
    import trm_interp.figures.trajectories
    import trm_interp.recording.hooks
    import trm_interp.runtime.progress
    import trm_interp.search.selection

from trm_interp.cli import app  # noqa: E402
from trm_interp.core.checkpoints.folder import save_checkpoint  # noqa: E402
from trm_interp.core.models.trm import TRM  # noqa: E402
from trm_interp.core.models.trm_config import TRMConfig  # noqa: E402

torch.set_num_threads(1)
# on a busy machine quick commands take longer than that, and tests compare all of what they print
trm_interp.runtime.progress.SECONDS_BEFORE_LINES = 30.0
trm_interp.runtime.progress.SECONDS_BEFORE_WAITING = 30.0

# files that fork come first, in fresh workers: where libraries have started threads, a forked child
# can wait for ever. Then those that take longest, so that no worker is left alone with one
FIRST = ("test_output_law.py", "test_compare.py", "test_sae_outputs.py", "test_revive.py")
FIRST += ("sae/test_train.py", "test_docs.py", "test_unchanged.py", "test_notebooks.py")

# rooms whose files share a costly fixture
SHARING = ("tests/report/",)


def pytest_configure(config: pytest.Config) -> None:
    """Workers of xdist take files (`--dist loadfile`) in this order, not by numbers of tests."""
    if hasattr(config.option, "loadscopereorder"):
        config.option.loadscopereorder = False


class OneWorkerForRooms(LoadFileScheduling):
    """As `--dist loadfile`, but all files of some rooms go to one worker, which sets up once."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.split("::", 1)[0]
        return next((room for room in SHARING if file.startswith(room)), file)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadFileScheduling | None:
    return OneWorkerForRooms(config, log) if config.getvalue("dist") == "loadfile" else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def rank(item: pytest.Item) -> int:
        path = item.path.as_posix()
        return next((at for at, name in enumerate(FIRST) if path.endswith(name)), len(FIRST))

    items.sort(key=rank)


# doctests of these would import them once more, under another name, and register them twice
collect_ignore_glob = ["toy_*.py"]

TINY: dict[str, Any] = {"cells": 16, "vocab": 6, "d_model": 8, "multiple": 8}
TINY |= {"h_cycles": 2, "l_cycles": 2}
VARIANTS = {
    "mlp": TRMConfig(**TINY, prefix=2),
    "mlp_normalised": TRMConfig(**TINY, prefix=0, normalised_swiglu=True),
    "attention": TRMConfig(**TINY, prefix=1, mixer="attention", n_heads=2),
}


def lively(config: TRMConfig, seed: int = 0) -> TRM:
    """A tiny TRM whose zeros at the start (halting head, prefix) are filled, so mistakes show."""
    generator = torch.Generator().manual_seed(seed)
    model = TRM(config, generator)
    with torch.no_grad():
        model.q_head.weight.normal_(generator=generator)
        torch.nn.init.zeros_(model.get_parameter("q_head.bias"))
        if model.prefix_embedding is not None:
            model.prefix_embedding.normal_(generator=generator)
    return model.eval()


@pytest.fixture(params=VARIANTS)
def tiny_trm(request: pytest.FixtureRequest) -> TRM:
    """A model of 16 cells, width 8, 2 H-cycles of 2 L-cycles: every variant in turn."""
    return lively(VARIANTS[request.param])


@pytest.fixture
def tiny_mlp() -> TRM:
    return lively(VARIANTS["mlp"])


@pytest.fixture
def puzzles() -> tuple[torch.Tensor, torch.Tensor]:
    """Five 4x4 Sudokus as tokens (0 pad, 1 blank, 2..5 the digits): inputs and labels [5, 16]."""
    grid = torch.tensor([[1, 2, 3, 4], [3, 4, 1, 2], [2, 1, 4, 3], [4, 3, 2, 1]]).flatten()
    digits = torch.tensor([[1, 2, 3, 4], [2, 1, 4, 3], [4, 3, 1, 2], [3, 1, 2, 4], [2, 4, 3, 1]])
    labels = digits[:, grid - 1] + 1
    blank = torch.rand(labels.shape, generator=torch.Generator().manual_seed(0)) < 0.5
    return labels.masked_fill(blank, 1), labels


# The commands, run in this process on a tiny checkpoint and a file of 4x4 puzzles


class Answer(NamedTuple):
    """What a command came to: exit status, standard output and standard error."""

    code: int
    out: str
    err: str


def invoke(*words: object) -> Answer:
    """Run `trm-interp words...`; an error that it does not handle is raised here."""
    done = CliRunner().invoke(app, [str(word) for word in words])
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    return Answer(done.exit_code, done.stdout, done.stderr)


@pytest.fixture(scope="session")
def cli() -> Callable[..., Answer]:
    return invoke


@pytest.fixture(scope="session")
def copier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that nearly copies its input: some full grids are solved, some lost again."""
    model = lively(TRMConfig(**{**TINY, "d_model": 16}, prefix=2), seed=4)
    with torch.no_grad():
        model.lm_head.weight.copy_(model.token_embedding)
        for weight in model.net.parameters():
            weight.mul_(0.5)
    folder = tmp_path_factory.mktemp("checkpoints") / "copier"
    save_checkpoint(folder, model, {"note": "for tests"})
    return folder


@pytest.fixture(scope="session")
def grids(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """13 puzzles with solutions, one grid relabelled: lines 4 and 8 have blanks, the rest none."""
    solutions = [
        "".join(order[int(digit) - 1] for digit in "1234341221434321")
        for order in islice(permutations("1234"), 13)
    ]
    blanks = {3: 1, 7: 4}
    rows = [f"{'.' * blanks.get(i, 0)}{s[blanks.get(i, 0) :]},{s}" for i, s in enumerate(solutions)]
    file = tmp_path_factory.mktemp("puzzles") / "grids.txt"
    file.write_text("\n".join(rows) + "\n")
    return file
