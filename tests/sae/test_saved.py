"""Cards measure what is saved; folders from strangers are believed in nothing."""

import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sae_lens import SAE, StandardSAE, StandardSAEConfig, TopKSAE, TopKSAEConfig
from sae_runs import quick, silent
from sae_store import noise, write_store
from safetensors.torch import load_file, save_file

from trm_interp.recording.site_reader import split_puzzles
from trm_interp.runtime.errors import UserError
from trm_interp.sae.applied import applying
from trm_interp.sae.pool import open_pool
from trm_interp.sae.saved import load_sae, provenance_of
from trm_interp.sae.settings import OnSAE
from trm_interp.sae.train import held_out_rows, train_sae

CPU = torch.device("cpu")
LIES: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "text": (lambda c: c["metadata"].update(trm_interp="mine"), "metadata.trm_interp: Expected"),
    "null": (lambda c: c["metadata"].update(trm_interp=None), "metadata.trm_interp: Expected"),
    "empty": (lambda c: c["metadata"].update(trm_interp={}), "missing required field `sites`"),
    "no sites": (lambda c: metadata_of(c).pop("sites"), "missing required field `sites`"),
    "sites empty": (
        lambda c: metadata_of(c).update(sites=[]),
        "trm_interp.sites: Expected `array` of",
    ),
    "sites of numbers": (lambda c: metadata_of(c).update(sites=[1]), r"sites\[0\]: Expected `str`"),
    "sites text": (lambda c: metadata_of(c).update(sites="z_L"), "sites: Expected `array`"),
    "odd ticks": (lambda c: metadata_of(c).update(ticks=[-1]), r"ticks\[0\]: Expected `int` >= 0"),
    "ticks of text": (lambda c: metadata_of(c).update(ticks="0-3"), "ticks: Expected `array"),
    "boards": (lambda c: metadata_of(c).update(train_boards=[3]), r"train_boards\[0\]: Expected"),
    "checkpoint": (lambda c: metadata_of(c).update(checkpoint_sha256=7), "sha256: Expected `str"),
    "d_in": (lambda c: c.update(d_in=5), "W_enc is 4 x 8, cfg.json next to it says 5 x 8"),
    "d_sae": (lambda c: c.update(d_sae=10**12), "cfg.json next to it says 4 x 1000000000000"),
    "d_in text": (lambda c: c.update(d_in="4"), "d_in: Expected `int`, got `str`"),
    "no d_sae": (lambda c: c.pop("d_sae"), "missing required field `d_sae`"),
    "architecture": (lambda c: c.update(architecture="relu"), "'relu' is none of .*gated"),
    "architecture 7": (lambda c: c.update(architecture=7), "architecture: Expected `str`"),
    "dtype": (lambda c: c.update(dtype="float3"), "cannot be read"),
    "reshaped": (lambda c: c.update(reshape_activations="hook_z"), "cannot be read|gives"),
    "metadata": (lambda c: c.update(metadata=[1]), "metadata: Expected `object`"),
    "k": (lambda c: c.update(architecture="topk", k=9), "k 9 is above its 8 features"),
}


def metadata_of(config: dict[str, Any]) -> dict[str, Any]:
    return config["metadata"]["trm_interp"]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_store(tmp_path_factory.mktemp("saved") / "store", 3 + 2 * noise(8))


@pytest.fixture(scope="module")
def made(store: Path) -> Path:
    assert train_sae(quick(store, store.parent / "sae", arch="standard"), silent)
    return store.parent / "sae"


@pytest.fixture
def sae(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made, tmp_path / "sae")


def alter(sae: Path, change: Callable[[dict[str, Any]], object]) -> None:
    config = json.loads((sae / "cfg.json").read_text())
    change(config)
    (sae / "cfg.json").write_text(json.dumps(config))


