"""Shape annotations that are checked while the tests run, each kind of call once.

jaxtyping takes ten times as long to check a call of a tiny model as the call takes. What it says
depends on types, dtypes and shapes alone: calls whose arguments and result agree in these with
calls that passed are not checked again.
"""

import functools
import types
from collections.abc import Hashable
from typing import Any

import jaxtyping
import numpy as np
import torch

FEW = 8  # items of a container that are looked at; calls with larger ones are always checked
check_always = jaxtyping.jaxtyped


class Unlike(Exception):
    """No kind of its own: values that are checked in any case."""


def kind(value: Any) -> Hashable:
    """What decides whether a value fits its annotation."""
    own = type(value)
    if isinstance(value, torch.Tensor | np.ndarray):
        return own, value.dtype, tuple(value.shape)
    if value is None or isinstance(value, int) or (own is str and len(value) < 99):
        return own, value
    if isinstance(value, tuple | list):
        if len(value) > FEW:
            raise Unlike
        return own, tuple(map(kind, value))
    if isinstance(value, dict):
        if len(value) > FEW:
            raise Unlike
        return own, tuple((key, kind(one)) for key, one in value.items())
    return own


def jaxtyped(function: Any = None, *, typechecker: Any) -> Any:
    """In place of jaxtyping's own."""
    if function is None:
        return functools.partial(jaxtyped, typechecker=typechecker)
    if not isinstance(function, types.FunctionType):
        return check_always(function, typechecker=typechecker)
    checked = check_always(function, typechecker=typechecker)
    results: list[Any] = []  # the last is that of the call whose result is checked

    @functools.wraps(function)
    def repeated(*args: Any, **named: Any) -> Any:
        return results[-1]

    check_result = check_always(repeated, typechecker=typechecker)
    passed: set[Hashable] = set()

    @functools.wraps(function)
    def call(*args: Any, **named: Any) -> Any:
        if torch.compiler.is_compiling():
            return checked(*args, **named)
        try:
            given = kind(args), kind(named)
            known = given in passed
        except (Unlike, TypeError):  # unhashable: sizes without a number yet
            return checked(*args, **named)
        if not known:
            result = checked(*args, **named)
            passed.add(given)
            return result
        result = function(*args, **named)
        try:
            came = given, kind(result)
            known = came in passed
        except (Unlike, TypeError):
            came, known = None, False
        if not known:
            results.append(result)
            try:
                check_result(*args, **named)
            finally:
                results.pop()
            if came is not None:
                passed.add(came)
        return result

    return call


def checking(modules: list[str]) -> Any:
    """What modules are imported within, so that their annotations are checked."""
    jaxtyping.jaxtyped = jaxtyped
    return jaxtyping.install_import_hook(modules, "beartype.beartype")
