"""Pictures of how the training went: costs, gradient, step length, speed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..bench.products import flops
from .material import Material
from .style import BLUE, GREEN, ORANGE, logarithmic, plot, spans, thinned


def has_history(m: Material) -> bool:
    """Whether there is an iteration to draw."""
    return bool(m.run.history)


def has_steps(m: Material) -> bool:
    """Whether the history knows the length of a step."""
    return any(_finite(row.get("step")) for row in m.run.history)


def cost_by_passes(m: Material) -> Any:
    """J and the validation cost against passes over the rows."""
    return _costs(m, "passes", "passes over the rows")


def cost_by_seconds(m: Material) -> Any:
    """J and the validation cost against seconds of training."""
    return _costs(m, "seconds", "seconds of training")


def _costs(m: Material, name: str, label: str) -> Any:
    figure, axes = plot()
    history = m.run.history
    x = [row[name] for row in history]
    J = [row["J"] for row in history]
    _line(axes, x, J, BLUE, "--", "s", "training: J, with the λ term")
    shown = [J]
    validation = [math.nan if row["validation"] is None else row["validation"] for row in history]
    if any(map(_finite, validation)):
        _line(axes, x, validation, ORANGE, "-", "o", "validation, without it")
        shown.append(validation)
    if m.training_cost is not None and m.at is not None:
        axes.plot([history[m.at][name]], [m.training_cost], marker="*", markersize=11, color="black", linestyle="none",
                  label="training, without it", zorder=5)  # fmt: skip
        shown.append([m.training_cost])
    if m.at is not None and m.at != len(history) - 1:
        axes.axvline(x[m.at], color="0.35", linewidth=1, linestyle=":", label="the Θ that is kept")
    values = [one for ones in shown for one in ones]
    if spans(values, 8):
        logarithmic(axes, values)
    _mark_precisions(axes, history, x)
    axes.set_xlabel(label)
    axes.set_ylabel("cost")
    axes.legend(framealpha=0.9, edgecolor="none")
    return figure


def gradient(m: Material) -> Any:
    """max|∇J| against iterations, where it is to fall to the tolerance."""
    figure, axes = plot()
    history = m.run.history
    x, y = [row["iteration"] for row in history], [row["gradient"] for row in history]
    _line(axes, x, y, BLUE, "-", "o", "max|∇J|")
    values = y
    if m.tolerance is not None and spans([*y, m.tolerance], 1):
        values = [*y, m.tolerance]
        axes.axhline(m.tolerance, color="0.35", linewidth=1, linestyle=":", label=f"converged at {m.tolerance:g}")
        axes.legend(framealpha=0.9, edgecolor="none")
    if spans(values, 8):
        logarithmic(axes, values)
    _mark_precisions(axes, history, x)
    axes.set_xlabel("iteration")
    axes.set_ylabel("max|∇J|")
    return figure


def step(m: Material) -> Any:
    """The length of each step against iterations."""
    figure, axes = plot()
    history = m.run.history
    x, lengths = [row["iteration"] for row in history], [row.get("step") for row in history]
    y = [value if value is not None and value > 0 else math.nan for value in lengths]
    _line(axes, x, y, GREEN, "-", "o", "")
    if spans(y, 8):
        logarithmic(axes, y)
    _mark_precisions(axes, history, x)
    axes.set_xlabel("iteration")
    axes.set_ylabel("‖ΔΘ‖")
    return figure


def has_speed(m: Material) -> bool:
    """Whether rows per second are known."""
    return m.throughput is not None and m.throughput.rows_per_s is not None


def speed(m: Material) -> Any:
    """Rows per second over the run, and what the matrix products alone would reach."""
    found = m.throughput
    assert found is not None and found.rows is not None and found.rows_per_s is not None
    figure, axes = plot()
    history = [row for row in m.run.history if _finite(row["seconds"]) and _finite(row["passes"])]
    iteration = np.array([row["iteration"] for row in history])
    seconds = np.array([row["seconds"] for row in history])
    passes = np.array([row["passes"] for row in history])
    at = np.unique(np.linspace(0, len(history) - 1, min(len(history), 61)).astype(int))
    took = np.diff(seconds[at])
    rates = np.divide(np.diff(passes[at]) * found.rows, took, out=np.full(len(took), np.nan), where=took > 0)
    axes.step(iteration[at][1:], rates, where="pre", color=BLUE, label="the run")
    axes.axhline(found.rows_per_s, color=BLUE, linewidth=1, linestyle="--", label="its mean after the first iteration")
    if found.limit:
        limit = found.limit["gflops"] * 1e9 / flops(m.run.model.network.sizes)
        axes.axhline(limit, color="black", linewidth=1.2, linestyle=":", label="the matrix products alone, now")
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(lambda value, _: _thousands(value))
    axes.set_xlabel("iteration")
    axes.set_ylabel("rows per second")
    axes.legend(framealpha=0.9, edgecolor="none")
    return figure


def _line(axes: Any, x: Sequence[Any], y: Sequence[Any], colour: str, dash: str, mark: str, label: str) -> None:
    at, value = thinned(x, y)
    few = len(at) <= 25
    axes.plot(at, value, color=colour, linestyle=dash, linewidth=1.6, marker=mark if few else None, markersize=4,
              label=label)  # fmt: skip


def _mark_precisions(axes: Any, history: Sequence[Mapping[str, Any]], x: Sequence[Any]) -> None:
    """A line where the passes went on at another precision."""
    for before, row, at in zip(history, history[1:], x[1:], strict=False):
        if row["precision"] != before["precision"]:
            axes.axvline(at, color="0.35", linewidth=1, linestyle=(0, (1, 2)))
            axes.annotate(f"{row['precision']} from here", (at, 0.97), xycoords=("data", "axes fraction"), rotation=90,
                          ha="right", va="top", fontsize=8, color="0.25")  # fmt: skip


def _thousands(value: float) -> str:
    for unit, each in ((" M", 1e6), (" k", 1e3)):
        if value >= each:
            return f"{value / each:g}{unit}"
    return f"{value:g}"


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
