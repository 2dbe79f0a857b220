"""The pass that is timed, on rows drawn from a seed, and whether its answer is right."""

from __future__ import annotations

import math

import numpy as np

from ..backend import Backend, choose
from ..data.rows import Rows
from ..data.scaling import Scaling
from ..data.source import ArrayRows
from ..errors import BackendError
from ..network import Network
from ..objective import Objective
from ..optimizers.vectors import vectors_of

# relative, of J and of ∇J
TOLERANCE = {"bf16": 1e-1, "tf32": 2e-2, "tf32x3": 1e-4, "fp32": 1e-4, "fp64": 1e-10}
_REPORT = "no time is given for a wrong answer; please report it, and take --kernel numpy, the plain way, meanwhile"


class Pass:
    """One cost and gradient at the initial Θ, as a call; a context that ends its threads.

    Args:
        engine: where it is computed.

    Attributes:
        threads: how many it uses.
    """

    def __init__(self, network: Network, rows: Rows, precision: str, engine: Backend) -> None:
        self.network, self.rows, self.precision, self.engine = network, rows, precision, engine
        self._J, self._first = math.nan, np.zeros(0)  # of the first pass
        self._objective = Objective(network, rows, 1.0, backend=engine, precision=precision)
        self._vectors = vectors_of(self._objective)  # where an optimizer would have them
        with self._objective.guard():
            self._Theta, self._gradient = self._vectors.zeros(network.P), self._vectors.zeros(network.P)
            self._vectors.put(network.initial_Theta(), self._Theta)
        self.threads = min(engine.owners_for(rows.m, network.sizes), self._objective.leaves)

    def __call__(self) -> None:
        """One pass.

        Raises:
            BackendError: J is not the first pass's, to the bit.
        """
        with self._objective.guard():
            J = float(self._objective.value_and_gradient(self._Theta, self._gradient))
        if not len(self._first):
            self._J, self._first = J, self._latest().copy()
        elif J != self._J:
            raise BackendError(f"J is {self._J!r} in one pass and {J!r} in another", wanted="the same bits", do=_REPORT)

    def __enter__(self) -> Pass:
        return self

    def __exit__(self, *_: object) -> None:
        self._objective.close()

    def refuse_others(self, *passes: Pass) -> None:
        """Raise BackendError unless the latest answers of these are the bits of this one's first pass."""
        for other in passes:
            if other._J != self._J or not np.array_equal(other._latest(), self._first):
                raise BackendError("J or ∇J differ from pass to pass", wanted="the same bits", do=_REPORT)

    def _latest(self) -> np.ndarray:
        """∇J of the latest pass."""
        with self._objective.guard():
            return self._vectors.to_host(self._gradient)

    def compare(self) -> dict[str, float]:
        """How far J and ∇J are from plain NumPy's in fp64, relative.

        Raises:
            BackendError: too far, or no numbers.
        """
        with Pass(self.network, self.rows, "fp64", choose("cpu", kernel="numpy")[0]) as plain:
            plain()
        size = float(np.linalg.norm(plain._first))
        apart = float(np.linalg.norm(self._first - plain._first))
        errors = {"J_error": abs(self._J / plain._J - 1), "gradient_error": apart / size if size else apart}
        for what, error in zip(("J", "∇J"), errors.values(), strict=True):
            if not error <= TOLERANCE[self.precision]:
                found = f"{what} of {self.rows.m:,} rows is {error:.1e} from plain NumPy's in fp64"
                raise BackendError(found, wanted=f"{TOLERANCE[self.precision]:g} or less", do=_REPORT)
        return errors


def random_rows(network: Network, m: int) -> Rows:
    """The first m rows of one endless table: normal features in float32, labels or targets that the cost takes."""
    X = np.random.default_rng(0).standard_normal((m, network.sizes[0]), np.float32)
    rng = np.random.default_rng(1)
    if network.J.takes == "numbers":
        labels: np.ndarray = rng.standard_normal((m, network.K), np.float32)
    else:
        labels = rng.integers(0, max(2, network.K), m, np.uint32)
    return Rows(ArrayRows(X), X, Scaling("none", None, None), labels)


def first_rows(rows: Rows, m: int) -> Rows:
    """The first m of `random_rows`."""
    assert rows.labels is not None
    return Rows(ArrayRows(rows.kept[:m]), rows.kept[:m], rows.scaling, rows.labels[:m])


def row_bytes(network: Network) -> int:
    """The memory that one of `random_rows` takes."""
    return 4 * network.sizes[0] + 4 * network.K
