"""Files of a folder of ours, named in its place."""

from pathlib import Path

from published import error_of

from trm_interp.core.checkpoints.folder import load_checkpoint, save_checkpoint
from trm_interp.core.models.trm import TRM


def test_a_file_of_our_folder_means_the_folder(tiny_trm: TRM, tmp_path: Path):
    ours = tmp_path / "ours"
    save_checkpoint(ours, tiny_trm, {})
    own = load_checkpoint(ours)
    assert load_checkpoint(ours / "model.safetensors").sha256 == own.sha256
    (ours / "train_state.pt").write_bytes(b"a pickle")
    message = error_of(ours / "train_state.pt")
    assert message.endswith(f"how a training goes on; its weights: {ours}")
