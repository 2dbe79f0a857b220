"""scikit-learn's parameters as a gpubp job, and a word about those that mean nothing where every step sees all rows."""

from __future__ import annotations

import math
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from inspect import signature
from numbers import Integral
from typing import Any

import numpy as np

from ..errors import BackendError, GpubpError, UsageError
from ..job import Job

ACTIVATIONS = {"logistic": "sigmoid"}  # scikit-learn's name, and gpubp's where it is another
_ADAM = {"learning_rate_init": "learning_rate", "beta_1": "beta1", "beta_2": "beta2", "epsilon": "epsilon"}
_EARLY = ("validation_fraction", "n_iter_no_change")
_BATCHES = ("batch_size", "shuffle", "learning_rate", "power_t", "momentum", "nesterovs_momentum")
_OPTION = re.compile(r"--([a-z]+(?:-[a-z]+)*)")  # in what gpubp says
_NAMES = {
    "hidden": "hidden_layer_sizes", "iterations": "max_iter", "evaluations": "max_fun", "lambda": "alpha",
    "optimizer": "solver", "patience": "n_iter_no_change", "seed": "random_state", "set": "solver_options",
    "tolerance": "tol", "validation": "validation_fraction", "weights": "sample_weight",
}  # fmt: skip
_FOREVER = 2**31  # iterations: what an n_iter_no_change of infinity is
EXACT_IN_FP32 = ("f2", "f4", "u1", "i1", "u2", "i2")  # the types of X whose every value float32 holds


@contextmanager
def as_value_errors() -> Iterator[None]:
    """Inside, what gpubp says of an argument or of data is a ValueError, as scikit-learn's callers expect, and options
    of the command line have the names of the parameters here.

    A device that is missing or fails stays a `BackendError`.
    """
    try:
        yield
    except BackendError:
        raise
    except GpubpError as error:
        said = _OPTION.sub(lambda found: _NAMES.get(found[1], found[1].replace("-", "_")), str(error))
        raise ValueError(said) from error


def job_of(estimator: Any, *, cost: str, dtype: np.dtype[Any], class_weight: Any = None) -> Job:
    """What the parameters ask for.

    Args:
        cost: gpubp's.
        dtype: of X as it is stored: "auto" takes fp32 where float32 holds every value of that type.
        class_weight: as a job has it, by code as text.

    Raises:
        UsageError: a parameter that cannot be meant.
    """
    p = estimator
    if p.solver == "sgd":
        raise UsageError(
            "solver 'sgd'", wanted="a solver for all rows at once", do="take 'lbfgs', or 'adam' on the exact gradient"
        )
    if not isinstance(p.activation, str) or not isinstance(p.solver, str):
        raise UsageError(f"activation = {p.activation!r:.40}, solver = {p.solver!r:.40}", wanted="names")
    _require(p, "max_iter", _whole, "a whole number, 1 or more")
    _require(p, "tol", _not_negative, "a number, 0 or more")
    _require(p, "alpha", _not_negative, "a number, 0 or more")
    options: dict[str, Any] = {"tolerance": float(p.tol)}
    if p.solver == "adam":
        options |= {name: getattr(p, theirs) for theirs, name in _ADAM.items()}
    stopping: dict[str, Any] = {}
    if p.early_stopping:
        _require(p, "n_iter_no_change", lambda v: _not_negative(v, math.inf) and v >= 1, "1 or more")
        _require(p, "validation_fraction", lambda v: _not_negative(v, 1) and 0 < v < 1, "a number between 0 and 1")
        stopping = {"patience": int(min(p.n_iter_no_change, _FOREVER)), "min_delta": float(p.tol)}
    exact = dtype.str[1:] in EXACT_IN_FP32
    return Job(
        hidden=hidden(p.hidden_layer_sizes),
        activation=ACTIVATIONS.get(p.activation, p.activation),
        cost=cost,
        lambda_=float(p.alpha),
        optimizer=p.solver,
        options={**options, **(p.solver_options or {})},
        iterations=int(p.max_iter),
        evaluations=int(p.max_fun),
        precision=("fp32" if exact else "fp64") if p.precision == "auto" else p.precision,
        backend=p.backend,
        threads=_threads(p.threads),
        memory=p.memory,
        scale=p.scale,
        seed=p._seed,
        class_weight=class_weight,
        **stopping,
    )


def hidden(sizes: Any) -> tuple[int, ...]:
    """`hidden_layer_sizes`, a number or several, as the units of each hidden layer.

    Raises:
        UsageError: no whole numbers above 0.
    """
    each = list(sizes) if hasattr(sizes, "__iter__") and not isinstance(sizes, str) else [sizes]
    if not all(_whole(one) for one in each):
        raise UsageError(f"hidden_layer_sizes must be > 0, got {sizes!r:.60}", wanted="whole numbers: (100,)")
    return tuple(int(one) for one in each)


def seed_of(random_state: Any) -> int:
    """A whole number is itself the seed, so that ``random_state=0`` is ``gpubp train --seed 0``; from anything else one
    is drawn."""
    if isinstance(random_state, Integral) and not isinstance(random_state, bool):
        return int(random_state)
    from sklearn.utils import check_random_state

    return int(check_random_state(random_state).randint(np.iinfo(np.int32).max))


def _threads(asked: int | None) -> int | None:
    """The most threads: those asked for, or one in a worker of joblib's, whose siblings have the other cores."""
    from joblib.parallel import get_active_backend

    if asked is not None:
        return asked
    return 1 if getattr(get_active_backend()[0], "nesting_level", None) else None


def warn_of_no_effect(estimator: Any) -> None:
    """One warning for all parameters that were given another value than their default and change nothing."""
    p = estimator
    idle = [*_BATCHES, *(() if p.solver == "adam" else _ADAM), *(() if p.early_stopping else _EARLY)]
    defaults = {name: one.default for name, one in signature(type(p).__init__).parameters.items()}
    given = [name for name in idle if (value := getattr(p, name)) is not defaults[name] and value != defaults[name]]
    if given:
        why = "every step sees all rows" if set(given) <= set(_BATCHES) else f"solver is {p.solver!r}"
        if set(given) & set(_EARLY):
            why = "early_stopping is off" if set(given) <= set(_EARLY) else f"{why}, and early_stopping is off"
        verb = "has" if len(given) == 1 else "have"
        warnings.warn(f"{', '.join(given)} {verb} no effect: {why}", UserWarning, stacklevel=3)


def _whole(value: Any) -> bool:
    """Whether it is a whole number above 0."""
    return isinstance(value, Integral) and int(value) >= 1


def _not_negative(value: Any, most: float = sys.float_info.max) -> bool:
    """Whether it is a number from 0 to `most`."""
    return isinstance(value, int | float | np.number) and not isinstance(value, bool) and 0 <= float(value) <= most


def _require(estimator: Any, name: str, good: Callable[[Any], bool], wanted: str) -> None:
    value = getattr(estimator, name)
    if not good(value):
        raise UsageError(f"{name} = {value!r:.40}", wanted=wanted)
