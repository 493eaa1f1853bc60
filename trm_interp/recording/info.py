"""What a path holds: a store or a checkpoint, in a few facts."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trm_interp.recording.settings import InfoConfig
from trm_interp.runtime.errors import UserError

if TYPE_CHECKING:
    from trm_interp.recording.schema import Recursion
    from trm_interp.tasks.base import Task


def describe(path: str, thorough: bool = False, cells: int | None = None) -> dict[str, Any]:
    """Facts about a store or a checkpoint. UserError where it is neither.

    Problems of a store are those that show without reading all of it, or with `thorough` all.
    `cells` is for checkpoints that do not say how many they read.
    """
    if (Path(path) / "manifest.json").exists():
        return _store(path, thorough)
    return _checkpoint(path, cells)


def _store(path: str, thorough: bool) -> dict[str, Any]:
    from trm_interp.recording.manifest import Manifest
    from trm_interp.recording.store import Store, StoreError, validate

    manifest = Manifest.read(Path(path))
    recursion = manifest.recorded.recursion
    task = manifest.recorded.identity.task
    try:
        with Store(path, allow_incomplete=True) as store:
            task = task or _name(lambda: store.task)
            exact = store["solved"][:].mean(0).tolist() if store.n_puzzles else []
    except StoreError:  # named among the problems
        exact = []
    return {
        "kind": "store",
        "path": path,
        "complete": manifest.complete,
        "task": task,
        **({} if recursion is None else _facts(recursion)),
        "puzzles": manifest.done,
        "supervision_steps": manifest.n_steps,
        "kept_steps": manifest.kept("step"),
        "kept_positions": manifest.kept("pos"),
        "sites": {
            name: {
                "dims": list(site.labels),
                "shape": [manifest.done, *site.stored_shape],
                "dtype": site.dtype,
            }
            for name, site in manifest.arrays.items()
        },
        "bytes": sum(shard.bytes for shard in manifest.shards),
        "exact_at_step": exact,
        "meta": manifest.meta,
        "problems": validate(path, thorough),
    }


def _facts(recursion: "Recursion") -> dict[str, Any]:
    return recursion.to_json() | {"evaluations_per_step": recursion.schedule.evaluations}


def _name(task: "Callable[[], Task]") -> str | None:
    """None where the task is not known."""
    try:
        return task().name
    except UserError:
        return None


def _checkpoint(path: str, cells: int | None) -> dict[str, Any]:
    from trm_interp.core.models.registry import settings_of
    from trm_interp.recording.sites import recursion_of
    from trm_interp.subjects.opening import open_checkpoint, task_of

    checkpoint = open_checkpoint(path, cells=cells)
    config = checkpoint.model.config
    return {
        "kind": "checkpoint",
        "path": str(checkpoint.path),
        "format": checkpoint.format,
        "sha256": checkpoint.sha256,
        "weights": checkpoint.weights,
        "task": _name(lambda: task_of(checkpoint)),
        **_facts(recursion_of(config)),
        "parameters": sum(p.numel() for p in checkpoint.model.parameters()),
        "config": settings_of(config),
        "card": checkpoint.card,
    }


def fault(facts: dict[str, Any]) -> str | None:
    """What is wrong with a store, in one line; that it is unfinished is no fault."""
    problems = facts.get("problems", [])[not facts.get("complete", True) :]
    more = f"; and {len(problems) - 1} more problems" if len(problems) > 1 else ""
    return f"{problems[0]}{more}" if problems else None


def lines(facts: dict[str, Any], indent: str = "") -> Iterator[str]:
    """Nested facts, one a line; lists of numbers rounded.

    >>> list(lines({"kind": "store", "meta": {"seed": 1}, "exact": [0.5, 1 / 3]}))
    ['kind: store', 'meta:', '  seed: 1', 'exact: 0.5 0.3333']
    """
    for name, value in facts.items():
        if isinstance(value, dict):
            yield f"{indent}{name}:"
            yield from lines(value, indent + "  ")
        elif isinstance(value, list):
            texts = (f"{v:.4g}" if isinstance(v, float) else str(v) for v in value)
            yield f"{indent}{name}: {' '.join(texts)}"
        else:
            yield f"{indent}{name}: {value}"


def run(
    config: InfoConfig,
    tell: Callable[[str], None] = print,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> dict[str, Any]:
    """What `trm-interp info` says."""
    return describe(config.path, config.validate, config.cells)
