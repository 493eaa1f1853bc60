"""Push a store, an SAE or a checkpoint to a repository, with a card that says what it is."""

import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from trm_interp.core.checkpoints.folder import CARD, CONFIG, WEIGHTS, load_checkpoint
from trm_interp.recording.hdf5 import STORE as WHOLE
from trm_interp.recording.manifest import MANIFEST
from trm_interp.recording.schema import size_text
from trm_interp.recording.store import Store
from trm_interp.report.settings import PushConfig
from trm_interp.runtime.errors import UserError
from trm_interp.runtime.hub import Kind, is_remote, repository
from trm_interp.runtime.limits import counted
from trm_interp.runtime.schema import read_json
from trm_interp.sae import saved
from trm_interp.subjects.opening import task_of

README = "README.md"
METRICS = "metrics.jsonl"
ADVICE = "restore it, or push without it"
Facts = dict[str, object]


@dataclass(frozen=True)
class Pushable:
    """What a folder holds, for its card: `kind` of repository, files by their names there."""

    title: str
    kind: Kind
    files: dict[str, Path]
    facts: Facts
    tags: tuple[str, ...]
    reading: str


@dataclass(frozen=True)
class Pushed:
    """What a push came to."""

    url: str
    kind: Kind
    files: list[str]
    bytes: int
    seen_at: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def run(
    config: PushConfig,
    tell: Callable[[str], None] = print,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> Pushed:
    """What the command `push` does: all files in one commit, or none."""
    return push(config.folder, config.to, config.licence, tell)


def lines(pushed: Pushed) -> list[str]:
    """Where it is, and how much."""
    size = size_text(pushed.bytes)
    return [f"pushed {counted(len(pushed.files), 'file')} ({size}) to {pushed.seen_at}"]


def push(
    folder: Path, url: str, licence: str, tell: Callable[[str], None] = lambda line: None
) -> Pushed:
    """Add the store, SAE or checkpoint in `folder` to the repository `url`.

    UserError where it is none of them or not finished, and HubError, with nothing pushed, where
    the repository cannot be written.
    """
    what = pushable(folder, url)
    place, inner = repository(url, what.kind)
    if inner:
        raise UserError(f"{url}: names a folder inside a repository: push to {place.url}")
    with tempfile.TemporaryDirectory() as aside:
        card = Path(aside) / README
        card.write_text(card_of(what, licence), encoding="utf-8")
        files = {**what.files, README: card}
        size = sum(file.stat().st_size for file in files.values())
        tell(f"pushing {counted(len(files), 'file')}, {size_text(size)}, to {place.url}")
        seen_at = place.publish(files, f"{what.title}, by trm-interp push")
    return Pushed(place.url, what.kind, sorted(files), size, seen_at)


def pushable(folder: Path, url: str) -> Pushable:
    """What is in a folder, checked. UserError where nothing that can be pushed is."""
    if is_remote(folder):
        raise UserError(f"{folder}: is in a repository already: name a folder of this machine")
    if (folder / MANIFEST).exists():
        return _store(folder, url)
    if (folder / saved.CONFIG).exists():
        return _sae(folder, url)
    if (folder / WEIGHTS).exists():
        return _checkpoint(folder, url)
    names = f"{MANIFEST}, {saved.CONFIG} or {WEIGHTS}"
    raise UserError(f"{folder}: no store, SAE or checkpoint of ours is here ({names}): name one")


def _present(folder: Path, names: Iterable[str]) -> dict[str, Path]:
    return {name: folder / name for name in names if (folder / name).is_file()}


def _store(folder: Path, url: str) -> Pushable:
    with Store(folder) as store:  # StoreError where it is unfinished
        store.require(range(store.n_puzzles))
        manifest = _json(folder / MANIFEST)
        solved = store["solved"][:, -1].mean()
        identity = store.identity
        facts: Facts = {
            "puzzles": store.n_puzzles,
            "supervision steps": store.n_steps,
            "arrays": ", ".join(f"{name} {list(store[name].shape)}" for name in store.names),
            "task": store.task.title,
            "architecture": identity.architecture,
            "solved at the last step": f"{solved:.1%}",
            "sha256 of the checkpoint": identity.checkpoint_sha256,
            "sha256 of the puzzles": _named(identity.data_sha256),
            "sha256 of all shards": store.sha256,
            **_made_by(manifest["meta"]),
        }
        shards = [shard["file"] for shard in manifest["shards"]]
    files = _present(folder, [MANIFEST, WHOLE, *shards])
    reading = f'store = trm_interp.Store("{url}")  # shards are fetched when they are read'
    title = "Activation store of a recursive model"
    return Pushable(title, "dataset", files, facts, ("activations",), reading)


def _sae(folder: Path, url: str) -> Pushable:
    sae = saved.load_sae(folder)
    card, measures = (_json(folder / name) for name in (saved.CARD, saved.MEASURES))
    own = card.get("sae", {})
    facts: Facts = {
        "architecture": sae.cfg.architecture(),
        "features": sae.cfg.d_sae,
        "width": sae.cfg.d_in,
        "sites": ", ".join(own.get("sites", [])),
        "rows seen": own.get("rows"),
        "training puzzles": own.get("n_train"),
        "sha256 of the checkpoint": own.get("checkpoint_sha256"),
        "sha256 of the checkpoints": ", ".join(map(str, own.get("mixed_checkpoints", []))) or None,
        "sha256 of the store": own.get("store_sha256"),
        **_quality(measures),
        **_made_by({**own, **card}),
    }
    names = (saved.CONFIG, saved.WEIGHTS, saved.CARD, saved.MEASURES, METRICS)
    title = f"Sparse autoencoder ({sae.cfg.architecture()}) of a recursive model"
    reading = f'sae = trm_interp.load_sae("{url}")  # or sae_lens.SAE.load_from_disk of its files'
    tags = ("sparse-autoencoder", "saelens")
    return Pushable(title, "model", _present(folder, names), facts, tags, reading)


def _checkpoint(folder: Path, url: str) -> Pushable:
    checkpoint = load_checkpoint(folder)
    card = checkpoint.card
    trained = card.get("train", {})
    facts: Facts = {
        "task": task_of(checkpoint).title,
        "architecture": checkpoint.model.config.architecture,
        "weights": sum(weight.numel() for weight in checkpoint.model.parameters()),
        "optimizer steps": trained.get("steps_done"),
        "training puzzles": trained.get("puzzles"),
        "seed": trained.get("seed"),
        **_accuracy("validation", card.get("validation")),
        **_accuracy("test", card.get("test")),
        "sha256 of the weights": checkpoint.sha256,
        **_made_by(card),
    }
    title = f"{facts['architecture']} for {facts['task']}"
    reading = f'model = trm_interp.load_checkpoint("{url}").model'
    names = (CONFIG, WEIGHTS, CARD, METRICS)
    tags = ("recursive-reasoning",)
    return Pushable(title, "model", _present(folder, names), facts, tags, reading)


def _json(file: Path) -> dict[str, Any]:
    return read_json(file, dict[str, Any], advice=ADVICE) if file.is_file() else {}


def _named(sums: Mapping[str, str] | None) -> str:
    return ", ".join(f"{name} {sha256}" for name, sha256 in (sums or {}).items())


def _accuracy(of: str, result: Mapping[str, Any] | None) -> Facts:
    """Exact answers after the first and the last step."""
    curve = (result or {}).get("exact_at_step")
    if not result or not curve:
        return {}
    ends = f"{curve[0]:.1%} after step 1, {curve[-1]:.1%} after step {len(curve)}"
    return {f"{of}: solved": f"{ends}, of {result.get('n')} puzzles"}


def _quality(measures: Mapping[str, Any]) -> Facts:
    """Of an SAE that `sae-eval` has measured."""
    if "fvu" not in measures:
        return {"quality": "not measured: `trm-interp sae-eval` does it"}
    fvu = measures["fvu"]
    interval = f"{fvu['value']:.3g} [{fvu['low']:.3g}, {fvu['high']:.3g}]"
    return {
        "fraction of variance unexplained": f"{interval}, {measures['n_puzzles']} held-out puzzles",
        "active features a row (L0)": f"{measures['l0']:.3g}",
        "dead features": f"{measures['dead']:.1%}",
    }


def _made_by(card: Mapping[str, Any]) -> Facts:
    versions = card.get("versions") or {}
    return {
        "command": card.get("command"),
        "commit of trm_interp": card.get("git_commit"),
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
    }


def card_of(what: Pushable, licence: str) -> str:
    """The README of the repository: header for the hub, facts, and how it is read."""
    rows = [
        f"| {name} | {_cell(value)} |"
        for name, value in what.facts.items()
        if value not in (None, "")
    ]
    tags = "".join(f"- {tag}\n" for tag in ("trm_interp", *what.tags))
    return (
        f"---\nlicense: {licence}\nlibrary_name: trm_interp\ntags:\n{tags}---\n\n"
        f"# {what.title}\n\n| | |\n|---|---|\n" + "\n".join(rows) + "\n\n"
        f"```python\nimport trm_interp\n\n{what.reading}\n```\n"
    )


def _cell(value: object) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")
