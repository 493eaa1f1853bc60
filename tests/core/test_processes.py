"""What is left over in the environment, or does not fit into memory, ends in one line."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from trm_interp.core.processes import local_rank, rank_and_size
from trm_interp.core.ranks import Ranks
from trm_interp.runtime.errors import UserError, in_one_line, is_out_of_memory

WHOLE = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}
LEFT_OVER = [
    ({"RANK": "1"}, "RANK=1 and no WORLD_SIZE"),
    ({"RANK": "2", "WORLD_SIZE": "2"}, "RANK=2 and WORLD_SIZE=2"),
    ({"RANK": "1", "WORLD_SIZE": "1"}, "RANK=1 and WORLD_SIZE=1"),
    ({"WORLD_SIZE": "x"}, "WORLD_SIZE='x', not a number"),
    ({"WORLD_SIZE": "0"}, "RANK=0 and WORLD_SIZE=0"),
    ({"RANK": "-1"}, "RANK='-1', not a number"),
    ({"WORLD_SIZE": "4"}, "WORLD_SIZE=4 but no RANK"),
    ({"RANK": "0", "WORLD_SIZE": "4"}, "WORLD_SIZE=4 but no MASTER_ADDR"),
    ({**WHOLE, "MASTER_PORT": ""}, "WORLD_SIZE=2 but no MASTER_PORT"),
]


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, str]], None]:
    """Sets these variables and no others of torchrun."""

    def put(values: dict[str, str]) -> None:
        for name in (*WHOLE, "LOCAL_RANK"):
            monkeypatch.delenv(name, raising=False)
        for name, value in values.items():
            monkeypatch.setenv(name, value)

    return put


def test_one_process_and_several():
    assert rank_and_size({}) == rank_and_size({"RANK": "0", "LOCAL_RANK": "0"}) == (0, 1)
    assert rank_and_size({"WORLD_SIZE": "1", "RANK": "0"}) == (0, 1)
    assert rank_and_size(WHOLE) == (1, 2) and local_rank({"LOCAL_RANK": "3"}) == 3


@pytest.mark.parametrize(("values", "problem"), LEFT_OVER)
def test_left_over_variables_are_named(environment: Any, values: dict[str, str], problem: str):
    environment(values)
    with pytest.raises(UserError, match=problem) as error:
        Ranks(torch.device("cpu"))
    assert str(error.value).endswith(
        "start with torchrun, or unset RANK, LOCAL_RANK and WORLD_SIZE"
    )
    with pytest.raises(UserError, match="LOCAL_RANK='gpu'"):
        local_rank({"LOCAL_RANK": "gpu"})


def test_every_command_that_shares_work_says_so(
    environment: Any, cli: Any, copier: Path, grids: Path, tmp_path: Path
):
    environment({"RANK": "1"})
    both = ["--ckpt", copier, "--puzzles", grids, "--steps", 1]
    training = ["--train", grids, "--val", grids, "--out", tmp_path / "run"]
    for command in (
        ["eval", *both],
        ["collect", *both, "--out", tmp_path / "out"],
        ["search", *both, "--out", tmp_path / "table.csv"],
    ):
        answer = cli(*command)
        assert (answer.code, answer.out) == (2, "") and "RANK=1 and no WORLD_SIZE" in answer.err
        assert answer.err.count("\n") == 1
    assert cli("train", *training).code == 2
    assert not list(tmp_path.iterdir())


def test_nobody_at_the_address(environment: Any, monkeypatch: pytest.MonkeyPatch):
    def refused(backend: str, timeout: Any = None) -> None:
        raise torch.distributed.DistNetworkError("The client socket has timed out\nat [...]")

    environment(WHOLE)
    monkeypatch.setattr("torch.distributed.init_process_group", refused)
    with pytest.raises(UserError, match=r"process 1 of 2 does not reach the others \(The client"):
        Ranks(torch.device("cpu"))


# memory

TORCH_CPU = (
    "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you "
    "tried to allocate 412316860416 bytes. Error code 12 (Cannot allocate memory)"
)


def numpys() -> MemoryError:
    try:
        np.empty((2**48,), dtype=np.float64)
    except MemoryError as error:
        return error
    pytest.skip("this machine would give any memory")


def test_out_of_memory_is_one_line_with_the_size(capsys: pytest.CaptureFixture[str]):
    cases = [
        (RuntimeError(TORCH_CPU), "412.3 GB"),
        (numpys(), "2.00 PiB"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."), "20.00 GiB"),
        (RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"), None),
        (RuntimeError("CUDA error: out of memory"), None),
        (MemoryError(), None),
    ]
    for error, size in cases:
        assert is_out_of_memory(error)
        with pytest.raises(SystemExit) as stop, in_one_line():
            raise error
        printed = capsys.readouterr().err
        assert stop.value.code == 2 and printed.count("\n") == 1 and "--batch-size" in printed
        assert f"({size} more were needed)" in printed if size else "needed" not in printed


def test_other_errors_keep_their_traceback():
    with pytest.raises(RuntimeError, match="shape"), in_one_line():
        raise RuntimeError("shape '[2]' is invalid for input of size 3")


def test_torchs_own_allocator_says_what_is_recognised():
    with pytest.raises(RuntimeError) as error:
        torch.empty(2**50)
    assert is_out_of_memory(error.value)
