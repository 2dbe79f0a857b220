"""The options that say when a run ends, and how one that has ended goes on."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import click

from ..errors import UsageError
from ._numbers import worded

Command = Callable[..., Any]


class _OrNone(click.ParamType):
    """A number, or `none`, which lifts a limit that was set."""

    def __init__(self, number: click.ParamType) -> None:
        self._number = worded(number)
        self.name = number.name

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "none":
            return value
        number = self._number.convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value}; wanted a finite number, or none", param, ctx)
        return number


_COUNT, _NUMBER = _OrNone(click.IntRange(1)), _OrNone(click.FLOAT)
_POSITIVE, _NOT_NEGATIVE = _OrNone(click.FloatRange(0, min_open=True)), _OrNone(click.FloatRange(0))
_OPTIONS: dict[str, tuple[click.ParamType, str]] = {
    "tolerance": (_NOT_NEGATIVE, "Converged when max|∇J| is no larger; the optimizer's own, 1e-5 if not given."),
    "decrease": (_POSITIVE, "Converged when J has changed by no more than this part of itself over 5 iterations."),
    "evaluations": (_COUNT, "The most evaluations of J, each a pass over the rows."),
    "passes": (_POSITIVE, "The most passes, with all that an optimizer asks for besides evaluations."),
    "seconds": (_POSITIVE, "The most seconds of training, of all sessions together."),
    "target": (_NUMBER, "End when J, with its λ term, is no higher."),
    "patience": (
        _COUNT,
        "Early stopping: end after so many iterations without a lower validation cost, and keep the Θ that had the "
        "lowest.",
    ),
    "min-delta": (_NOT_NEGATIVE, "By how much the validation cost must be lower for the patience to begin anew."),
}


def stopping_options(function: Command) -> Command:
    """--tolerance, --decrease, --evaluations, --passes, --seconds, --target, --patience, --min-delta."""
    for name, (kind, text) in reversed(_OPTIONS.items()):
        function = click.option(f"--{name}", type=kind, help=text, show_default=False)(function)
    return function


def given(options: dict[str, Any]) -> dict[str, Any]:
    """Take these options out of all that a command was given: those that were, `none` as None."""
    found = {name: options.pop(name) for name in (key.replace("-", "_") for key in _OPTIONS)}
    return {name: None if value == "none" else value for name, value in found.items() if value is not None}


def for_training(options: dict[str, Any]) -> dict[str, Any]:
    """The same options as fields of a new job: the tolerance is the optimizer's, beside what `--set` has.

    Raises:
        UsageError: the tolerance is given twice.
    """
    found = given(options)
    if "tolerance" in found:
        if "tolerance" in options["options"]:
            raise UsageError("--tolerance and --set tolerance=…", wanted="one of them")
        options["options"]["tolerance"] = found.pop("tolerance") or 0.0
    if found.get("min_delta", 0.0) is None:
        found["min_delta"] = 0.0
    return options | found


def ways_on(model: Any, used: dict[str, Any]) -> list[str]:
    """The options with which `resume` goes on with a run that a limit, a target or early stopping has ended, or that
    has stalled where a finer precision is left to go on at: at a limit, or since it was told not to climb.

    Args:
        used: the iterations, evaluations, passes and seconds of the run.
    """
    from ..stopping import Stopping, spent

    job, kind = model.job, model.ending["kind"]
    if kind not in ("early", "target", "limit", "stalled"):
        return []
    if kind == "stalled" and (model.history[-1]["precision"] if model.history else job["precision"]) == "fp64":
        return []
    if kind == "stalled" and not job["climb"]:
        return ["--climb"]
    ways = {"early": [f"--patience {2 * (job.get('patience') or 0)}"], "target": ["--target none"]}.get(kind, [])
    for name in spent(job["iterations"], Stopping.of(job), used):
        more = 2 * max(job[name], used[name], 1)
        ways.append(f"--{name} {more:g}" if name == "seconds" else f"--{name} {math.ceil(more)}")
    return ways
