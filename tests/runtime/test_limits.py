"""Numbers that cannot be are refused in one line, before anything is allocated."""

import os
import resource
from pathlib import Path

import numpy as np
import pytest
import torch

from trm_interp.core.counter import hash64
from trm_interp.runtime import limits
from trm_interp.runtime.errors import UserError
from trm_interp.runtime.limits import (
    LARGEST_INT,
    LARGEST_SEED,
    MOST_INDICES,
    at_most,
    finite,
    in_seed_range,
    int64,
    memory_limit,
    parse_indices,
    require_memory,
    seed32,
)


def test_the_largest_seed_is_taken_by_every_generator():
    torch.manual_seed(LARGEST_SEED)
    torch.Generator().manual_seed(LARGEST_SEED)
    np.random.default_rng([LARGEST_SEED, 1])
    assert hash64(LARGEST_SEED) != hash64(LARGEST_SEED - 1)
    np.random.RandomState(seed32(LARGEST_SEED))
    in_seed_range(0)
    in_seed_range(LARGEST_SEED)
    in_seed_range(None)


@pytest.mark.parametrize("seed", [-1, 2**63, 2**64, 10**4000])
def test_seeds_outside_are_refused(seed: int):
    with pytest.raises(UserError, match=f"seed must be from 0 to {2**63 - 1}") as error:
        in_seed_range(seed)
    assert len(str(error.value)) < 120


def test_32_bit_seeds():
    assert [seed32(seed) for seed in (0, 1, 2**32 - 1)] == [0, 1, 2**32 - 1]  # as they were
    assert seed32(2**32) == 1  # bits 32 and up are folded onto the low ones
    assert 0 <= seed32(LARGEST_SEED) < 2**32


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_what_is_not_finite(value: float):
    with pytest.raises(UserError, match="sigma must be finite, got"):
        finite("sigma", value)
    finite("sigma", 1e308)
    finite("sigma", None)


def test_upper_limits():
    at_most("k", 64, 64)
    at_most("k", None, 64)
    with pytest.raises(UserError, match="^k must be at most 64, got 65: the SAE has 64 features$"):
        at_most("k", 65, 64, "the SAE has 64 features")
    int64("n", LARGEST_INT)
    int64("n", -LARGEST_INT)
    with pytest.raises(UserError, match=r"n must lie within \+-9223372036854775807, got 1844674"):
        int64("n", 2**64)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0-99999999999", "names more than 1000000 indices"),
        (f"0-{MOST_INDICES - 1},{MOST_INDICES}-{2 * MOST_INDICES}", "names more than"),
        (str(2**63), "is above the largest index"),
        ("9" * 5000, "is above the largest index"),
        ("x" * 5000, "is no index or range"),
        ("", "is no index or range"),
        ("-1", "is no index or range"),
        ("nan", "is no index or range"),
        ("5-3", "is empty"),
    ],
)
def test_index_lists_that_cannot_be(text: str, message: str):
    with pytest.raises(UserError, match=message) as error:
        parse_indices(text, "ticks")
    assert str(error.value).startswith("ticks: ") and len(str(error.value)) < 150


def test_index_lists():
    assert parse_indices("3,0-1,1", "ticks") == [0, 1, 3]
    assert parse_indices(None, "ticks") is None
    assert len(parse_indices(f"0-{MOST_INDICES - 1}", "ticks") or []) == MOST_INDICES


def test_memory_that_no_machine_has():
    require_memory(1000, "a thing", "lower --n")
    with pytest.raises(UserError) as error:
        require_memory(10**20, "a batch of 10 runs", "lower --batch-size")
    text = str(error.value)
    assert text.startswith("a batch of 10 runs would need 1e+11 GB of memory, ")
    assert text.endswith(" GB: lower --batch-size") and len(text) < 150


def test_the_memory_of_the_machine():
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert 0 < memory_limit().n_bytes <= machine


@pytest.mark.parametrize("version", [1, 2])
def test_a_control_group_with_less(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: int):
    monkeypatch.setattr(limits, "GROUPS", tmp_path)
    if version == 1:
        (tmp_path / "memory").mkdir()
        (tmp_path / "memory/memory.limit_in_bytes").write_text("12000000\n")
    else:
        (tmp_path / "memory.max").write_text("12000000\n")
    assert memory_limit() == (12_000_000, "the control group allows")
    (tmp_path / "memory.max").write_text("max\n")
    assert version == 1 or memory_limit().source == "this machine has"


def test_a_limit_of_the_address_space(monkeypatch: pytest.MonkeyPatch):
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    monkeypatch.setattr(resource, "getrlimit", lambda which: (used + 10**8, used + 10**8))
    left, source = memory_limit()
    assert abs(left - 10**8) < 10**7 and source == "`ulimit -v` leaves"
    monkeypatch.setattr(resource, "getrlimit", lambda which: (1, 1))
    assert memory_limit().n_bytes == 0
