"""The curves as a picture: training and validation cost against λ, or against the number of rows.

It must be read in print and by people who do not see every colour: the curves differ in colour (blue and orange of
Okabe and Ito's palette), in line and in mark.
"""

from __future__ import annotations

import math
from io import BytesIO
from pathlib import Path
from typing import Any

from .. import canvas
from ..errors import UsageError
from ..results import put, refuse_no_folder

_KINDS = (".png", ".svg", ".pdf")
_TRAINING, _VALIDATION = "#0072B2", "#D55E00"


def check(path: str | Path) -> None:
    """Whether a picture can be made there, to be asked before the work begins.

    Raises:
        UsageError: a file of another kind; Matplotlib is missing.
        DataError: no such folder.
    """
    path = Path(path)
    if path.suffix.lower() not in _KINDS:
        raise UsageError(f"a plot named {path.name}", wanted=f"a name that ends in {', '.join(_KINDS)}")
    refuse_no_folder(path)
    canvas.require("--plot without Matplotlib")


def draw(found: Any, path: str | Path) -> None:
    """Draw a `Sweep` or a `LearningCurve` into a file, replacing it.

    Raises:
        UsageError, DataError: as `check`, or the file cannot be written.
    """
    check(path)
    figure = canvas.figure(6.4, 4.2, layout="constrained")
    axes: Any = figure.add_subplot()
    _sweep(axes, found) if hasattr(found, "candidates") else _learning_curve(axes, found)
    axes.set_ylabel("cost without the λ term")
    axes.grid(True, color="0.9", linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.legend(framealpha=1, edgecolor="none")
    drawn = BytesIO()
    figure.savefig(drawn, format=Path(path).suffix[1:].lower(), dpi=160)
    put(Path(path), drawn.getvalue())


def _curves(axes: Any, xs: list[float], ones: list[Any]) -> None:
    axes.plot(xs, [one.cost for one in ones], color=_TRAINING, linestyle="--", marker="s", markersize=5,
              label="training")  # fmt: skip
    se = [one.validation_se if math.isfinite(one.validation_se) else 0.0 for one in ones]
    axes.errorbar(xs, [one.validation for one in ones], yerr=se, color=_VALIDATION, linestyle="-", marker="o",
                  markersize=5, capsize=3, label="validation ± 1 standard error")  # fmt: skip
    costs = [one.validation for one in ones]  # these are what is chosen by: their valley must be seen
    if min(costs) > 0 and max(costs) > 30 * min(costs):
        axes.set_yscale("log")


def _sweep(axes: Any, found: Any) -> None:
    best = found.best
    ones = [one for one in found.candidates if one.hidden == best.hidden and one.sound]
    if len({one.lambda_ for one in found.candidates}) == 1:
        _networks(axes, found)
        return
    lambdas = [one.lambda_ for one in ones]
    positive = [one for one in lambdas if one > 0]
    # 0 has no place on a logarithmic axis: it stands one step to the left, and says so
    step = (positive[-1] / positive[0]) ** (1 / max(1, len(positive) - 1)) if len(positive) > 1 else 10.0
    zero = positive[0] / max(step, 1.5) if positive else 1.0
    xs = [one or zero for one in lambdas]
    _curves(axes, xs, ones)
    axes.set_xscale("log")
    axes.set_xticks(xs, [f"{one:g}" for one in lambdas])
    axes.set_xticks([], minor=True)
    at = best.lambda_ or zero
    _mark(axes, at, best, f"chosen: λ = {best.lambda_:g}")
    hidden = f"hidden units {','.join(map(str, best.hidden))}" if best.hidden else "no hidden units"
    axes.set_xlabel("λ")
    axes.set_title(f"Validation curve, {hidden}: {found.verdict.title}", fontsize=11)


def _networks(axes: Any, found: Any) -> None:
    ones = [one for one in found.candidates if one.sound]
    names = [",".join(map(str, one.hidden)) or "none" for one in ones]
    xs = [float(i) for i in range(len(ones))]
    _curves(axes, xs, ones)
    axes.set_xticks(xs, names)
    at = next(i for i, one in enumerate(ones) if one is found.best)
    _mark(axes, float(at), found.best, f"chosen: {names[at]}")
    axes.set_xlabel("units of the hidden layers")
    axes.set_title(f"Networks at λ = {found.best.lambda_:g}: {found.verdict.title}", fontsize=11)


def _mark(axes: Any, x: float, best: Any, name: str) -> None:
    axes.axvline(x, color="0.35", linewidth=1, linestyle=":")
    axes.plot([x], [best.validation], marker="*", markersize=15, color="black", linestyle="none", label=name, zorder=5)


def _learning_curve(axes: Any, found: Any) -> None:
    ones = [one for one in found.parts if one.sound]
    _curves(axes, [float(one.rows) for one in ones], ones)
    axes.set_xscale("log")
    axes.set_xticks([one.rows for one in ones], [f"{one.rows:,}" for one in ones])
    axes.set_xticks([], minor=True)
    axes.set_xlabel("training rows")
    axes.set_title(f"Learning curve: {found.verdict.title}", fontsize=11)