@pytest.mark.parametrize("arch", ["standard", "gated", "topk", "batchtopk", "jumprelu"])
def test_the_card_and_the_last_row_are_of_the_saved_file(arch: str, store: Path, tmp_path: Path):
    config = quick(store, tmp_path / "sae", arch=arch, max_steps=60)
    assert train_sae(config, silent)
    card = json.loads((tmp_path / "sae" / "card.json").read_text())["held_out"]
    with open_pool([store], ["z_L"]) as pool:
        _, unseen = split_puzzles(pool.inputs, config.held_out, config.seed)
        x = held_out_rows(pool, unseen, config)
    saved = SAE.load_from_disk(tmp_path / "sae")  # by plain sae-lens, on raw rows
    with torch.no_grad():
        acts = saved.encode(x)
        fvu = (saved.decode(acts) - x).square().sum() / (x - x.mean(0)).square().sum()
    assert card["held_out_fvu"] == pytest.approx(float(fvu), rel=1e-6) and card["rows"] == 32
    assert card["held_out_l0"] == pytest.approx(float((acts > 0).sum(-1).float().mean()))
    last = json.loads((tmp_path / "sae" / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["held_out_fvu"] == pytest.approx(card["held_out_fvu"], rel=1e-4)
    assert last["held_out_l0"] == pytest.approx(card["held_out_l0"], abs=0.1)
    if arch == "batchtopk":  # k = 3 by construction only in training
        assert abs(card["held_out_l0"] - 3) > 0.5


def test_same_command_same_card_but_for_its_times(made: Path, store: Path, tmp_path: Path):
    train_sae(quick(store, tmp_path / "sae", arch="standard"), silent)
    a, b = (json.loads((at / "card.json").read_text()) for at in (made, tmp_path / "sae"))
    assert a.pop("times").keys() == b.pop("times").keys() == {"training_s", "processes"}
    assert a["settings"].pop("out") != b["settings"].pop("out")
    assert a == b
    assert (made / "cfg.json").read_bytes() == (tmp_path / "sae" / "cfg.json").read_bytes()


@pytest.mark.parametrize("lie", LIES)
def test_a_cfg_that_lies_is_refused_in_a_line(lie: str, sae: Path, store: Path):
    change, words = LIES[lie]
    alter(sae, change)
    with pytest.raises(UserError, match=words) as refused, applying(OnSAE(sae=sae, store=store)):
        pass
    assert str(sae) in str(refused.value)
    assert len(str(refused.value)) < 300 + len(str(sae)) and "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"null", b"\xff\xfe{", b"[" * 10**5, b'{"d_in": NaN}']
)
def test_a_cfg_that_is_no_object_of_json(content: bytes, sae: Path):
    (sae / "cfg.json").write_bytes(content)
    with pytest.raises(UserError, match="cfg.json"):
        load_sae(sae, CPU)


def test_sizes_are_read_before_anything_is_allocated(sae: Path):
    alter(sae, lambda config: config.update(d_in=10**6, d_sae=10**6))  # 8 TB of weights
    began = time.monotonic()
    with pytest.raises(UserError, match="W_enc is 4 x 8"):
        load_sae(sae, CPU)
    assert time.monotonic() - began < 2


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9)
JSON = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3)
    ),
    max_leaves=4,
)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.data())
def test_no_cfg_ends_in_anything_but_a_line(made: Path, data: st.DataObject):
    """Any value in any place: applied, with the sizes of the weights, or a UserError."""
    with tempfile.TemporaryDirectory() as name:
        sae = shutil.copytree(made, Path(name) / "sae")
        config = json.loads((sae / "cfg.json").read_text())
        place = config
        while True:
            key = data.draw(st.sampled_from(sorted(place)))
            if not isinstance(place[key], dict) or data.draw(st.booleans()):
                break
            place = place[key]
        place[key] = data.draw(JSON)
        (sae / "cfg.json").write_text(json.dumps(config))
        try:
            provenance_of(sae)
            applied = load_sae(sae, CPU)
        except UserError as error:
            assert len(str(error).splitlines()) == 1 and len(str(error)) < 300 + len(str(sae))
        else:
            assert applied.encode(torch.zeros(2, 4)).shape == (2, 8)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["W_enc", "W_dec", "b_enc", "b_dec"])
def test_weights_that_are_not_finite_are_refused(name: str, bad: float, sae: Path):
    tensors = load_file(sae / "sae_weights.safetensors")
    tensors[name].view(-1)[0] = bad
    save_file(tensors, sae / "sae_weights.safetensors")
    with pytest.raises(UserError, match=f"{name} is not finite"):
        load_sae(sae, CPU)


def test_weights_that_lack_something(sae: Path):
    tensors = load_file(sae / "sae_weights.safetensors")
    whole = dict(tensors)
    for name, words in {"W_dec": "W_dec is absent", "b_enc": "cannot be read"}.items():
        save_file({k: v for k, v in whole.items() if k != name}, sae / "sae_weights.safetensors")
        with pytest.raises(UserError, match=words):
            load_sae(sae, CPU)
    (sae / "sae_weights.safetensors").unlink()
    with pytest.raises(UserError, match="is missing"):
        load_sae(sae, CPU)
    os.mkfifo(sae / "sae_weights.safetensors")
    with pytest.raises(UserError, match="a named pipe, not a file"):
        load_sae(sae, CPU)


def test_a_file_made_on_a_gpu_opens_on_the_cpu(sae: Path):
    alter(sae, lambda config: config.update(device="cuda"))
    assert load_sae(sae, CPU).W_dec.device.type == "cpu"


@pytest.mark.parametrize("kind", ["standard", "topk"])
def test_an_sae_of_others_opens_with_a_site(kind: str, store: Path, tmp_path: Path):
    others = StandardSAE(StandardSAEConfig(d_in=4, d_sae=8))
    if kind == "topk":
        others = TopKSAE(TopKSAEConfig(d_in=4, d_sae=8, k=3))
    others.save_model(tmp_path / "sae")
    assert provenance_of(tmp_path / "sae") is None
    config = OnSAE(sae=tmp_path / "sae", store=store, site="z_L", device="cpu")
    with applying(config, silent) as applied:
        assert applied.measured_on["arch"] == kind and applied.provenance is None
        assert len(applied.puzzles) == 8
    with (
        pytest.raises(UserError, match="give --site"),
        applying(OnSAE(sae=tmp_path / "sae", store=store)),
    ):
        pass


def test_ticks_that_the_store_lacks_are_no_licence_for_all(sae: Path, store: Path):
    alter(sae, lambda config: metadata_of(config).update(ticks=[300]))
    config = OnSAE(sae=sae, store=store)
    with pytest.raises(UserError, match="trained on none of the ticks of z_L"), applying(config):
        pass
