"""Checkpoints as others publish them, written from a model of ours."""

from pathlib import Path
from typing import Any

import pytest
import torch

from trm_interp.core.checkpoints.folder import CheckpointError, load_checkpoint
from trm_interp.core.models.trm import TRM

NAMES = {  # ours -> public
    "z_H_init": "H_init",
    "z_L_init": "L_init",
    "token_embedding": "embed_tokens.embedding_weight",
    "prefix_embedding": "puzzle_emb.weights",
    "lm_head.weight": "lm_head.weight",
    "q_head.weight": "q_head.weight",
    "q_head.bias": "q_head.bias",
}
IN_BLOCK = {
    "mixer.gate_up": "mlp_t.gate_up_proj",
    "mixer.down": "mlp_t.down_proj",
    "mixer.qkv": "self_attn.qkv_proj",
    "mixer.out": "self_attn.o_proj",
    "mlp.gate_up": "mlp.gate_up_proj",
    "mlp.down": "mlp.down_proj",
}


def public_state(model: TRM, prefix: str = "_orig_mod.model.inner.", net: str = "L_level") -> Any:
    state = {}
    for name, tensor in model.state_dict().items():
        if name.startswith("net.blocks."):
            _, _, i, *inner, _ = name.split(".")
            state[f"{prefix}{net}.layers.{i}.{IN_BLOCK['.'.join(inner)]}.weight"] = tensor
        else:
            tensor = tensor[None] if name == "prefix_embedding" else tensor
            state[prefix + NAMES[name]] = tensor
    return state


def same_weights(one: TRM, other: TRM) -> bool:
    a, b = one.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def error_of(path: Path | str) -> str:
    """The message of the CheckpointError: one short line, the test's own folder apart."""
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(path)
    message = str(caught.value)
    assert "\n" not in message and len(message.replace(str(Path(path).parent), "")) < 340
    return message


def lightning(model: TRM, **changes: Any) -> dict[str, Any]:
    state = public_state(model, prefix="", net="lenet")
    state["z_H_init"], state["z_L_init"] = state.pop("H_init"), state.pop("L_init")
    state["input_embedding.embedding_weight"] = state.pop("embed_tokens.embedding_weight")
    settings = {
        "hidden_size": model.config.d_model, "num_heads": 4, "H_cycles": 2, "L_cycles": 3,
        "ffn_expansion": 2, "seq_len": 16, "puzzle_emb_dim": 0, "puzzle_emb_len": 0,
        "use_mlp": model.config.mixer == "mlp",
    }  # fmt: skip
    return {"state_dict": state, "hyper_parameters": settings | changes, "epoch": 3}


def public_golden() -> Path:
    """The folder of what the public implementations compute, beside the checkout; may be absent."""
    beside = [folder / "shared" / "golden" for folder in Path(__file__).resolve().parents]
    return next((folder for folder in beside if folder.is_dir()), beside[-1])
