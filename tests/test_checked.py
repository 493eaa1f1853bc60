"""Annotations are checked in every call that differs in kind from those that passed."""

from collections.abc import Callable
from typing import Any

import beartype
import jaxtyping
import pytest
import torch
from checked import jaxtyped
from torch import Tensor

from trm_interp.core.models.trm import TRM
from trm_interp.runtime.shapes import Float


def scale(
    x: Float[Tensor, "row column"], by: float = 2.0, cut: int = 0
) -> Float[Tensor, "row column"]:
    return (x * by)[: len(x) - cut]


@pytest.fixture
def calls() -> list[int]:
    return []


@pytest.fixture
def checked(calls: list[int]) -> Callable[..., Any]:
    def typechecker(function: Any) -> Any:
        inner = beartype.beartype(function)

        def counted(*args: Any, **named: Any) -> Any:
            calls.append(1)
            return inner(*args, **named)

        return counted

    return jaxtyped(scale, typechecker=typechecker)


def test_a_kind_of_call_is_checked_once(checked: Callable[..., Any], calls: list[int]):
    for _ in range(4):
        assert checked(torch.ones(2, 3)).sum() == 12
    first = len(calls)
    checked(torch.zeros(2, 3))
    assert len(calls) <= first  # values say nothing
    for other in (torch.ones(3, 2), torch.ones(2, 3, dtype=torch.float64)):
        before = len(calls)
        checked(other)
        assert len(calls) > before


def test_what_does_not_fit_is_refused_after_calls_that_fit(checked: Callable[..., Any]):
    checked(torch.ones(2, 3))
    checked(torch.ones(2, 3))
    for wrong in (torch.ones(3), torch.ones(2, 3, dtype=torch.int64)):
        for _ in range(2):
            with pytest.raises(jaxtyping.TypeCheckError, match="parameters"):
                checked(wrong)
    with pytest.raises(jaxtyping.TypeCheckError, match="return value"):
        checked(torch.ones(2, 3), cut=1)


def test_a_result_of_another_kind_is_checked(calls: list[int]):
    answers = [torch.ones(2), torch.ones(2), torch.ones(3)]

    def next_one(x: Float[Tensor, " row"]) -> Float[Tensor, " row"]:
        return answers.pop(0)

    checked = jaxtyped(next_one, typechecker=beartype.beartype)
    checked(torch.ones(2))
    checked(torch.ones(2))
    with pytest.raises(jaxtyping.TypeCheckError, match="return value"):
        checked(torch.ones(2))


def test_modules_of_the_package_are_checked(tiny_mlp: TRM):
    with pytest.raises(jaxtyping.TypeCheckError):
        tiny_mlp.embed(torch.ones(2, dtype=torch.long))
