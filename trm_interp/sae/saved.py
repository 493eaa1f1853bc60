"""The folder of an SAE: what `train-sae` writes into it, and how any SAE is opened.

A folder from a stranger is believed in nothing: `cfg.json` has a schema, its sizes must be those in
the header of the weights (which is read before anything is allocated), and the SAE must work.
"""

import copy
import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import torch
from msgspec import UNSET, Meta, UnsetType
from sae_lens import SAE, TrainingSAE
from sae_lens.registry import SAE_CLASS_REGISTRY
from sae_lens.saes.sae import SAEMetadata

from trm_interp.core.checkpoints.headers import tensor_shapes
from trm_interp.recording.info_sae import CONFIG, WEIGHTS
from trm_interp.recording.settings import Centre
from trm_interp.recording.site_reader import View
from trm_interp.runtime.errors import UserError, first_line, is_out_of_memory
from trm_interp.runtime.files import disk_errors, publish, write_json
from trm_interp.runtime.hub import is_remote, remote
from trm_interp.runtime.schema import read_json
from trm_interp.sae.stream import Scaling

STATE, METRICS, CARD, MEASURES = "train_state.pt", "metrics.jsonl", "card.json", "measures.json"
SAVING = ".saving-"
WRITTEN_THERE = {WEIGHTS, CONFIG, "trainer_state.pt", "activation_scaler.json"}

Size = Annotated[int, Meta(ge=1)]


@dataclass(frozen=True)
class Provenance:
    """What an SAE of ours says of itself in `metadata.trm_interp`. `centre` and `shuffle`: the
    `View` of the rows that it was trained on; `mixed_checkpoints`: sha256 of all, where its stores
    were recorded from several, None for those that do not say."""

    sites: Annotated[list[str], Meta(min_length=1)]
    ticks: list[Annotated[int, Meta(ge=0)]] | None = None
    arch: str | None = None
    gated_variant: str | None = None
    checkpoint_sha256: str | None = None
    mixed_checkpoints: list[str | None] = field(default_factory=list)
    centre: Centre = "rows"
    shuffle: Annotated[int, Meta(ge=0)] | None = None
    train_boards: list[str] = field(default_factory=list)

    @property
    def view(self) -> View:
        """How rows are read for it."""
        return View(self.centre, self.shuffle)

    def is_of(self, checkpoint_sha256: str | None) -> bool:
        """Whether it was trained on states of this checkpoint."""
        return checkpoint_sha256 in (self.mixed_checkpoints or [self.checkpoint_sha256])

    @property
    def checkpoints(self) -> str:
        """Beginnings of the sha256 of what it was trained on."""
        of = self.mixed_checkpoints or [self.checkpoint_sha256]
        return ", ".join(str(sha256)[:12] for sha256 in of)


@dataclass(frozen=True)
class _Metadata:
    trm_interp: Provenance | UnsetType = UNSET  # SAEs of others have none


@dataclass(frozen=True)
class _Config:
    """`cfg.json` as sae-lens writes it; versions before 6 named no architecture for standard."""

    d_in: Size
    d_sae: Size
    architecture: str = "standard"
    k: Annotated[float, Meta(gt=0)] | None = None
    metadata: _Metadata = field(default_factory=_Metadata)


def provenance_of(path: Path) -> Provenance | None:
    """What the SAE in a folder says of itself; None for one that is not ours."""
    ours = _read_config(_local(path)).metadata.trm_interp
    return None if ours is UNSET else ours


def _local(path: Path | str) -> Path:
    """The folder itself, or where the files of one that was pushed are on this machine."""
    if not is_remote(path):
        return Path(path)
    place = remote(path, "model")
    for name in (CONFIG, WEIGHTS):
        try:
            place.fetch(name)
        except FileNotFoundError as error:
            raise UserError(f"{error}: no SAE was pushed there") from None
    return place.folder


