"""Opens what a command works on: a device, a checkpoint, puzzles that fit it."""

import hashlib
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cache
from pathlib import Path

import torch

from trm_interp.core.checkpoints.folder import Checkpoint, CheckpointError, load_checkpoint, locate
from trm_interp.core.checkpoints.tables import NoTable
from trm_interp.core.devices import has_float64
from trm_interp.core.infer import identifiers_for
from trm_interp.core.memory import keep_freed_memory
from trm_interp.core.models.registry import build, settings_of
from trm_interp.core.processes import local_rank, rank_and_size
from trm_interp.runtime.artifacts import artifact
from trm_interp.runtime.errors import UserError
from trm_interp.runtime.progress import passing
from trm_interp.runtime.shards import noted
from trm_interp.subjects import equilibria
from trm_interp.subjects.settings import default_checkpoint
from trm_interp.tasks.base import PuzzleError, PuzzleSet, Task
from trm_interp.tasks.registry import load_puzzles as load
from trm_interp.tasks.registry import stated_family, task_of_checkpoint, tasks_of_shape


def open_device(name: str, float64: bool = False) -> torch.device:
    """`auto` is the first GPU where there is one. UserError for a GPU that is not there.

    With `float64` the CPU takes the place of an Apple GPU, which has none.
    """
    for kind, title, is_there in (
        ("cuda", "CUDA device", torch.cuda.is_available),
        ("mps", "Apple GPU for one process", _has_apple_gpu),
    ):
        if name.startswith(kind) and not is_there():
            raise UserError(f"--device {name}: this PyTorch sees no {title}; try --device cpu")
        if name == "auto" and is_there():
            name = kind
    device = torch.device("cpu" if name == "auto" else name)
    if not has_float64(device):
        _say_once(
            f"{device.type} has no float64: "
            + ("computing on the CPU" if float64 else "losses and sums are in float32")
        )
        device = torch.device("cpu") if float64 else device
    if device.type == "cpu":
        keep_freed_memory()
    elif device.type == "cuda":
        if (index := local_rank()) >= torch.cuda.device_count():
            raise UserError(
                f"LOCAL_RANK is {index}, but there are {torch.cuda.device_count()} CUDA devices: "
                "start one process a device"
            )
        torch.cuda.set_device(index)
    return device


def _has_apple_gpu() -> bool:
    """One that can be used: processes that work together need another kind of device."""
    return torch.backends.mps.is_available() and rank_and_size()[1] == 1


@cache
def _say_once(line: str) -> None:
    print(line, file=sys.stderr)


def task_of(checkpoint: Checkpoint) -> Task:
    """The task that a checkpoint was trained on. UserError where neither its card nor its shape
    says so."""
    config = checkpoint.model.config
    source, data = str(checkpoint.path), data_names(checkpoint)
    return task_of_checkpoint(checkpoint.card, config.cells, config.vocab, source, data)


def data_names(checkpoint: Checkpoint) -> str:
    """Names of the data that a checkpoint of others was trained on; "" where it does not say."""
    names = checkpoint.card.get("data_paths", "")
    return " ".join(map(str, names)) if isinstance(names, list) else str(names)


def require_task(puzzles: PuzzleSet, checkpoint: Checkpoint, option: str = "--puzzles ") -> None:
    """UserError where the puzzles are of another size or task than the checkpoint's, or have
    identifiers that it does not know. `option`: what puzzles are given behind."""
    config, task = checkpoint.model.config, puzzles.task
    if (config.cells, config.vocab) != (task.cells, task.vocab):
        raise PuzzleError(
            f"{puzzles.source}: {task.title} puzzles, "
            f"but {checkpoint.path} reads {config.cells} cells of {config.vocab} tokens"
            f"{_instead(checkpoint, task, option)}"
        )
    if (stated := stated_family(checkpoint.card, data_names(checkpoint))) not in (None, type(task)):
        raise PuzzleError(
            f"{puzzles.source}: {task.title} puzzles, "
            f"but {checkpoint.path} was trained on {stated.family} puzzles"
        )
    try:
        identifiers_for(config, puzzles.tensors.identifiers, len(puzzles))
    except ValueError as error:
        raise PuzzleError(f"{puzzles.source}: not for {checkpoint.path}: {error}") from None


def _instead(checkpoint: Checkpoint, task: Task, option: str) -> str:
    """What to give in place of a checkpoint and puzzles that do not go together; of what ships."""
    shipped = [artifact(name) for name in task.checkpoints]
    ways = [f"--ckpt {path}" for path in shipped if path.exists()][:1]
    with suppress(UserError):  # none ship for the checkpoint
        ways.append(f"{option}{test_puzzles(checkpoint)}")
    return f": give {' or '.join(ways or ['another --ckpt', 'other puzzles'])}"


