"""Nested results of commands: kept in small files, and compared bit for bit or within a tolerance.

Bits are the same only where processor and libraries compute alike. `probe` tells: it hashes the
results of small operations of the kinds that the commands use, with the versions of the libraries.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

Tree = Any  # nested dict and list of str, int, float, bool, None and numpy arrays
Tolerance = tuple[float, float]  # relative, absolute
LIBRARIES = ("torch", "numpy", "scipy", "scikit-learn", "sae-lens")


def probe() -> str:
    """A digest that is equal where numbers come out equal, bit for bit."""
    random = np.random.default_rng(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.from_numpy(random.standard_normal(shape, dtype=np.float32))

    results = [
        draw(m, k) @ draw(k, n)
        for m, k, n in ((16, 16, 48), (288, 16, 40), (1, 18, 54), (64, 64, 64))
    ]
    results += [torch.baddbmm(draw(7, 5, 3), draw(7, 5, 16), draw(7, 16, 3))]
    x = draw(33, 37)
    results += [x.exp(), x.softmax(-1), x.log_softmax(-1), torch.rsqrt(x.square().mean(-1) + 1e-5)]
    results += [
        x.sigmoid(),
        torch.nn.functional.silu(x),
        x.double().logsumexp(-1),
        x.sum(),
        x.std(),
    ]
    results += [*torch.linalg.qr(draw(40, 6)), *torch.linalg.eigh(x.T @ x), torch.linalg.svdvals(x)]
    results += [torch.randn(100, generator=torch.Generator().manual_seed(0))]
    y = random.standard_normal((50, 20))
    arrays = [y.T @ y, np.exp(y), np.log(np.abs(y)), np.tanh(y), y.mean(0)]
    arrays += [*np.linalg.svd(y, full_matrices=False), *np.linalg.eig(y[:20])]
    digest = hashlib.sha256(" ".join(f"{name} {version(name)}" for name in LIBRARIES).encode())
    for array in [*(result.numpy() for result in results), *arrays]:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def leaves(tree: Tree, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every value with the keys that lead to it, joined by "/"; an empty dict or list is a value.

    >>> list(leaves({"a": {"b": [1, None]}, "c": []}))
    [('a/b/0', 1), ('a/b/1', None), ('c', [])]
    """
    if isinstance(tree, dict | list) and tree:
        items = tree.items() if isinstance(tree, dict) else enumerate(tree)
        for key, value in items:
            yield from leaves(value, f"{path}/{key}" if path else str(key))
    else:
        yield path, tree


def differences(
    golden: Mapping[str, Any], now: Mapping[str, Any], tolerance: Tolerance | None = None
) -> list[str]:
    """One line for every leaf that is missing, new, of another type or of another value.

    Without a tolerance floats are compared bit for bit; NaN equals NaN.
    """
    lines = []
    for path, old in golden.items():
        if path not in now:
            lines.append(f"{path}: golden {_shown(old)}, now missing")
        elif why := _difference(old, now[path], tolerance):
            lines.append(f"{path}: {why}")
    lines += [
        f"{path}: not in the golden files, now {_shown(new)}"
        for path, new in now.items()
        if path not in golden
    ]
    return lines


def _difference(old: Any, new: Any, tolerance: Tolerance | None) -> str:
    """Why two leaves differ; empty where they do not."""
    if type(old) is not type(new):
        return (
            f"golden {_shown(old)} ({type(old).__name__}), now {_shown(new)} ({type(new).__name__})"
        )
    if isinstance(old, np.ndarray):
        return _array_difference(old, new, tolerance)
    if isinstance(old, float):
        same = np.float64(old).tobytes() == np.float64(new).tobytes() or (old != old and new != new)
        if not same and tolerance:
            same = bool(np.isclose(new, old, *tolerance, equal_nan=True))
    else:
        same = old == new
    return "" if same else f"golden {_shown(old)}, now {_shown(new)}"


def _array_difference(old: np.ndarray, new: np.ndarray, tolerance: Tolerance | None) -> str:
    """Why two arrays differ, with the first place where they do."""
    if (old.dtype, old.shape) != (new.dtype, new.shape):
        return f"golden {old.dtype} {old.shape}, now {new.dtype} {new.shape}"
    if old.tobytes() == new.tobytes():
        return ""
    is_float = old.dtype.kind == "f"
    if tolerance and is_float:
        relative, absolute = tolerance
        ulp = float(np.finfo(old.dtype).eps)
        same = np.isclose(
            new.astype(float), old.astype(float), max(relative, 2 * ulp), absolute, equal_nan=True
        )
    else:
        size = old.dtype.itemsize
        bits = [np.frombuffer(a.tobytes(), np.uint8).reshape(-1, size) for a in (old, new)]
        same = (bits[0] == bits[1]).all(-1).reshape(old.shape)
    if same.all():
        return ""
    first = tuple(int(i) for i in np.argwhere(~same)[0])
    count = f"{(~same).sum()} of {same.size} values differ"
    return f"{count}, first at {list(first)}: golden {old[first]!r}, now {new[first]!r}"


def _shown(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.dtype} array {value.shape}"
    return repr(value)[:200]


def save(folder: Path, name: str, tree: Tree) -> None:
    """NAME.json, with arrays in NAME.npz, and the probe of this machine."""
    arrays: dict[str, np.ndarray] = {}

    def without_arrays(tree: Tree, path: str) -> Tree:
        if isinstance(tree, dict):
            return {key: without_arrays(value, f"{path}/{key}") for key, value in tree.items()}
        if isinstance(tree, np.ndarray):
            arrays[path] = tree
            return {"array": path}
        return tree

    kept = {file: without_arrays(content, file) for file, content in tree.items()}
    files = ",\n".join(f"{json.dumps(file)}: {_lines(content)}" for file, content in kept.items())
    text = f'{{"probe": "{probe()}",\n"tree": {{\n{files}\n}}}}\n'
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(text)
    (folder / f"{name}.npz").unlink(missing_ok=True)
    if arrays:
        np.savez_compressed(folder / f"{name}.npz", allow_pickle=False, **arrays)


def _lines(content: Tree) -> str:
    """JSON with a line for every key of the outermost dict, so that changes show in a diff."""
    if not isinstance(content, dict):
        return json.dumps(content)
    return (
        "{\n" + ",\n".join(f" {json.dumps(k)}: {json.dumps(v)}" for k, v in content.items()) + "\n}"
    )


def load(folder: Path, name: str) -> tuple[str, Tree]:
    """The probe of the machine that the golden files are from, and the tree."""
    kept = json.loads((folder / f"{name}.json").read_text())
    file = folder / f"{name}.npz"
    arrays: dict[str, np.ndarray] = {}
    if file.exists():
        with np.load(file, allow_pickle=False) as opened:
            arrays = dict(opened)

    def with_arrays(tree: Tree) -> Tree:
        if isinstance(tree, dict):
            if tree.keys() == {"array"} and tree["array"] in arrays:
                return arrays[tree["array"]]
            return {key: with_arrays(value) for key, value in tree.items()}
        return tree

    return kept["probe"], with_arrays(kept["tree"])
