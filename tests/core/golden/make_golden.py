"""The TRM restated from its description in plain numpy and float64, and the file of its values.

`python tests/core/golden/make_golden.py` writes restated.npz beside this file. The restatement
shares no code with the package; weights carry the package's names so that a model can load them.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
STEPS = 3
BASE: dict[str, Any] = {"cells": 16, "vocab": 6, "d_model": 8, "n_layers": 2}
BASE |= {
    "h_cycles": 2,
    "l_cycles": 3,
    "multiple": 8,
    "expansion": 1.0,
    "n_heads": 2,
    "normalised_swiglu": False,
}
CASES = {
    "mlp_16": BASE | {"mixer": "mlp", "prefix": 16, "q_outputs": 2},
    "mlp_1_normalised": BASE
    | {"mixer": "mlp", "prefix": 1, "q_outputs": 2, "normalised_swiglu": True, "expansion": 2.0},
    "mlp_0": BASE | {"mixer": "mlp", "prefix": 0, "q_outputs": 1},
    "attention_16": BASE | {"mixer": "attention", "prefix": 16, "q_outputs": 2},
    "attention_0_normalised": BASE
    | {"mixer": "attention", "prefix": 0, "q_outputs": 1, "normalised_swiglu": True},
}


def norm(x, axis):
    return x / np.sqrt((x**2).mean(axis, keepdims=True) + 1e-5)


def swiglu(x, up, down, normalised):
    """Along the last axis."""
    both = x @ up.T
    m = both.shape[-1] // 2
    gate, value = both[..., :m], both[..., m:]
    sigmoid = 1 / (1 + np.exp(-gate))
    hidden = sigmoid * norm(gate * value, -1) if normalised else gate * sigmoid * value
    return hidden @ down.T


def rotate(x):
    """Rotary positions, x [batch, pos, d_head]: pair (i, i + half) turns by pos 10000^(-i/half)."""
    half = x.shape[-1] // 2
    out = np.empty_like(x)
    for i in range(half):
        angle = np.arange(x.shape[1]) * 10_000.0 ** (-i / half)
        a, b = x[..., i], x[..., i + half]
        out[..., i] = a * np.cos(angle) - b * np.sin(angle)
        out[..., i + half] = b * np.cos(angle) + a * np.sin(angle)
    return out


def attention(x, qkv, out, n_heads):
    d = x.shape[-1]
    size = d // n_heads
    q, k, v = x @ qkv[:d].T, x @ qkv[d : 2 * d].T, x @ qkv[2 * d :].T
    mixed = np.empty_like(x)
    for head in range(n_heads):
        own = slice(head * size, (head + 1) * size)
        score = rotate(q[..., own]) @ rotate(k[..., own]).transpose(0, 2, 1) / np.sqrt(size)
        weight = np.exp(score - score.max(-1, keepdims=True))
        mixed[..., own] = weight / weight.sum(-1, keepdims=True) @ v[..., own]
    return mixed @ out.T


def network(h, injection, w, config):
    h = h + injection
    for i in range(config["n_layers"]):
        b = f"net.blocks.{i}."
        normalised = config["normalised_swiglu"]
        if config["mixer"] == "attention":
            qkv, out = w[b + "mixer.qkv.weight"], w[b + "mixer.out.weight"]
            h = norm(h + attention(h, qkv, out, config["n_heads"]), -1)
        else:
            t = h.transpose(0, 2, 1)  # [batch, d_model, pos]
            up, down = w[b + "mixer.gate_up.weight"], w[b + "mixer.down.weight"]
            h = norm(t + swiglu(t, up, down, normalised), -1).transpose(0, 2, 1)
        up, down = w[b + "mlp.gate_up.weight"], w[b + "mlp.down.weight"]
        h = norm(h + swiglu(h, up, down, normalised), -1)
    return h


def run(w, inputs, config, steps):
    """ticks [step * evaluation, batch, pos, d], z_H, z_L [step, ...], logits, q_halt by step."""
    w = {name: np.asarray(value, np.float64) for name, value in w.items()}
    d, prefix = config["d_model"], config["prefix"]
    x = np.zeros((len(inputs), prefix + config["cells"], d))
    x[:, prefix:] = w["token_embedding"][inputs]
    if prefix:
        x[:, 0] = w["prefix_embedding"]
    x = x * np.sqrt(d)
    z_H = np.zeros_like(x) + w["z_H_init"]
    z_L = np.zeros_like(x) + w["z_L_init"]
    out = {"ticks": [], "z_H": [], "z_L": [], "logits": [], "q_halt": []}
    for _ in range(steps):
        for _ in range(config["h_cycles"]):
            for _ in range(config["l_cycles"]):
                z_L = network(z_L, z_H + x, w, config)
                out["ticks"].append(z_L)
            z_H = network(z_H, z_L, w, config)
            out["ticks"].append(z_H)
        out["z_H"].append(z_H)
        out["z_L"].append(z_L)
        out["logits"].append(z_H[:, prefix:] @ w["lm_head.weight"].T)
        out["q_halt"].append(z_H[:, 0] @ w["q_head.weight"][0] + w["q_head.bias"][0])
    return {name: np.stack(values) for name, values in out.items()}


def hidden(n, config):
    width = round(config["expansion"] * n * 2 / 3)
    return (width + config["multiple"] - 1) // config["multiple"] * config["multiple"]


def weights(config, rng):
    """Random weights, halved: at full scale the recursion amplifies rounding."""
    d, pos = config["d_model"], config["prefix"] + config["cells"]
    w = {
        "z_H_init": rng.normal(size=d),
        "z_L_init": rng.normal(size=d),
        "token_embedding": rng.normal(size=(config["vocab"], d)) / np.sqrt(d),
        "lm_head.weight": rng.normal(size=(config["vocab"], d)) / np.sqrt(d),
        "q_head.weight": rng.normal(size=(config["q_outputs"], d)) / np.sqrt(d),
        "q_head.bias": rng.normal(size=config["q_outputs"]),
    }
    if config["prefix"]:
        w["prefix_embedding"] = rng.normal(size=d) / np.sqrt(d)
    for i in range(config["n_layers"]):
        shapes = {"mlp.gate_up": (2 * hidden(d, config), d), "mlp.down": (d, hidden(d, config))}
        if config["mixer"] == "attention":
            shapes |= {"mixer.qkv": (3 * d, d), "mixer.out": (d, d)}
        else:
            m = hidden(pos, config)
            shapes |= {"mixer.gate_up": (2 * m, pos), "mixer.down": (pos, m)}
        for name, shape in shapes.items():
            w[f"net.blocks.{i}.{name}.weight"] = rng.normal(size=shape) / np.sqrt(shape[1]) / 2
    return {name: value.astype(np.float32) for name, value in w.items()}


if __name__ == "__main__":
    arrays = {}
    for seed, (case, config) in enumerate(CASES.items()):
        rng = np.random.default_rng(seed)
        inputs = rng.integers(1, config["vocab"], size=(2, config["cells"]))
        w = weights(config, rng)
        values = run(w, inputs, config, STEPS)
        values["ticks"] = values["ticks"][: config["h_cycles"] * (config["l_cycles"] + 1), :1]
        arrays[f"{case}/config"] = np.array(json.dumps(config))
        arrays[f"{case}/inputs"] = inputs.astype(np.uint8)
        arrays |= {f"{case}/weights/{name}": value for name, value in w.items()}
        arrays |= {f"{case}/values/{k}": value.astype(np.float32) for k, value in values.items()}
    np.savez_compressed(HERE / "restated.npz", **arrays)
