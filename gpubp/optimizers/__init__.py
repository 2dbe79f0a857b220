"""Optimizers: each module of this folder that defines an `Optimizer` is one, under the module's name.

The folder is the list. To add an optimizer, write one file here; `names` and `make` find it, its frozen fields are its
options, its state saves itself and the tests run over it, once it has its entry in their one table, `tests/suits.py`.

Nothing here knows of networks: an optimizer is tested on Rosenbrock's valley, and meets an objective in `training`.
"""

from __future__ import annotations

import pkgutil
from dataclasses import fields
from functools import cache
from importlib import import_module
from inspect import isabstract
from typing import Any

from ..errors import UsageError
from .base import Ending, Function, Optimizer, State

__all__ = ["Ending", "Function", "Optimizer", "State", "make", "names", "of"]


@cache
def _classes() -> dict[str, type[Optimizer[Any]]]:
    found = {}
    for module in sorted(module.name for module in pkgutil.iter_modules(__path__)):
        for value in vars(import_module(f"{__name__}.{module}")).values():
            own = isinstance(value, type) and value.__module__ == f"{__name__}.{module}"
            if (
                own and issubclass(value, Optimizer) and not isabstract(value)
            ):  # what others share may stand beside them
                if module in found:
                    raise TypeError(f"optimizers/{module}.py defines {found[module].__name__} and {value.__name__}")
                found[module] = value
    return found


def names() -> tuple[str, ...]:
    """The names of the optimizers, in order of the alphabet."""
    return tuple(_classes())


def of(name: str) -> type[Optimizer[Any]]:
    """The class of that name; its dataclass fields are its options.

    Raises:
        UsageError: there is none.
    """
    if name not in _classes():
        raise UsageError(f"optimizer '{name}'", wanted=f"one of {', '.join(names())}")
    return _classes()[name]


def make(name: str, **options: Any) -> Optimizer[Any]:
    """The optimizer of that name with its defaults, but for the options given.

    Raises:
        UsageError: an unknown name or option, or a value that cannot be meant.
    """
    kind = of(name)
    known = [field.name for field in fields(kind)]
    for option in options:
        if option not in known:
            raise UsageError(f"option '{option}' of optimizer {name}", wanted=f"one of {', '.join(known)}")
    return kind(**options)
