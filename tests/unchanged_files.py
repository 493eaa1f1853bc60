"""Reading what a command gave, for `unchanged.py`."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import pandas as pd
import torch
from compare_trees import Tree
from safetensors.numpy import load_file


def printed(folder: Path, out: str) -> Tree:
    return {"printed": json.loads(out)}


def written(folder: Path, out: str) -> Tree:
    """Every JSON file, table and safetensors file of a folder; not its subfolders."""
    return {
        file.name: READERS[file.suffix](file)
        for file in sorted(folder.iterdir())
        if file.suffix in READERS and not file.name.startswith(".")
    }


def claims(folder: Path, out: str) -> Tree:
    return {"claims.csv": table(folder / "claims.csv")}


def trained(folder: Path, out: str) -> Tree:
    """The run's folder, with the weights that are not averaged."""
    state = torch.load(folder / "train_state.pt", map_location="cpu", weights_only=True)
    weights = {name: value.numpy() for name, value in state["model"].items()}
    return {**written(folder, out), "weights": weights}


def store(folder: Path, out: str) -> Tree:
    """Manifest and arrays of a store."""
    arrays: dict[str, Tree] = {}

    def keep(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            axes = [axis.label for axis in item.dims]
            arrays[name.replace("/", " ")] = {"values": item[()], "axes": axes}

    with h5py.File(folder / "store.h5") as file:
        file.visititems(keep)
    return {"manifest.json": READERS[".json"](folder / "manifest.json"), "arrays": arrays}


def table(file: Path) -> Tree:
    """Columns of a CSV file: what each holds, and its values, every float as it was written."""
    columns = {}
    for name, column in pd.read_csv(file, dtype=str).items():
        texts = [text if isinstance(text, str) else None for text in column]
        kind, values = _typed(texts)
        columns[str(name)] = {"dtype": kind, "values": values}
    return columns


def _typed(texts: list[str | None]) -> tuple[str, list[Any]]:
    """The values of a column, as the narrowest type that holds them all; None where empty.

    >>> _typed(["1", "2.5", None]), _typed(["True", "False"])
    (('float', [1.0, 2.5, None]), ('bool', [True, False]))
    """
    for kind, read in {"bool": {"True": True, "False": False}.__getitem__, "int": int}.items():
        try:
            return kind, [None if text is None else read(text) for text in texts]
        except (KeyError, ValueError):
            continue
    try:
        return "float", [None if text is None else float(text) for text in texts]
    except ValueError:
        return "text", list(texts)


def rows(file: Path) -> Tree:
    return [json.loads(line) for line in file.read_text().splitlines()]


READERS: dict[str, Callable[[Path], Tree]] = {
    ".json": lambda file: json.loads(file.read_text()),
    ".jsonl": rows,
    ".csv": table,
    ".safetensors": load_file,
}
