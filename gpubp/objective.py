"""J(Θ) and ∇J(Θ) over all rows, in one pass.

    J(Θ)  = 1/Σw · Σ_t w_t · cost(t) + λ/(2Σw) · Σ_l Σ (Θ^(l) without its bias)²
    ∇J(Θ) = 1/Σw · Δ + λ/Σw · (Θ without its biases)

with w_t = 1 and Σw = m where rows have no weights. The sum over rows is a fixed binary tree (`gpubp.tree`); inside a
leaf, blocks accumulate in order. Θ, J and ∇J are float64; the pass works in the precision that was asked for, from
one cast of Θ.

Scaling x̃ = (x − μ)/σ is folded into the first layer where that loses nothing: W̃ = W/σ and b̃ = b − W·(μ/σ) act on
rows as they are stored, and Δ_W = (Δ_W̃ − Δ_b̃ μᵀ)/σ takes the gradient back.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np

from .backend import Backend
from .communicator import Communicator, Solo
from .curvature import Curvature
from .data.rows import Rows
from .errors import DataError, UsageError
from .network import Network
from .on_device import OnDevice
from .on_host import OnHost
from .precision import on, precision


class Objective:
    """The cost of a network on rows, as a function of the flat Θ.

    Args:
        network: the layers, the activation, the cost.
        rows: the data.
        lambda_: λ, the weight of the regularisation; not negative.
        backend: where to compute.
        precision: of the pass, one of `backend.precisions`; see `gpubp.precision`.
        leaves, block_rows: override the backend's choice (for tests; the bits depend on them).
        communicator: the other processes, if any.
        seed: of the rows and signs from which `curvature` makes its factors.

    Raises:
        UsageError: a λ that is negative or not finite, a precision that is unknown or that the backend lacks.
        DataError: rows that do not fit the network's first layer, or no labels.
    """

    def __init__(
        self,
        network: Network,
        rows: Rows,
        lambda_: float = 0.0,
        *,
        backend: Backend,
        precision: str = "fp32",
        leaves: int | None = None,
        block_rows: int | None = None,
        communicator: Communicator | None = None,
        seed: int = 0,
    ) -> None:
        if not (np.isfinite(lambda_) and lambda_ >= 0):
            raise UsageError(f"lambda {lambda_}", wanted="a finite number, 0 or more")
        chosen = on(backend, precision)
        if leaves is not None and (leaves < 1 or leaves & (leaves - 1)):
            raise UsageError(f"{leaves} leaves", wanted="a power of two")
        if block_rows is not None and block_rows < 1:
            raise UsageError(f"blocks of {block_rows} rows", wanted="1 or more")
        if rows.features != network.sizes[0]:
            raise DataError(
                f"rows of {rows.features} features", wanted=f"{network.sizes[0]}, the network's first layer"
            )
        if rows.labels is None:
            raise DataError("rows without labels", wanted="y", do="name it with --y")
        self.network, self.rows, self.lambda_ = network, rows, float(lambda_)
        self.backend, self.precision = backend, precision
        self._validation: Any = None
        self._seed = seed
        self._curvature: Curvature | None = None
        self.communicator = communicator or Solo()
        plan = chosen, self.communicator, leaves, block_rows
        place: type[OnDevice] | type[OnHost] = OnDevice if backend.has_engine else OnHost
        self._pass: Any = place(network, rows, self.lambda_, backend, *plan)
        self.leaves, self.block_rows, self.threads = self._pass.leaves, self._pass.block_rows, self._pass.threads

    @property
    def vectors(self) -> Any:
        """Where Θ and ∇J are best kept: an `optimizers.vectors.Vectors`, or None for the host's."""
        return getattr(self._pass, "vectors", None)

    @property
    def curvature(self) -> Curvature:
        """How J curves, see `gpubp.curvature`; made when first asked for."""
        if self._curvature is None:
            leaves, block_rows = self.leaves, self.block_rows
            if self.kernel == "fused":  # its tiles are too short for one operation after the other
                leaves, block_rows = self.backend.leaves_and_block(self.rows.m, self.network.sizes)
            self._curvature = Curvature(
                self.network, self.rows, self.lambda_, self.backend, self._pass.feed, precision(self.precision).dtype,
                self.communicator, self.vectors, leaves, self.threads, block_rows, self._seed,
            )  # fmt: skip
        return self._curvature

    @property
    def kernel(self) -> str:
        """How passes are computed: "fused" or "layered" on a GPU, "compiled" or "numpy" on the CPU."""
        return getattr(self._pass, "kernel", "") or self.backend.choice["kernel"]

    @property
    def resident_rows(self) -> int:
        """How many rows, the first ones, stay where passes are computed."""
        return self._pass.resident_rows

    @property
    def validation_cost(self) -> float | None:
        """The cost without λ on the validation rows, of the last pass; None without such rows."""
        return None if self.validation_number is None else float(self.validation_number)

    @property
    def validation_number(self) -> Any:
        """Likewise, but where Θ lives on a device a number that waits for the pass when it is read."""
        return None if self.rows.validation is None else self._validation

    def guard(self) -> AbstractContextManager[Any]:
        """Entered around work on vectors that live on a device."""
        return self._pass.guard() if self.backend.has_engine else nullcontext()

    @property
    def can_make_room(self) -> bool:
        """Whether rows stay on a device that vectors may need the place of."""
        return self._pass.can_make_room

    def make_room(self, why: str) -> None:
        """Have the device keep half as many rows, for vectors that found it full."""
        self._pass.make_room(why)

    def value_and_gradient(self, Theta: Any, out: Any) -> Any:
        """J(Θ), and ∇J(Θ) written to `out`; both (P,) float64. One pass over the rows.

        Of NumPy's arrays J is a float. Of arrays that live in `vectors` the pass is only queued, and J a number that
        waits for it when it is read.

        Raises:
            DataError: rows that cannot be read, or a file that changed since it was opened while rows still come from
                it. Θ is as it was; what `out` holds is worth nothing.
        """
        return self._evaluate(Theta, out)

    def value(self, Theta: Any) -> Any:
        """J(Θ) alone: one forward pass."""
        return self._evaluate(Theta, None)

    def conditions(self) -> dict[str, Any]:
        """What the bits of J and ∇J depend on besides Θ and the rows."""
        return {
            "backend": self.backend.kind,
            **self.backend.conditions(),
            "precision": self.precision,
            **self._pass.conditions(),
            "leaves": self.leaves,
            "block_rows": self.block_rows,
        }

    def close(self) -> None:
        """End the worker threads and let go of the rows and buffers, so that others may take their place on a device.

        No pass can follow.

        Raises:
            BackendError: the device fails, and nothing has said so before.
        """
        if self._curvature is not None:
            self._curvature.close()
            self._curvature = None
        self._pass.close()

    def _evaluate(self, Theta: Any, gradient: Any) -> Any:
        J, self._validation = self._pass.evaluate(Theta, gradient)
        return J
