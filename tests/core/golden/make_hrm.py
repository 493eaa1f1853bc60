"""The HRM restated from its description in plain numpy and float64, and the file of its values.

`python tests/core/golden/make_hrm.py` writes restated_hrm.npz beside this file. Layers are those of
`make_golden.py`; nothing is shared with the package. Names of weights are the public ones.
"""

import json
import runpy
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
STEPS = 3
BASE: dict[str, Any] = {"cells": 9, "vocab": 5, "d_model": 8, "n_heads": 2, "n_layers": 2}
BASE |= {"multiple": 8, "expansion": 1.0, "h_cycles": 2, "l_cycles": 2}
CASES = {  # puzzle_dims 12 fill the first of two positions and half of the second
    "rotary": BASE | {"positions": "rotary", "puzzle_dims": 8, "identifiers": 1},
    "learned": BASE | {"positions": "learned", "puzzle_dims": 12, "identifiers": 3},
    "three_cycles": BASE
    | {"positions": "rotary", "puzzle_dims": 8, "identifiers": 1, "h_cycles": 3, "l_cycles": 1},
}
layers = runpy.run_path(str(HERE / "make_golden.py"))


def attention(x, qkv, out, n_heads, rotary):
    d = x.shape[-1]
    size = d // n_heads
    turn = layers["rotate"] if rotary else lambda part: part
    q, k, v = x @ qkv[:d].T, x @ qkv[d : 2 * d].T, x @ qkv[2 * d :].T
    mixed = np.empty_like(x)
    for head in range(n_heads):
        own = slice(head * size, (head + 1) * size)
        score = turn(q[..., own]) @ turn(k[..., own]).transpose(0, 2, 1) / np.sqrt(size)
        weight = np.exp(score - score.max(-1, keepdims=True))
        mixed[..., own] = weight / weight.sum(-1, keepdims=True) @ v[..., own]
    return mixed @ out.T


def stack(level, h, injection, w, config):
    h = h + injection
    for i in range(config["n_layers"]):
        b = f"{level}.layers.{i}."
        qkv, out = w[b + "self_attn.qkv_proj.weight"], w[b + "self_attn.o_proj.weight"]
        mixed = attention(h, qkv, out, config["n_heads"], config["positions"] == "rotary")
        h = layers["norm"](h + mixed, -1)
        up, down = w[b + "mlp.gate_up_proj.weight"], w[b + "mlp.down_proj.weight"]
        h = layers["norm"](h + layers["swiglu"](h, up, down, False), -1)
    return h


def embed(w, inputs, identifiers, config):
    """[batch, pos, d]: the puzzle's embedding cut into positions, then the cells."""
    d, dims = config["d_model"], config["puzzle_dims"]
    prefix = -(-dims // d)
    x = np.zeros((len(inputs), prefix + config["cells"], d))
    for row, identifier in enumerate(identifiers):
        own = np.zeros(prefix * d)
        own[:dims] = w["puzzle_emb.weights"][identifier]
        x[row, :prefix] = own.reshape(prefix, d)
        x[row, prefix:] = w["embed_tokens.embedding_weight"][inputs[row]]
    if config["positions"] == "learned":
        x = (x + w["embed_pos.embedding_weight"]) * 0.707106781
    return x * np.sqrt(d)


def run(w, inputs, identifiers, config, steps):
    """ticks [step * evaluation, batch, pos, d]; z_H, z_L, logits, q_halt, q_continue by step."""
    w = {name: np.asarray(value, np.float64) for name, value in w.items()}
    x = embed(w, inputs, identifiers, config)
    prefix = x.shape[1] - config["cells"]
    z_H, z_L = np.zeros_like(x) + w["H_init"], np.zeros_like(x) + w["L_init"]
    out = {"ticks": [], "z_H": [], "z_L": [], "logits": [], "q_halt": [], "q_continue": []}
    for _ in range(steps):
        for _ in range(config["h_cycles"]):
            for _ in range(config["l_cycles"]):
                z_L = stack("L_level", z_L, z_H + x, w, config)
                out["ticks"].append(z_L)
            z_H = stack("H_level", z_H, z_L, w, config)
            out["ticks"].append(z_H)
        q = z_H[:, 0] @ w["q_head.weight"].T + w["q_head.bias"]
        out["z_H"].append(z_H)
        out["z_L"].append(z_L)
        out["logits"].append(z_H[:, prefix:] @ w["lm_head.weight"].T)
        out["q_halt"].append(q[:, 0])
        out["q_continue"].append(q[:, 1])
    return {name: np.stack(values) for name, values in out.items()}


def weights(config, rng):
    """Random weights, those of the networks halved: else the recursion amplifies rounding."""
    d, dims = config["d_model"], config["puzzle_dims"]
    hidden = layers["hidden"](d, config)
    w = {
        "H_init": rng.normal(size=d),
        "L_init": rng.normal(size=d),
        "embed_tokens.embedding_weight": rng.normal(size=(config["vocab"], d)) / np.sqrt(d),
        "lm_head.weight": rng.normal(size=(config["vocab"], d)) / np.sqrt(d),
        "q_head.weight": rng.normal(size=(2, d)) / np.sqrt(d),
        "q_head.bias": rng.normal(size=2),
        "puzzle_emb.weights": rng.normal(size=(config["identifiers"], dims)) / np.sqrt(d),
    }
    if config["positions"] == "learned":
        n = -(-dims // d) + config["cells"]
        w["embed_pos.embedding_weight"] = rng.normal(size=(n, d)) / np.sqrt(d)
    shapes = {
        "mlp.gate_up_proj": (2 * hidden, d),
        "mlp.down_proj": (d, hidden),
        "self_attn.qkv_proj": (3 * d, d),
        "self_attn.o_proj": (d, d),
    }
    for level in ("L_level", "H_level"):
        for i in range(config["n_layers"]):
            for name, shape in shapes.items():
                scale = 2 * np.sqrt(shape[1])
                w[f"{level}.layers.{i}.{name}.weight"] = rng.normal(size=shape) / scale
    return {name: value.astype(np.float32) for name, value in w.items()}


if __name__ == "__main__":
    arrays = {}
    for seed, (case, config) in enumerate(CASES.items()):
        rng = np.random.default_rng(seed)
        inputs = rng.integers(1, config["vocab"], size=(3, config["cells"]))
        identifiers = np.arange(3) % config["identifiers"]
        w = weights(config, rng)
        values = run(w, inputs, identifiers, config, STEPS)
        values["ticks"] = values["ticks"][: config["h_cycles"] * (config["l_cycles"] + 1), :1]
        arrays[f"{case}/config"] = np.array(json.dumps(config))
        arrays[f"{case}/inputs"] = inputs.astype(np.uint8)
        arrays[f"{case}/identifiers"] = identifiers.astype(np.uint8)
        arrays |= {f"{case}/weights/{name}": value for name, value in w.items()}
        arrays |= {f"{case}/values/{k}": value.astype(np.float32) for k, value in values.items()}
    np.savez_compressed(HERE / "restated_hrm.npz", **arrays)
