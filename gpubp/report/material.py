"""What a report is made from: everything that was read and measured, before it is drawn or said."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..pictures import Picture
from .chosen import Judged
from .measures import Quality
from .runs import Run
from .throughput import Throughput
from .words import Said, Trained


@dataclass(frozen=True)
class Material:
    """What a report is made from.

    Attributes:
        run: the run.
        described: what `gpubp info` says of it.
        trained: what is known of the rows it was trained on.
        training_cost: of the Θ that is kept, without the λ term; None where it is not known.
        judged, quality: the rows it was judged on, and what was found; None without such rows.
        why_not: why there are none.
        throughput: how fast it was; None where nobody asked.
        picture: how a row is a picture; None where it is none.
        said: the verdict.
        command: what repeats the run; "" where that cannot be said.
        precision: of the pass over the rows it was judged on.
    """

    run: Run
    described: dict[str, Any]
    trained: Trained
    training_cost: float | None
    judged: Judged | None
    quality: Quality | None
    why_not: str
    throughput: Throughput | None
    picture: Picture | None
    said: Said
    command: str
    precision: str

    @property
    def at(self) -> int | None:
        """The place in the history of the Θ that is kept; None where it is none of it."""
        reached = self.run.model.reached.get("iteration")
        return next((i for i, row in enumerate(self.run.history) if row["iteration"] == reached), None)

    @property
    def tolerance(self) -> float | None:
        """The max|∇J| at which the run is converged, where it looks at it."""
        value = self.run.optimizer.get("tolerance")
        return float(value) if isinstance(value, int | float) and value > 0 else None