def load_sae(path: Path | str, device: torch.device | str = "cpu") -> SAE[Any]:
    """Any SAE that sae-lens opens, in a folder or as `hf://owner/name`. UserError says in one line
    why it cannot be read."""
    path = _local(path)
    config = _read_config(path)
    _check_shapes(path / WEIGHTS, config)
    try:
        sae = SAE.load_from_disk(path, device=str(device)).eval()
        with torch.no_grad():
            acts = sae.encode(torch.zeros(1, config.d_in, device=device))
            out = sae.decode(acts)
    except Exception as error:  # a damaged file makes several libraries raise many kinds
        if is_out_of_memory(error):
            raise
        raise UserError(f"{path}: cannot be read ({first_line(error)[:120]})") from None
    if acts.shape != (1, config.d_sae) or out.shape != (1, config.d_in):
        shapes = f"{tuple(acts.shape)[1:]} features and {tuple(out.shape)[1:]} channels"
        raise UserError(f"{path}: gives {shapes}, {CONFIG} says {config.d_sae} and {config.d_in}")
    for name, weight in sae.state_dict().items():
        if not torch.isfinite(weight).all():
            raise UserError(f"{path / WEIGHTS}: {name} is not finite: train the SAE again")
    return sae


def _read_config(path: Path) -> _Config:
    file = path / CONFIG
    if not file.exists():
        raise UserError(f"{path}: no finished SAE here; train one with `trm-interp train-sae`")
    config = read_json(file, _Config, advice="restore it, or train the SAE again")
    if config.architecture not in SAE_CLASS_REGISTRY:
        names = ", ".join(sorted(SAE_CLASS_REGISTRY))
        raise UserError(f"{file}: architecture {config.architecture[:40]!r} is none of {names}")
    if config.k is not None and config.k > config.d_sae:
        raise UserError(f"{file}: k {config.k:g} is above its {config.d_sae} features")
    return config


def _check_shapes(file: Path, config: _Config) -> None:
    """UserError where the sizes of `cfg.json` are not those of the weights, by their header."""
    if not file.exists():
        raise UserError(f"{file} is missing: restore it, or train the SAE again")
    shapes = tensor_shapes(file)
    d_in, d_sae = config.d_in, config.d_sae
    for name, shape in {"W_enc": (d_in, d_sae), "W_dec": (d_sae, d_in)}.items():
        if shapes.get(name) != shape:
            held = "absent" if name not in shapes else " x ".join(map(str, shapes[name]))
            raise UserError(
                f"{file}: {name} is {held}, {CONFIG} next to it says {shape[0]} x {shape[1]}: "
                "restore both from one SAE"
            )


def save_inference(
    sae: TrainingSAE[Any], scaling: Scaling, provenance: dict[str, Any], out: Path
) -> None:
    """Write the files that `sae_lens.SAE.load_from_disk` opens; it then takes raw activations.

    Centre and scale are folded into the weights (x -> (x - mean) / scale in front of the encoder,
    and back behind the decoder), and kept in the metadata under `trm_interp`.
    """
    with torch.random.fork_rng(devices=[]):
        folded = copy.deepcopy(sae)
    folded.fold_activation_norm_scaling_factor(1 / scaling.scale)
    with torch.no_grad():
        folded.b_dec.add_(scaling.mean.to(folded.b_dec))
    kept = {"mean": scaling.mean.tolist(), "scale": scaling.scale}
    folded.cfg.metadata = SAEMetadata(
        model_name=provenance.get("architecture", "trm").upper(),
        hook_name=provenance["sites"][0],
        trm_interp={**provenance, "scaling": kept},
    )
    with saving(out) as folder:
        folded.cpu().save_inference_model(folder)
        config = json.loads((folder / CONFIG).read_text())
        write_json(folder / CONFIG, {**config, "device": "cpu"})
        for name in (WEIGHTS, CONFIG):
            publish(folder / name, out / name)


@contextmanager
def saving(out: Path) -> Iterator[Path]:
    """A temporary folder inside `out` for files that are being written; deleted at the end.

    A full disk is a DiskError, whichever library writes.
    """
    out.mkdir(parents=True, exist_ok=True)
    with disk_errors(out), tempfile.TemporaryDirectory(dir=out, prefix=SAVING) as folder:
        yield Path(folder)


def remove_half_saved(out: Path) -> None:
    """Remove the `saving` folders of processes that were killed, if nothing else lies in them."""
    for folder in out.glob(f"{SAVING}*"):
        if folder.is_dir() and not folder.is_symlink():
            held = list(folder.iterdir())
            names = {entry.name for entry in held if not entry.name.endswith(".partial")}
            if names <= WRITTEN_THERE and not any(entry.is_dir() for entry in held):
                shutil.rmtree(folder)
