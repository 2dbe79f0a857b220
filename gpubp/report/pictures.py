"""The pictures there are, by name: what each shows, when there is one, and who draws it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from . import drawn_answers, drawn_images, drawn_run
from .material import Material
from .style import styled


@dataclass(frozen=True)
class Drawing:
    """A picture that can be made.

    Attributes:
        title: for a person.
        about: what is to be seen, a sentence or two.
        applies: whether there is such a picture here.
        draw: makes the figure.
    """

    title: str
    about: str
    applies: Callable[[Material], bool]
    draw: Callable[[Material], Any]


_ALL = {
    "cost": Drawing(
        "Cost against passes",
        "J is what is minimised, with the λ term; the validation cost is without it, and so is the star, the training "
        "cost of the Θ that is kept. A gap between star and validation is what the network has learned by heart.",
        drawn_run.has_history, drawn_run.cost_by_passes,
    ),
    "cost-seconds": Drawing(
        "Cost against seconds",
        "The same against the time of training. Before the first point lie compiling and the first reading.",
        drawn_run.has_history, drawn_run.cost_by_seconds,
    ),
    "gradient": Drawing(
        "Gradient",
        "The largest |∂J/∂Θ|: at a minimum it is 0, and the run has converged where it is below the line.",
        drawn_run.has_history, drawn_run.gradient,
    ),
    "step": Drawing(
        "Step length", "How far Θ moved in each iteration, ‖ΔΘ‖.", drawn_run.has_steps, drawn_run.step,
    ),
    "confusion": Drawing(
        "Confusion matrix",
        "A row for each true class, a column for each answer; the darker, the larger the share of the true class. Off "
        "the diagonal are the mistakes.",
        drawn_answers.has_confusion, drawn_answers.confusion,
    ),
    "roc": Drawing(
        "ROC curves",
        "Each output against all rows of which it is not true, at every threshold. The area is the probability that a "
        "row of which it is true scores higher than one of which it is not; a coin has ½.",
        drawn_answers.has_curves, drawn_answers.roc,
    ),
    "precision-recall": Drawing(
        "Precision and recall",
        "The same thresholds, as it matters where few rows are positive. AP is the average precision.",
        drawn_answers.has_curves, drawn_answers.precision_recall,
    ),
    "calibration": Drawing(
        "Calibration",
        "Above the line it is right more often than it says, below it is too sure. Under it, how many answers were "
        "that sure.",
        drawn_answers.has_calibration, drawn_answers.calibration,
    ),
    "residuals": Drawing(
        "Residuals", "How often the prediction misses the truth by how much; the dashed line is the mean.",
        drawn_answers.has_numbers, drawn_answers.residuals,
    ),
    "predicted": Drawing(
        "Prediction against truth", "Each point is a row; on the line the prediction is right.",
        drawn_answers.has_numbers, drawn_answers.predicted,
    ),
    "worst": Drawing(
        "The worst rows", "Truth → answer, with the answer's probability: the rows of the largest cost.",
        drawn_images.has_worst, drawn_images.worst,
    ),
    "hidden": Drawing(
        "Hidden units",
        "What each unit of layer 2 looks for: its row of Θ^(1) without the bias as a picture, scaled by its largest "
        "|Θ|, as in the course's exercise 4. Light adds to z, dark takes from it.",
        drawn_images.has_hidden, drawn_images.hidden,
    ),
    "throughput": Drawing(
        "Speed", "Rows per second of the passes, and what the matrix products alone would reach.",
        drawn_run.has_speed, drawn_run.speed,
    ),
}  # fmt: skip


def names() -> tuple[str, ...]:
    """The pictures that a report may have."""
    return tuple(_ALL)


def drawing(name: str) -> Drawing:
    """The picture of that name."""
    return _ALL[name]


def of(material: Material) -> tuple[str, ...]:
    """Those that there are here."""
    return tuple(name for name, one in _ALL.items() if one.applies(material))


def draw(material: Material, name: str) -> Any:
    """The figure of that name."""
    with styled():
        return _ALL[name].draw(material)
