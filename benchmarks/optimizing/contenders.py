"""Who takes part: gpubp's optimizers, and the L-BFGS of SciPy, PyTorch and JAX.

All of them get the same function, gpubp's objective: what is compared is the optimizers alone, and a peer's own slower
evaluation is not held against it. SciPy's is also scikit-learn's (`MLPClassifier(solver="lbfgs")` calls it with its
defaults, 10 corrections).
"""

from __future__ import annotations

import importlib
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from problems import Absent

from .counting import Counted, Enough

Run = Callable[[Counted, np.ndarray], str]  # minimises from Θ, which it may not change; why it ended, in words
UNLIMITED = 10**9


@dataclass(frozen=True)
class Contender:
    """One line of the tables.

    Attributes:
        name: as --optimizers takes it.
        run: lets it go.
        ours: whether it is gpubp's, which are charged for more than evaluations and ask themselves whether to go on.
        alone: it runs in a process of its own, see `match`.
        notes: what else belongs into the record.
    """

    name: str
    run: Run
    ours: bool = False
    alone: bool = False
    notes: str = ""


def scipy(history: int = 10, name: str = "scipy", notes: str = "") -> Contender:
    """`scipy.optimize.minimize(method="L-BFGS-B")` with so many corrections and no tolerance of its own.

    Raises:
        Absent: it is not installed.
    """
    minimize: Any = imported("scipy.optimize").minimize
    options = {"maxcor": history, "maxiter": UNLIMITED, "maxfun": UNLIMITED, "ftol": 0.0, "gtol": 0.0}

    def run(f: Counted, Theta: np.ndarray) -> str:
        return str(minimize(f, Theta, jac=True, method="L-BFGS-B", options=options).message)

    return Contender(name, run, notes=notes or f"maxcor {history}")


def torch(history: int = 10) -> Contender:
    """`torch.optim.LBFGS` with its strong-Wolfe line search.

    Raises:
        Absent: it is not installed.
    """
    library: Any = imported("torch")

    def run(f: Counted, Theta: np.ndarray) -> str:
        library.set_num_threads(1)

        def evaluate(parameters: Any) -> Any:
            J, gradient = f(parameters.detach().numpy())
            parameters.grad = library.from_numpy(gradient)
            return library.tensor(J, dtype=library.float64)

        return torch_minimises(library, evaluate, library.tensor(Theta, dtype=library.float64), history)

    return Contender(f"torch{history}", run, notes=f"history_size {history}, strong_wolfe")


def torch_minimises(library: Any, evaluate: Callable[[Any], Any], Theta: Any, history: int) -> str:
    """Let PyTorch's L-BFGS go, without tolerances; `evaluate` gives J and sets the parameters' `grad`."""
    parameters = Theta.requires_grad_()
    optimizer = library.optim.LBFGS(
        [parameters], lr=1.0, max_iter=UNLIMITED, max_eval=UNLIMITED, history_size=history,
        tolerance_grad=0.0, tolerance_change=0.0, line_search_fn="strong_wolfe",
    )  # fmt: skip
    optimizer.step(lambda: evaluate(parameters))
    return "ended"


