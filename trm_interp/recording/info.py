"""What a path holds: a store, a checkpoint, puzzles or an SAE, in a few facts."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trm_interp.recording.info_sae import CONFIG, WEIGHTS, describe_sae, is_sae
from trm_interp.recording.settings import InfoConfig
from trm_interp.runtime.artifacts import existing
from trm_interp.runtime.errors import UserError
from trm_interp.runtime.hub import HubError, Kind, OnDisk, is_remote, remote, repository
from trm_interp.runtime.limits import as_ranges, counted
from trm_interp.runtime.progress import waiting

if TYPE_CHECKING:
    from trm_interp.recording.schema import Recursion
    from trm_interp.tasks.base import Task


# facts of a store that come in another form
LATER = ("kept_steps", "kept_positions", "bytes", "shards", "exact_at_step", "meta", "sites")
LATER = (*LATER, "problems", "validated", "schedule")
MANIFEST, WHOLE = "manifest.json", "store.h5"
MOST_READ = 1000  # puzzles of a file, to say what it is


def describe(path: str, thorough: bool = False, cells: int | None = None) -> dict[str, Any]:
    """Facts about a store, a checkpoint, a file of puzzles or the folder of an SAE. UserError where
    it is none of them. Each may be in a repository, `hf://owner/name`.

    Problems of a store are those that show without reading all of it, or with `thorough` all.
    `cells` is for checkpoints that do not say how many they read.
    """
    if is_remote(path):
        return _in_repository(path, thorough, cells)
    if (Path(path) / MANIFEST).exists():
        return _store(path, Path(path), thorough)
    if is_sae(Path(path)):
        return describe_sae(Path(path))
    if not existing(path).exists():
        raise UserError(
            f"{path}: no such file or folder: name a store, a checkpoint, puzzles or an SAE"
        )
    try:
        return _checkpoint(path, cells)
    except UserError as error:
        if (facts := _puzzles(path)) is not None:
            return facts
        if advice := _what_else(Path(path)):
            raise UserError(f"{path}: {advice}") from None
        raise error


def _in_repository(url: str, thorough: bool, cells: int | None) -> dict[str, Any]:
    """Of a repository. Of a store its manifest alone is fetched, or with `thorough` all of it."""
    place, _ = repository(url, "model")
    if isinstance(place, OnDisk):
        return describe(str(place.folder), thorough, cells)
    if folder := _fetched(url, "model", (CONFIG, WEIGHTS)):
        return describe_sae(folder) | {"path": url}
    if folder := _fetched(url, "dataset", (MANIFEST,)):
        if thorough:
            _fetched(url, "dataset", (WHOLE,))
        return _store(url, folder, thorough)
    return _checkpoint(url, cells)


def _fetched(url: str, kind: Kind, names: Sequence[str]) -> Path | None:
    """The folder of these files on this machine; None where the repository has them not."""
    try:
        place = remote(url, kind)
        for name in names:
            place.fetch(name)
    except (HubError, FileNotFoundError):
        return None
    return place.folder


def _puzzles(path: str) -> dict[str, Any] | None:
    """Of a file of puzzles, whose beginning is read; None for anything else."""
    from trm_interp.tasks.registry import families, family, load_puzzles

    file = existing(path)
    if not file.exists() or not any(family(name).recognises(file) for name in families()):
        return None
    try:
        puzzles = load_puzzles(file, skip_bad=True, limit=MOST_READ)
    except UserError:
        return None
    task = puzzles.task
    return {
        "kind": "puzzles",
        "path": str(file),
        "task": task.name,
        "title": task.title,
        "puzzles_read": len(puzzles),
        "all_read": len(puzzles) < MOST_READ,
        "skipped": list(puzzles.skipped),
        "first": task.text(puzzles.inputs[0]) if len(puzzles) else None,
        "sha256": dict(puzzles.sha256),
    }


def _what_else(path: Path) -> str:
    """What a folder is that `info` does not describe, and what does; empty where nobody knows."""
    from trm_interp.runtime.outputs import maker
    from trm_interp.tasks.registry import families, family

    if not path.is_dir():
        return ""
    if command := maker(path):
        return f"the output of `{command}`, which `info` does not describe; see its files"
    classes = [family(name) for name in families()]
    files = [file for file in sorted(path.iterdir()) if file.suffix in (".txt", ".csv")]
    names = [file.name for file in files if any(one.recognises(file) for one in classes)]
    return f"a folder of puzzle files: name one of {', '.join(names)}" if names else ""


def _store(path: str, folder: Path, thorough: bool) -> dict[str, Any]:
    """Of the store `path`, whose manifest is in `folder`; of one in a repository shards are read
    if `thorough`."""
    from trm_interp.recording.manifest import Manifest
    from trm_interp.recording.store import Store, StoreError, validate

    manifest = Manifest.read(folder)
    recursion = manifest.recorded.recursion
    task = manifest.recorded.identity.task
    reads_shards = thorough or not is_remote(path)
    try:
        with Store(path, allow_incomplete=True) as store:
            task = task or _name(lambda: store.task)
            reads = reads_shards and store.n_puzzles
            exact = store["solved"][:].mean(0).tolist() if reads else []
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
        "shards": len(manifest.shards),
        "validated": thorough,
        "problems": validate(folder, thorough) if reads_shards else [],
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


@dataclass(frozen=True)
class Info:
    """What `trm-interp info` says: `facts` as `describe` gives them, all of them where `full`."""

    facts: dict[str, Any]
    full: bool

    def to_json(self) -> dict[str, Any]:
        """All facts."""
        return self.facts


def run(
    config: InfoConfig,
    tell: Callable[[str], None] = print,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> Info:
    """What the command `info` does."""
    with waiting("reading"):
        facts = describe(config.path, config.validate, config.cells)
    if config.validate and facts["kind"] != "store":
        tell(f"--validate has no effect: {config.path} is no store")
    if config.cells is not None and facts["kind"] != "checkpoint":
        tell(f"--cells has no effect: {config.path} is no checkpoint")
    return Info(facts, config.full)


def fault(info: Info) -> str | None:
    """What is wrong with a store, in one line; that it is unfinished is no fault."""
    facts = info.facts
    problems = facts.get("problems", [])[not facts.get("complete", True) :]
    more = f"; and {len(problems) - 1} more problems" if len(problems) > 1 else ""
    return f"{problems[0]}{more}" if problems else None


def lines(info: Info) -> Iterator[str]:
    """All facts where they are asked for, else the most important ones."""
    if info.full:
        return nested(info.facts)
    shown = {"store": _of_store, "checkpoint": _of_checkpoint, "puzzles": _of_puzzles}
    return shown.get(info.facts["kind"], _of_sae)(info.facts)


def _of_store(facts: Mapping[str, Any]) -> Iterator[str]:
    """Axes, states, sites and read-outs; where it came from; what was checked."""
    yield from nested({k: v for k, v in facts.items() if k not in LATER})
    yield from _schedule(facts)
    for name in ("kept_steps", "kept_positions"):
        yield f"{name} (from 0): {as_ranges(facts[name])}"
    yield f"bytes: {facts['bytes']} in {counted(facts['shards'], 'shard')}"
    yield from nested({"exact_at_step (from 1)": facts["exact_at_step"]})
    meta = facts["meta"]
    if source := meta.get("checkpoint", {}).get("path"):
        seed = meta.get("settings", {}).get("random_weights")
        drawn = "" if seed is None else f" with fresh weights of seed {seed}"
        yield f"recorded from: {source}{drawn} on {meta.get('puzzles', 'unknown puzzles')}"
    states = facts.get("states", [])
    groups: dict[str, list[str]] = {"states": [], "sites": [], "read-outs": []}
    for name, array in facts["sites"].items():
        axes = " x ".join(f"{d} {n}" for d, n in zip(array["dims"], array["shape"], strict=True))
        kind = "states" if name in states else "sites" if "pos" in array["dims"] else "read-outs"
        groups[kind].append(f"  {name}: {axes}, {array['dtype']}")
    for kind, arrays in groups.items():
        if arrays:
            yield f"{kind}:"
            yield from arrays
    if facts["problems"]:
        yield f"problems: {'; '.join(facts['problems'])}"
    elif facts["validated"]:
        yield f"validated: {counted(facts['shards'], 'shard')} read, their sha256 agree"
    else:
        yield "problems: none seen (--validate reads every shard, --all shows all)"


def _of_checkpoint(facts: Mapping[str, Any]) -> Iterator[str]:
    """All but the parts of its card that are long; its settings in one line."""
    plain = {k: v for k, v in facts.items() if not isinstance(v, dict)}
    yield from nested(plain)
    yield from _schedule(facts)
    yield f"config: {', '.join(f'{name} {value}' for name, value in facts['config'].items())}"
    card = facts["card"]
    if plain := {k: v for k, v in card.items() if not isinstance(v, dict | list)}:
        yield from nested({"card": plain})
    if more := [name for name in card if name not in plain]:
        yield f"more on the card: {', '.join(more)} (--all shows all)"


def _schedule(facts: Mapping[str, Any]) -> Iterator[str]:
    """In one line which states are written; nothing for a store that does not say it."""
    if cycle := facts.get("schedule"):
        yield f"schedule: {cycle['h_cycles']} H-cycles of {' '.join(cycle['cycle'])}"


def _of_sae(facts: Mapping[str, Any]) -> Iterator[str]:
    """All facts, and what opens it."""
    yield from nested(facts)
    yield f"next: trm-interp sae-eval {facts['path']} STORE; in Python trm_interp.load_sae"


def _of_puzzles(facts: Mapping[str, Any]) -> Iterator[str]:
    """What kind of puzzles, how many, and what reads them."""
    yield f"kind: puzzles ({facts['title']})"
    yield f"path: {facts['path']}"
    yield f"task: {facts['task']}"
    more = "" if facts["all_read"] else " (more were not read)"
    yield f"puzzles: {facts['puzzles_read']}{more}"
    if facts["skipped"]:
        yield f"not valid: {len(facts['skipped'])}, the first: {facts['skipped'][0]}"
    yield f"first: {facts['first']}"
    yield f"next: trm-interp data rate {facts['path']}; or give it to a command as --puzzles"


def nested(facts: Mapping[str, Any], indent: str = "") -> Iterator[str]:
    """Nested facts, one a line; lists of numbers rounded.

    >>> list(nested({"kind": "store", "meta": {"seed": 1}, "exact": [0.5, 1 / 3]}))
    ['kind: store', 'meta:', '  seed: 1', 'exact: 0.5 0.3333']
    """
    for name, value in facts.items():
        if isinstance(value, dict):
            yield f"{indent}{name}:"
            yield from nested(value, indent + "  ")
        elif isinstance(value, list):
            texts = (f"{v:.4g}" if isinstance(v, float) else str(v) for v in value)
            yield f"{indent}{name}: {' '.join(texts)}"
        else:
            yield f"{indent}{name}: {value}"
