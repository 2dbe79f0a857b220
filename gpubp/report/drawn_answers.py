"""Pictures of how good the answers are: confusion, ROC, precision and recall, calibration, residuals."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np

from .calibration import BINS
from .material import Material
from .numbers import Numbers
from .style import BLUE, GREY, LINES, MORE, ORANGE, WIDTH, blank, colours, name_of, plain, plot

MOST_CLASSES = 30  # of a confusion matrix that is drawn
MOST_POINTS = 5000  # of predictions against truth
MOST_OUTPUTS = 6  # of a regression, those of the lowest R²
_NAMED = 3  # curves with a name: those of the lowest area
_WRITTEN = 15  # classes: with more there is no room for counts in the cells


def has_confusion(m: Material) -> bool:
    """Whether there is a confusion matrix that can be drawn."""
    answers = m.quality and m.quality.answers
    return bool(answers) and answers.confusion is not None and len(answers.each) <= MOST_CLASSES


def confusion(m: Material) -> Any:
    """Counts, on colours by the share of the row."""
    assert m.quality and m.quality.answers and m.quality.answers.confusion is not None
    answers, counts = m.quality.answers, m.quality.answers.confusion
    K = len(counts)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), np.finfo(float).tiny)
    size = min(5.6, max(3.0, 1.5 + 0.3 * K))
    figure = blank(size + 0.5, size)
    axes = figure.add_subplot()
    norm = import_module("matplotlib.colors").PowerNorm(0.5, 0, 1)  # so that rare mistakes are seen
    shown = axes.imshow(share, cmap=colours(MORE), norm=norm)
    if K <= _WRITTEN:
        for t, row in enumerate(counts):
            for a, count in enumerate(row):
                if count:
                    dark = share[t, a] > 0.35
                    axes.text(a, t, f"{count:,.4g}" if count < 1e4 else f"{count:,.0f}", ha="center", va="center",
                              fontsize=8 if K <= 10 else 6.5, color="white" if dark else "black")  # fmt: skip
    names = [name_of(one.name, 12) for one in answers.each]
    long = max(map(len, names)) > 3
    axes.set_xticks(range(K), names, rotation=90 if long else 0, fontsize=8 if K <= _WRITTEN else 6)
    axes.set_yticks(range(K), names, fontsize=8 if K <= _WRITTEN else 6)
    axes.tick_params(length=0)
    axes.set_xlabel("answer")
    axes.set_ylabel("truth")
    bar = figure.colorbar(shown, ax=axes, fraction=0.046, pad=0.03)
    bar.set_label("share of the true class", fontsize=8)
    bar.set_ticks([0, 0.01, 0.05, 0.2, 0.5, 1], labels=["0", "1 %", "5 %", "20 %", "50 %", "100 %"])
    bar.ax.minorticks_off()
    bar.ax.tick_params(labelsize=7)
    bar.outline.set_visible(False)
    return figure


def has_curves(m: Material) -> bool:
    """Whether some output has positive and negative rows."""
    answers = m.quality and m.quality.answers
    return bool(answers) and answers.pooled.auc is not None


def roc(m: Material) -> Any:
    """True against false positive rate, output by output and pooled."""
    assert m.quality and m.quality.answers
    answers = m.quality.answers
    figure, axes = plot(WIDTH, 4.2)
    good = (answers.pooled.auc or 0) > 0.97
    inset = axes.inset_axes((0.42, 0.37, 0.55, 0.45)) if good else None
    for one in filter(None, (axes, inset)):
        one.plot([0, 1], [0, 1], color="0.5", linewidth=1, linestyle=(0, (1, 2)))
        _each(one, m, lambda curve: (curve.fpr, curve.tpr), "area", lambda curve: curve.auc)
        if answers.kind != "binary":
            one.plot(answers.pooled.fpr, answers.pooled.tpr, color="black", linewidth=1.6,
                     label=f"all together: area {answers.pooled.auc:.4f}")  # fmt: skip
    if inset is not None:
        plain(inset)
        inset.set_xlim(0, 0.2)
        inset.set_ylim(0.8, 1.003)
        inset.set_xticks([0, 0.1, 0.2])
        inset.set_yticks([0.8, 0.9, 1])
        inset.tick_params(labelsize=7)
        inset.set_title("its upper left corner", fontsize=7.5, pad=3)
    axes.set_xlim(-0.01, 1.01)
    axes.set_ylim(-0.01, 1.01)
    axes.set_xlabel("false positive rate")
    axes.set_ylabel("true positive rate")
    axes.legend(loc="lower right", framealpha=0.9, edgecolor="none", fontsize=8)
    return figure


def precision_recall(m: Material) -> Any:
    """Precision against recall, output by output and pooled."""
    assert m.quality and m.quality.answers
    answers = m.quality.answers
    figure, axes = plot(WIDTH, 4.2)
    _each(axes, m, lambda curve: (curve.recall, curve.precision), "AP", lambda curve: curve.ap)
    if answers.kind != "binary":
        axes.plot(answers.pooled.recall, answers.pooled.precision, color="black", linewidth=1.6,
                  label=f"all together: AP {answers.pooled.ap:.4f}")  # fmt: skip
    axes.set_xlim(-0.01, 1.01)
    axes.set_ylim(-0.01, 1.02)
    axes.set_xlabel("recall: the share of its rows that are found")
    axes.set_ylabel("precision: the share of answers that are right")
    axes.legend(loc="lower left", framealpha=0.9, edgecolor="none", fontsize=8)
    return figure


def _each(axes: Any, m: Material, points: Any, what: str, value: Any) -> None:
    """The curves of single outputs: those of the lowest value by name, the others as thin lines."""
    assert m.quality and m.quality.answers
    curves = m.quality.answers.curves
    order = sorted(curves, key=lambda name: value(curves[name]) or 0.0)
    for name in order[_NAMED:]:
        axes.plot(*points(curves[name]), color=GREY, linewidth=0.8)
    if len(order) > _NAMED:
        axes.plot([], [], color=GREY, linewidth=0.8, label=_others(len(order) - _NAMED))
    for name, (colour, dash) in reversed(list(zip(order[:_NAMED], LINES, strict=False))):
        axes.plot(*points(curves[name]), color=colour, linestyle=dash, linewidth=1.5,
                  label=f"{name_of(name, 14)}: {what} {value(curves[name]):.4f}")  # fmt: skip


def _others(count: int) -> str:
    return f"{count} others, all higher" if count > 1 else "1 other, higher"


def has_calibration(m: Material) -> bool:
    """Whether there are answers with a confidence."""
    answers = m.quality and m.quality.answers
    return bool(answers) and answers.calibration.ece is not None


def calibration(m: Material) -> Any:
    """How often it is right against how sure it was, and how often it was so sure."""
    assert m.quality and m.quality.answers
    found = m.quality.answers.calibration
    figure = blank(WIDTH, 4.2)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    for axes in (upper, lower):
        plain(axes)
    held = found.weight > 0
    upper.plot([0, 1], [0, 1], color="0.35", linewidth=1, linestyle="--", label="calibrated")
    middle = (np.arange(BINS) + 0.5) / BINS
    upper.bar(middle[held], found.share[held], width=0.92 / BINS, color="#cfe3f3", edgecolor="0.55", linewidth=0.6)
    upper.plot(found.confidence[held], found.share[held], color=BLUE, marker="o", markersize=5, linewidth=1.4,
               label=f"the model: ECE {found.ece:.4f}")  # fmt: skip
    upper.set_ylabel("share that is true")
    upper.set_xlim(0, 1)
    upper.set_ylim(0, 1.02)
    upper.legend(loc="best", framealpha=0.9, edgecolor="none")
    lower.bar(middle, found.weight / found.weight.sum(), width=0.92 / BINS, color=GREY)
    lower.set_ylabel("of all")
    lower.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
    lower.set_xlabel("probability that the model gives")
    return figure


def has_numbers(m: Material) -> bool:
    """Whether it is a regression with rows to draw."""
    numbers = m.quality and m.quality.numbers
    return bool(numbers) and len(numbers.truth) > 0


def residuals(m: Material) -> Any:
    """How often prediction − truth is how large."""
    assert m.quality and m.quality.numbers
    found = m.quality.numbers
    figure, cells = _panels(found)
    for k, axes in cells:
        error = found.predicted[:, k] - found.truth[:, k]
        reach = float(np.quantile(np.abs(error), 0.995)) or 1.0
        bins = np.linspace(-reach, reach, 52)
        counts, _ = np.histogram(np.clip(error, -reach, reach), bins, weights=found.weight)
        axes.stairs(counts, bins, fill=True, color="#9cc6e4")
        axes.stairs(counts, bins, color=BLUE, linewidth=1)
        axes.axvline(0, color="black", linewidth=1)
        axes.axvline(found.bias[k], color=ORANGE, linewidth=1.3, linestyle="--", label=f"mean {found.bias[k]:.3g}")
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        if len(cells) == 1:
            axes.legend(framealpha=0.9, edgecolor="none", fontsize=8)
            axes.set_xlabel("prediction − truth (the ends hold what is beyond)")
            axes.set_ylabel("rows")
    if len(cells) > 1:
        figure.supxlabel("prediction − truth (the ends hold what is beyond)", fontsize=9)
        figure.supylabel("rows", fontsize=9)
    return figure


def predicted(m: Material) -> Any:
    """Predictions against truth, row by row."""
    assert m.quality and m.quality.numbers
    found = m.quality.numbers
    every = -(-len(found.truth) // MOST_POINTS)
    figure, cells = _panels(found, square=True)
    for k, axes in cells:
        truth, said = found.truth[::every, k], found.predicted[::every, k]
        low, high = min(truth.min(), said.min()), max(truth.max(), said.max())
        margin = 0.03 * (high - low) or 1.0
        ends = low - margin, high + margin
        axes.plot(truth, said, color=BLUE, marker="o", markersize=2.6, markeredgewidth=0, alpha=0.5, linestyle="none",
                  rasterized=True)  # fmt: skip
        axes.plot(ends, ends, color="black", linewidth=1, linestyle="--", label="right")
        axes.set_xlim(ends)
        axes.set_ylim(ends)
        axes.set_box_aspect(1)
        if len(cells) == 1:
            axes.legend(loc="upper left", framealpha=0.9, edgecolor="none")
            axes.set_xlabel("truth")
            axes.set_ylabel("prediction")
    if len(cells) > 1:
        figure.supxlabel("truth", fontsize=9)
        figure.supylabel("prediction", fontsize=9)
    return figure


def _panels(found: Numbers, *, square: bool = False) -> tuple[Any, list[tuple[int, Any]]]:
    """A figure with axes for the outputs of the lowest R², in their order."""
    K = len(found.r2_each)
    order = np.argsort(np.nan_to_num(found.r2_each, nan=-np.inf), kind="stable")
    chosen = sorted(int(k) for k in order[:MOST_OUTPUTS])
    if len(chosen) == 1:
        figure, axes = plot(WIDTH, 4.2 if square else 3.2)
        return figure, [(0, axes)]
    down = -(-len(chosen) // 2)
    figure = blank(WIDTH, down * (2.5 if square else 1.9) + 0.3)
    cells: list[tuple[int, Any]] = []
    for i, k in enumerate(chosen):
        axes = figure.add_subplot(down, 2, i + 1)
        plain(axes)
        axes.set_title(f"output {k + 1} of {K}: R² {found.r2_each[k]:.3f}", fontsize=8.5)
        axes.tick_params(labelsize=7.5)
        cells.append((k, axes))
    return figure, cells
