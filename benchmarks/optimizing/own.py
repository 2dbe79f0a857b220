"""The peers with the evaluation that they come with: PyTorch's autograd, JAX's, scikit-learn's backpropagation.

So a person who uses them trains; where all contenders get gpubp's objective, the peers' wall time is better than that.
Costs and the initial Θ are the same, which the first evaluation is checked for. Each of them runs in a process of its
own, with the threads that gpubp gets.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import numpy as np
from problems import Absent

from .contenders import UNLIMITED, Contender, imported, torch_minimises
from .counting import Counted, Enough
from .tasks import Ready

ALIKE = 1e-4  # relative difference of J at the initial Θ beyond which it is another problem
_TYPES = {"fp64": "float64", "fp32": "float32"}


def torch(ready: Ready, threads: int, history: int = 10) -> Contender:
    """`torch.optim.LBFGS` on a loss that autograd differentiates.

    Raises:
        Absent: it is not installed.
    """
    library: Any = imported("torch")
    F, dtype = library.nn.functional, getattr(library, _TYPES[ready.objective.precision])
    g = {"sigmoid": library.sigmoid, "tanh": library.tanh, "relu": library.relu}[ready.task.activation]
    X, Y = library.from_numpy(ready.X), library.from_numpy(_targets(ready, codes=True)).to(_torch_type(ready, dtype))
    m, K = len(ready.X), ready.network.K

    def loss(Theta: Any) -> Any:
        W, b = ready.network.views(Theta)
        a, last = X, ready.network.L - 1
        for l in range(1, last):
            a = g(library.addmm(b[l], a, W[l].T))
        z = library.addmm(b[last], a, W[last].T)
        if ready.task.cost == "softmax":
            cost = F.cross_entropy(z, Y)
        elif ready.task.cost == "squares":
            cost = ((z - Y) ** 2).sum() / (2 * m)
        else:
            cost = F.binary_cross_entropy_with_logits(z, Y) * K
        return cost + ready.task.lambda_ / (2 * m) * sum((w * w).sum() for w in W[1:])

    def run(f: Counted, Theta: np.ndarray) -> str:
        library.set_num_threads(threads)

        def evaluate(parameters: Any) -> Any:
            J = loss(parameters)
            (parameters.grad,) = library.autograd.grad(J, parameters)
            f.note(J.item(), parameters.detach().numpy())
            return J.detach()

        return torch_minimises(library, evaluate, library.tensor(Theta, dtype=dtype), history)

    return Contender(f"torch{history}-own", run, notes=f"history_size {history}, strong_wolfe, autograd")


def optax(ready: Ready, threads: int, history: int = 10) -> Contender:
    """`optax.lbfgs` on a loss that JAX differentiates and compiles; JAX takes all cores there are.

    Its line search does not tell what it evaluates: a step is noted with the evaluations of its search once it is done.

    Raises:
        Absent: JAX or Optax is not installed.
    """
    jax, library = imported("jax"), imported("optax")
    jnp: Any = imported("jax.numpy")
    jax.config.update("jax_enable_x64", True)
    g = {"sigmoid": jax.nn.sigmoid, "tanh": jnp.tanh, "relu": jax.nn.relu}[ready.task.activation]
    dtype = getattr(jnp, _TYPES[ready.objective.precision])
    X, Y = jnp.asarray(ready.X), jnp.asarray(_targets(ready), dtype)
    m = len(ready.X)

    def J(Theta: Any) -> Any:
        W, b = ready.network.views(Theta)
        a, last = X, ready.network.L - 1
        for l in range(1, last):
            a = g(a @ W[l].T + b[l])
        z = a @ W[last].T + b[last]
        if ready.task.cost == "softmax":
            cost = -(Y * jax.nn.log_softmax(z)).sum()
        elif ready.task.cost == "squares":
            cost = ((z - Y) ** 2).sum() / 2
        else:
            cost = (jnp.logaddexp(0, z) - Y * z).sum()
        return cost / m + ready.task.lambda_ / (2 * m) * sum((w * w).sum() for w in W[1:])

    solver = library.lbfgs(memory_size=history)
    value_and_grad = library.value_and_grad_from_state(J)

    @jax.jit
    def step(Theta: Any, state: Any) -> tuple[Any, Any, Any]:
        value, gradient = value_and_grad(Theta, state=state)
        updates, state = solver.update(gradient, state, Theta, value=value, grad=gradient, value_fn=J)
        return library.apply_updates(Theta, updates), state, value

    def run(f: Counted, Theta: np.ndarray) -> str:
        now = jnp.asarray(Theta, dtype)
        state, first = solver.init(now), True
        while True:
            before = now
            now, state, J_before = jax.block_until_ready(step(now, state))
            if first:
                f.note(float(J_before), np.asarray(before))
            first = False
            tried = int(library.tree.get(state, "num_linesearch_steps"))
            for _ in range(tried - 1):
                f.note(np.inf, Theta)
            f.note(float(library.tree.get(state, "value")), np.asarray(now))
            if not tried:
                return "no progress"

    return Contender("optax-own", run, notes=f"memory_size {history}, zoom, jax.grad")


def sklearn(ready: Ready, threads: int) -> Contender:
    """`MLPClassifier` or `MLPRegressor` with `solver="lbfgs"`, its BLAS with all threads.

    Raises:
        Absent: it is not installed.
    """
    library: Any = imported("sklearn.neural_network")
    squares = ready.task.cost == "squares"
    parent: Any = library.MLPRegressor if squares else library.MLPClassifier
    hidden, dtype = ready.network.sizes[1:-1], _TYPES[ready.objective.precision]
    activation = {"sigmoid": "logistic"}.get(ready.task.activation, ready.task.activation)
    # K outputs one against all are labels to scikit-learn, of which each row has one
    y = ready.y.ravel() if ready.network.K == 1 else _targets(ready) if ready.task.cost == "logistic" else ready.y

    def run(f: Counted, Theta: np.ndarray) -> str:
        layers = iter(ready.network.unpack(Theta))

        class Watched(parent):
            def _init_coef(self, fan_in: int, fan_out: int, dtype: Any) -> tuple[Any, Any]:
                matrix = next(layers)  # asked for in order
                return matrix[:, 1:].T.astype(dtype), matrix[:, 0].astype(dtype)

            def _loss_grad_lbfgs(self, packed: Any, *arguments: Any) -> Any:
                found = super()._loss_grad_lbfgs(packed, *arguments)
                f.note(float(found[0]), lambda: _packed(ready, self))
                return found

        model = Watched(
            hidden_layer_sizes=hidden, solver="lbfgs", activation=activation,
            alpha=ready.task.lambda_, max_iter=UNLIMITED, max_fun=UNLIMITED, tol=0.0,
        )  # fmt: skip
        model.fit(ready.X, y.astype(dtype) if squares else y)
        return "ended"

    return Contender("sklearn-own", run, notes="MLP, solver lbfgs")


MAKERS = {"sklearn-own": sklearn, "torch10-own": torch, "optax-own": optax}


def make(name: str, ready: Ready, threads: int) -> Contender:
    """The one of that name, checked.

    Raises:
        Absent: it is not installed, or minimises something else.
    """
    return checked(MAKERS[name](ready, threads), ready)


def checked(contender: Contender, ready: Ready) -> Contender:
    """The same contender, its first cost compared with gpubp's.

    Raises:
        Absent: it minimises something else.
    """
    f = Counted(ready.objective, budget=1)
    with suppress(Enough):
        contender.run(f, ready.Theta.copy())
    J = ready.objective.value(ready.Theta)
    if not abs(f.J / J - 1) < ALIKE:
        raise Absent(f"it minimises another function: {f.J:.9g} at the initial Θ where gpubp has {J:.9g}")
    return contender


def _targets(ready: Ready, codes: bool = False) -> np.ndarray:
    """(m, K) numbers; with `codes` (m,) class numbers where the cost is softmax."""
    if ready.y.ndim == 2:
        return ready.y
    if codes and ready.task.cost == "softmax":
        return ready.y.astype(np.int64)
    return np.eye(ready.network.K)[ready.y]


def _torch_type(ready: Ready, dtype: Any) -> Any:
    return imported("torch").int64 if ready.task.cost == "softmax" else dtype


def _packed(ready: Ready, model: Any) -> np.ndarray:
    """Θ of a model of scikit-learn's."""
    parameters = zip(model.coefs_, model.intercepts_, strict=True)
    return ready.network.pack([np.column_stack([b, W.T]) for W, b in parameters])
