"""Attributes of datasets, groups and files, as JSON can carry them; and what h5py's errors say."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np

ATTRIBUTE_BYTES, ATTRIBUTES = 1 << 16, 64
ATTRIBUTE_NUMBERS = 1000  # of more numbers in one, only how many there are
MEANINGFUL = ("feature_names", "class_names")
LONGEST_NAME = 1000  # characters
# h5py says what libhdf5 finds by any of these.
UNREADABLE = (OSError, RuntimeError, ValueError, KeyError, TypeError, AttributeError, UnicodeError, ArithmeticError)


@dataclass
class Budget:
    """What may still be said about the attributes of a file, in characters."""

    left: int = 2 << 20


def attributes(of: Any, budget: Budget) -> dict[str, Any]:
    """The texts and numbers among the attributes, as JSON can carry them; in place of long ones what they are."""
    found: dict[str, Any] = {}
    for name in attribute_names(of):
        if len(found) >= ATTRIBUTES or budget.left <= 0:
            found["…"] = "and more that are not shown"
            break
        try:
            held = of.attrs.get_id(name)
            if held.get_storage_size() > ATTRIBUTE_BYTES or len(name) > LONGEST_NAME:
                found[name[:LONGEST_NAME]] = f"({held.get_storage_size():,} bytes)"
            elif held.dtype.kind in "biufc" and math.prod(held.shape or ()) > ATTRIBUTE_NUMBERS:
                found[name] = f"({math.prod(held.shape):,} numbers)"
            else:
                found[name] = plain_value(of.attrs[name])
                if len(text := str(found[name])) > ATTRIBUTE_BYTES:  # texts lie elsewhere: only now is seen how much
                    found[name] = f"({len(text):,} characters)"
            budget.left -= len(name) + len(str(found[name[:LONGEST_NAME]]))
        except UNREADABLE:
            continue  # an attribute that cannot be read is no attribute: none decides whether a file is sound
    return found


def attribute_names(of: Any) -> list[str]:
    """Those that mean something here, and of the others the first few: there can be any number."""
    names = [name for name in MEANINGFUL if name in of.attrs]

    def note(name: bytes, *_: object) -> bool | None:
        text = name.decode("utf-8", "surrogateescape")
        if text not in names:
            names.append(text)
        return len(names) > ATTRIBUTES or None

    h5py.h5a.iterate(of.id, note)
    return names


def plain_value(value: Any) -> Any:
    """An attribute as JSON can carry it."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, np.ndarray | np.generic) and value.dtype.kind != "V":
        inner = value.tolist()
        return plain_value(inner) if not isinstance(inner, np.generic) else str(inner)
    if isinstance(value, list | tuple):
        return [plain_value(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if isinstance(value, bool | int | float | str) else str(value)[:LONGEST_NAME]


def words(error: BaseException) -> str:
    """What an exception says, on one line that is not too long."""
    return " ".join(str(error).split())[:200] or type(error).__name__
