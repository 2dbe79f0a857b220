"""A run to be looked at: one page with everything in it, or its single pictures.

- `runs`: what a run has left, and how far it is.
- `chosen`: the rows it is judged on.
- `measures`: one pass over them, and the worst rows; `answers` of a classifier, `numbers` of a regression.
- `curves`, `calibration`: ROC, precision and recall, and whether probabilities are true.
- `throughput`: its speed, and what this machine's matrix products alone would take.
- `words`: the verdict.
- `material`: all of that together; `gathered` makes it, `plain` is it as plain values.
- `pictures`: the pictures by name; `drawn_run`, `drawn_answers`, `drawn_images` draw them, `style` says how they look.
- `page`: the page; `sections` are its parts, `html` the few elements they are made of, `file` says where it goes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ..data.several import Paths
from ..errors import UsageError
from . import page, pictures, plain, style
from .gathered import gather
from .material import Material

__all__ = ["Report", "report"]


@dataclass(frozen=True)
class Report:
    """What there is to say and to see of a run.

    Attributes:
        material: all that was read and measured.
    """

    material: Material

    @cached_property
    def numbers(self) -> dict[str, Any]:
        """All of it as plain values, as `gpubp report --json` prints them."""
        return plain.numbers(self.material)

    @property
    def pictures(self) -> tuple[str, ...]:
        """The names of the pictures that there are."""
        return pictures.of(self.material)

    def picture(self, name: str) -> Any:
        """A picture as a Matplotlib figure.

        Raises:
            UsageError: there is none of that name; Matplotlib is missing.
        """
        style.require()
        if name not in self.pictures:
            why = self.material.why_not if name in pictures.names() else ""
            raise UsageError(
                f"no picture '{name}' of this run{f': {why}' if why else ''}",
                wanted=f"one of {', '.join(self.pictures)}",
            )
        return pictures.draw(self.material, name)

    def save_picture(self, name: str, path: str | Path) -> None:
        """Write a picture: .png, .svg or .pdf.

        Raises:
            UsageError, DataError: as `picture`; another kind of file; it cannot be written.
        """
        style.check(Path(path))
        style.write(self.picture(name), Path(path))

    def html(self) -> str:
        """The page, with everything it needs in it.

        Raises:
            UsageError: Matplotlib is missing.
        """
        style.require()
        return page.html(self.material, self.numbers)


def report(
    run: str | Path,
    data: Paths | None = None,
    *,
    x: str | None = None,
    y: str | None = None,
    weights: str | None = None,
    split: str | None = None,
    allow: str | None = None,
    backend: str = "auto",
    device: int = 0,
    precision: str = "fp32",
    image: str | None = None,
    limit: bool = True,
    program: str = "gpubp",
) -> Report:
    """Read a run, judge its model on labelled rows in one forward pass, and say how it went.

    Args:
        run: a run folder, finished or not, or a checkpoint file.
        data: files with labelled rows; None for those of the training, see `chosen`.
        x, y, weights, split, allow: as `gpubp evaluate` takes them.
        backend, device, precision: of the forward pass.
        image: how a row is a picture, see `gpubp.pictures.parse`; None to guess.
        limit: whether the matrix products alone are timed, for less than a second.
        program: how commands in the text begin.

    Raises:
        CheckpointError: no run there.
        DataError: named data that cannot be used. Where those of the training are gone, the report says so.
        UsageError: a name, an image or a precision that cannot be meant.

    Examples:
        >>> import numpy as np, gpubp
        >>> from gpubp.report import report
        >>> X, y = np.arange(6.0).reshape(6, 1), [0, 0, 0, 1, 1, 1]
        >>> model = gpubp.train(X, y, hidden=(2,), out="run")
        >>> found = report("run")
        >>> print(found.numbers["verdict"]["sentences"][0])
        A 1-2-1 network with sigmoid units and logistic cost at λ = 1, trained by klbfgs on arrays.
        >>> found.pictures  # each can be drawn: found.save_picture("cost", "cost.svg")
        ('cost', 'cost-seconds', 'gradient', 'step')
    """
    names = {"x": x, "y": y, "weights": weights, "split": split, "allow": allow}
    return Report(
        gather(run, data, names, backend=backend, device=device, precision=precision, image=image, limit=limit,
               program=program)
    )  # fmt: skip