def optax(history: int = 10) -> Contender:
    """`optax.lbfgs` with its zoom line search, its step compiled by JAX, which calls the objective back.

    Raises:
        Absent: JAX or Optax is not installed.
    """
    jax, library = imported("jax"), imported("optax")
    jnp: Any = imported("jax.numpy")
    jax.config.update("jax_enable_x64", True)
    solver = library.lbfgs(memory_size=history)
    called: list[Any] = [None]  # the function of the run, so that one compiled step serves all runs

    def evaluate(Theta: Any) -> tuple[Any, Any]:
        shapes = jax.ShapeDtypeStruct((), jnp.float64), jax.ShapeDtypeStruct(Theta.shape, jnp.float64)
        return jax.pure_callback(_guarded(called), shapes, Theta)

    @jax.custom_vjp
    def J(Theta: Any) -> Any:
        return evaluate(Theta)[0]

    J.defvjp(evaluate, lambda gradient, factor: (factor * gradient,))
    value_and_grad = library.value_and_grad_from_state(J)

    @jax.jit
    def step(Theta: Any, state: Any) -> tuple[Any, Any]:
        value, gradient = value_and_grad(Theta, state=state)
        updates, state = solver.update(gradient, state, Theta, value=value, grad=gradient, value_fn=J)
        return library.apply_updates(Theta, updates), state

    def run(f: Counted, Theta: np.ndarray) -> str:
        called[0] = f
        now = jnp.asarray(Theta, jnp.float64)
        state = solver.init(now)
        while True:
            before = f.evaluations
            now, state = jax.block_until_ready(step(now, state))
            if f.enough:
                raise Enough
            if f.evaluations == before or not math.isfinite(float(library.tree.get(state, "value"))):
                return "no progress"

    return Contender("optax" if history == 10 else f"optax{history}", run, notes=f"memory_size {history}, zoom")


def _guarded(called: list[Any]) -> Callable[[Any], tuple[Any, Any]]:
    """The call back out of a compiled step, out of which nothing may be raised: when it is enough it answers with
    numbers that end the line search."""

    def call(Theta: Any) -> tuple[Any, Any]:
        Theta = np.asarray(Theta)
        if called[0].enough:
            return np.float64(-math.inf), np.zeros_like(Theta)
        try:
            J, gradient = called[0](Theta)
        except Enough:
            return np.float64(-math.inf), np.zeros_like(Theta)
        return np.float64(J), gradient

    return call


def ours(text: str) -> Contender:
    """An optimizer of gpubp, by its name, perhaps with options: `lbfgs` or `lbfgs:history=10:c2=0.5`.

    Raises:
        UsageError: there is no such optimizer or option.
    """
    from gpubp import optimizers

    name, *settings = text.split(":")
    options = {key: _number(value) for key, _, value in (one.partition("=") for one in settings)}
    optimizer = optimizers.make(name, **{"tolerance": 0.0, **options})

    def run(f: Counted, Theta: np.ndarray) -> str:
        state = optimizer.init(f, Theta)
        f.settle(state.extra)
        ending = None
        while ending is None and not f.enough:
            ending = optimizer.step(f, state)
            f.settle(state.extra)
        if state.evaluations != f.evaluations:
            raise AssertionError(f"{text} speaks of {state.evaluations} evaluations and made {f.evaluations}")
        if ending is None:
            raise Enough
        return ending.reason

    return Contender(text, run, ours=True)


def nowhere(f: Counted, Theta: np.ndarray) -> str:
    """What one that runs in a process of its own does here."""
    raise AssertionError("it runs in a process of its own")


def memory_of(optimizer_name: str, f: Any, P: int) -> int:
    """Bytes of all arrays in the state of this optimizer of gpubp, begun with this function."""
    from gpubp import optimizers

    state = optimizers.make(optimizer_name).init(f, np.zeros(P))
    return _bytes([getattr(state, one.name) for one in fields(state)])


def equal_history(memory: int, P: int) -> int:
    """The corrections with which SciPy takes so many bytes: 2·maxcor + 5 vectors of float64, at least the default."""
    return max(10, round((memory / (8 * P) - 5) / 2))


def gone(f: Counted, contender: Contender, Theta: np.ndarray) -> str:
    """Let it go; why it ended."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return contender.run(f, Theta.copy())
        except Enough:
            return "goal" if f.J <= f.goal else "budget"


def _bytes(thing: Any) -> int:
    if isinstance(thing, list | tuple):
        return sum(map(_bytes, thing))
    return int(getattr(thing, "nbytes", 0))


def _number(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def imported(name: str) -> Any:
    """The module of that name.

    Raises:
        Absent: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise Absent(f"{name.split('.')[0]} is not installed") from error