def test_puzzles(checkpoint: Checkpoint) -> Path:
    """The test puzzles that ship for the checkpoint's task. UserError where there are none."""
    task = task_of(checkpoint)
    if not task.test_file:
        raise UserError(f"{checkpoint.path}: no {task.title} test puzzles ship; give --puzzles")
    file = artifact(task.test_file)
    if not file.exists():
        raise UserError(f"{file}: no test puzzles of this size ship; give --puzzles")
    return file


def load_puzzles(
    file: Path, skip_bad: bool = False, limit: int | None = None, several: bool = False
) -> PuzzleSet:
    """As `load`; what takes long, solving them or proving their solutions unique, shows progress.

    The first process of a machine shows it.
    """
    if local_rank():
        return load(file, skip_bad, limit, several=several)
    with passing("checking", "puzzles") as update:
        return load(file, skip_bad, limit, update, several)


def _has_task(cells: int, vocab: int) -> bool:
    """Whether there is a task of so many cells of so many tokens."""
    return bool(tasks_of_shape(cells, vocab))


def read_checkpoint(
    source: str | Path,
    device: torch.device | str = "cpu",
    cells: int | None = None,
    identifiers: Sequence[int] | None = None,
) -> Checkpoint:
    """`load_checkpoint`, with the tasks that there are to decide what a file leaves open.

    `identifiers`: the only rows of a table of puzzle embeddings to read, where it has one.
    """
    try:
        return load_checkpoint(source, device, cells, fits=_has_task, identifiers=identifiers)
    except NoTable:
        return load_checkpoint(source, device, cells, fits=_has_task)


def read_for(
    source: str | Path, puzzles: PuzzleSet, device: torch.device | str = "cpu"
) -> tuple[Checkpoint, PuzzleSet]:
    """The checkpoint for puzzles that name their embeddings, with the rows of its table that they
    need and row 0, which is blank in public data; and the puzzles with the numbers of these rows.

    Of other puzzles, and of models without a table, nothing changes.
    """
    own = puzzles.given_identifiers
    if own is None:
        return read_checkpoint(source, device, puzzles.task.cells), puzzles
    rows = [0, *sorted(set(own.tolist()) - {0})]
    checkpoint = read_checkpoint(source, device, puzzles.task.cells, rows)
    renumbered = checkpoint.rows_of(torch.from_numpy(own)).numpy()
    return checkpoint, replace(puzzles, rows=renumbered)


def open_checkpoint(
    source: str | Path, device: torch.device | str = "cpu", cells: int | None = None
) -> Checkpoint:
    """The checkpoint; `cells` is what --cells says. UserError where the file says otherwise."""
    checkpoint = read_checkpoint(source, device, cells)
    own = checkpoint.model.config.cells
    if cells is not None and cells != own:
        raise CheckpointError(f"{checkpoint.path} reads {own} cells, but --cells is {cells}")
    return checkpoint


def untrained(checkpoint: Checkpoint, seed: int) -> Checkpoint:
    """The same model with fresh weights of this seed, on the same device; `sha256` is of these.

    What is the same in its states is no work of training: a control.
    """
    trained = checkpoint.model
    fresh = build(trained.config, torch.Generator().manual_seed(seed))
    digest = hashlib.sha256()
    for name, tensor in sorted(fresh.state_dict().items()):
        digest.update(name.encode() + tensor.numpy().tobytes())
    model = fresh.to(trained.device).eval()
    weights = f"random, seed {seed}"
    return replace(checkpoint, model=model, sha256=digest.hexdigest(), weights=weights)


def open_both(
    ckpt: str | Path,
    puzzles: Path | None,
    device: torch.device,
    limit: int | None = None,
    skip_bad: bool = False,
    tell: Callable[[str], None] = print,
) -> tuple[Checkpoint, PuzzleSet]:
    """A checkpoint and puzzles of its task, those that ship where none are named.

    `tell` gets the names of what was taken so, and of the puzzles that were skipped. Puzzles that
    are named tell the number of cells where the checkpoint does not. UserError where they are of
    another task or size.
    """
    path = locate(ckpt or default_checkpoint())  # before anything is read of the puzzles
    defaults = [] if ckpt else [str(path)]
    if puzzles is not None:
        opened = load_puzzles(puzzles, skip_bad, limit)
        checkpoint, opened = read_for(path, opened, device)
    else:
        checkpoint = read_checkpoint(path, device)
        file = test_puzzles(checkpoint)
        defaults.append(str(file))
        opened = load_puzzles(file, skip_bad, limit)
    require_task(opened, checkpoint)
    if defaults:
        tell(f"taking {' and '.join(defaults)}")
    if line := equilibria.notice(checkpoint.model, str(checkpoint.path)):
        tell(line)
    for line in opened.skipped:
        tell(f"skipped {line}")
    noted(
        **{
            f"checkpoint {checkpoint.path}": checkpoint.sha256,  # of its weights alone
            f"settings of {checkpoint.path}": settings_of(checkpoint.model.config),
            f"puzzles {opened.source}": dict(opened.sha256),
            "device": device.type,
        }
    )
    return checkpoint, opened
