"""Numbers of the command line: Click's ranges, which say what was wanted in words of ours.

Of what is no number Click would say that it is "not a valid integer range".
"""

from __future__ import annotations

from typing import Any

import click


class _Whole(click.IntRange):
    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter:
            self.fail(f"{value!r}; wanted a whole number{_bounds(self)}", param, ctx)


class _Real(click.FloatRange):
    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            found = super().convert(value, param, ctx)
        except click.BadParameter:
            found = None
        if found is None or found != found:  # NaN is within any range for Click
            self.fail(f"{value!r}; wanted a number{_bounds(self)}", param, ctx)
        return found


def _bounds(kind: click.IntRange | click.FloatRange) -> str:
    least = f" above {kind.min}" if kind.min_open else f", {kind.min} or more"
    most = f" below {kind.max}" if kind.max_open else f", {kind.max} or less"
    return (least if kind.min is not None else "") + (most if kind.max is not None else "")


def worded(kind: click.ParamType) -> click.ParamType:
    """The same type, with our words if it is one of Click's ranges."""
    if type(kind) is click.IntRange:
        return _Whole(kind.min, kind.max, kind.min_open, kind.max_open, kind.clamp)
    if type(kind) is click.FloatRange:
        return _Real(kind.min, kind.max, kind.min_open, kind.max_open, kind.clamp)
    return kind
