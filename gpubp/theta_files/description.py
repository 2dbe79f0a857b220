"""What an export says of a model besides Θ, as JSON text under the name `KEY`: the network, the scaling, what a missing
value is replaced by, the columns that were selected, the classes. From it and Θ the model is made again.

The three vectors mean, scale and fill (s_1,) stand in the text as lists, or beside Θ as arrays where a format has room
for arrays that are no layers.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from .. import __version__
from ..data.scaling import KINDS, Scaling
from ..data.targets import TargetSpec
from ..errors import DataError, GpubpError
from ..inference import Model
from ..job import Job
from ..network import Network

KEY = "gpubp"
TORCH_KEY = "gpubp.description"  # beside the modules in what a state_dict says of itself
VECTORS = ("mean", "scale", "fill")
_FORMAT = 1


def vectors(model: Model) -> dict[str, np.ndarray]:
    """Those of mean, scale and fill that the model has, (s_1,) float64."""
    found = {"mean": model.scaling.mean, "scale": model.scaling.scale, "fill": model.fill}
    return {name: value for name, value in found.items() if value is not None}


def describe(model: Model, *, with_vectors: bool) -> str:
    """The text; with the vectors in it or without. Equal models give equal text, of ASCII alone."""
    network, targets = model.network, model.targets
    about = {
        "format": _FORMAT,
        "version": __version__,
        "sizes": list(network.sizes),
        "activation": network.activation,
        "cost": network.cost,
        "kind": targets.kind,
        "classes": None if targets.classes is None else list(targets.classes),
        "scaling": model.scaling.kind,
        "missing": model.job.get("missing", "error"),
        "select": list(model.selection.texts()),
        "lambda": model.lambda_,
    }
    if with_vectors:
        about |= {name: value.tolist() for name, value in vectors(model).items()}
    return json.dumps(about, sort_keys=True)


def described(
    where: str, text: str, Theta: list[np.ndarray], vector: Callable[[str], np.ndarray] | None = None
) -> Model:
    """The model of Θ and its description.

    Args:
        where: the file, for messages.
        vector: reads mean, scale or fill where they stand beside Θ; else they are in the text.

    Raises:
        DataError: the text is none that gpubp wrote, is of a later format, or does not go with Θ.
    """
    wanted = "what gpubp export wrote"
    try:
        about = json.loads(text)
        if not isinstance(about, dict):
            raise ValueError(f"a {type(about).__name__}")
        if about["format"] != _FORMAT:
            found = f"{where}: a description of format {about['format']!r:.20}"
            raise DataError(found, wanted=f"format {_FORMAT}", do="read it with a newer gpubp")
        return _made(about, Theta, vector)
    except GpubpError as error:
        raise error if error.found.startswith(where) else DataError(f"{where}: {error.found}", wanted=wanted) from None
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        why = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{where}: its description of the model is damaged: {why:.160}", wanted=wanted) from None


def _made(about: Mapping[str, Any], Theta: list[np.ndarray], vector: Callable[[str], np.ndarray] | None) -> Model:
    network = Network(tuple(about["sizes"]), about["activation"], about["cost"])
    kind = about["scaling"]
    if kind not in KINDS[1:]:
        raise ValueError(f"scaling {kind!r:.20}")
    there = {"none": (), "standard": ("mean", "scale"), "255": ("scale",)}[kind]
    filled = about["missing"] != "error"
    found: dict[str, np.ndarray | None] = dict.fromkeys(VECTORS)
    for name in (*there, *(("fill",) if filled and (vector or "fill" in about) else ())):
        try:
            value = np.array(about[name], np.float64) if vector is None else vector(name)
        except LookupError:
            if name == "fill":  # integers have no gaps, whatever was asked for
                continue
            raise
        if value.shape != network.sizes[:1] or not np.isfinite(value).all():
            raise ValueError(f"{name} has not one finite number for each feature")
        found[name] = value
    if found["scale"] is not None and not (found["scale"] > 0).all():
        raise ValueError("a scale that is not positive")
    classes = about["classes"]
    if classes is not None and not _are_labels(classes):
        raise ValueError("classes that are no labels")
    job = {"missing": about["missing"], "select": tuple(about["select"])}
    Job.from_dict(job)  # a rule or a selection that there is not is refused here
    targets = TargetSpec.from_dict({"kind": about["kind"], "classes": classes, "outputs": network.K})
    scaling = Scaling(kind, found["mean"], found["scale"])
    return Model(network, network.pack(Theta), scaling, targets, float(about["lambda"]), job=job, fill=found["fill"])


def _are_labels(classes: Any) -> bool:
    """Labels of one type, ascending, as `gpubp.data.targets` has them."""
    if not isinstance(classes, list) or not classes:
        return False
    kind = type(classes[0])
    same = kind in (bool, int, str) and all(type(one) is kind for one in classes)
    return same and classes == sorted(set(classes)) and (kind is not int or abs(classes[-1]) < 1 << 64)
