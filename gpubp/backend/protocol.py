"""What a backend must do. The plain composition of these is the definition of a pass."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, Literal, Protocol

import numpy as np

from ..formula import Formula


class LeafLoop(Protocol):
    """What `gpubp.backprop` does with a leaf's blocks, in one call that agrees with it to rounding."""

    def run(self, Theta: Any, start: int, stop: int, Delta: Any, cost: Any, with_gradient: bool) -> None:
        """Rows start … stop − 1: Δ is set to their sums; their costs (w·cost, validation weight·cost) added to `cost`.

        Args:
            Theta, Delta: flat, (P,), of the pass. Without a gradient Δ stays as it is.
            cost: (2,) float64.
        """
        ...


class WholeSum(Protocol):
    """The sum tree over rows that the device keeps: the same bits as by leaves, in one call."""

    def nodes(self, with_gradient: bool) -> dict[int, Any]:
        """One pass at what Θ holds now: the topmost nodes by heap index. Each has `flat`, Δ, and `cost`, to be read
        before the next pass."""
        ...

    def close(self) -> None:
        """End its threads."""
        ...


class Backend(Protocol):
    """Arrays of one device and the few operations a pass consists of.

    Arrays are the device's own, row-major (C order). Work may be queued: only `to_host` promises that it is done.
    Operations on the arrays of one owner (thread) are in order.
    """

    has_engine: bool  # whether whole evaluations run on the device: `engine` and `vectors`

    @property
    def kind(self) -> Literal["cpu", "gpu"]:
        """What kind of device: results on different kinds differ in their last bits."""
        ...

    @property
    def choice(self) -> dict[str, str]:
        """The words that have `choose` take this very one again on this kind of device."""
        ...

    @property
    def precisions(self) -> tuple[str, ...]:
        """The names of the precisions it has, see `gpubp.precision`."""
        ...

    @property
    def owners(self) -> int:
        """The most threads that may run a pass together."""
        ...

    def owners_for(self, m: int, sizes: tuple[int, ...]) -> int:
        """How many threads are worth having for m rows and these layers. It never changes a bit."""
        ...

    def empty(self, shape: tuple[int, ...], dtype: np.dtype) -> Any:
        """A new array, its start aligned to 64 bytes or more, its content undefined."""
        ...

    def constant(self, value: float, rows: int, dtype: np.dtype) -> Any:
        """A (rows, 1) column of one number, only to be read."""
        ...

    def zero(self, array: Any) -> None:
        """array ← 0."""
        ...

    def gemm(self, a: Any, b: Any, out: Any, *, transpose: str = "nn", beta: int = 0) -> None:
        """out ← op(a)·op(b) + beta·out for matrices of one dtype; `transpose` is two letters of n and t."""
        ...

    def apply(self, formula: Formula, *inputs: Any, out: Any) -> None:
        """out ← formula(inputs), elementwise or rowwise; `out` may be one of the inputs."""
        ...

    def total(self, formula: Formula, *inputs: Any, out: Any) -> None:
        """out[0] ← out[0] + Σ formula(inputs); `out` is a float64 array of one element."""
        ...

    def add(self, a: Any, b: Any) -> None:
        """a ← a + b: two siblings of the sum tree become their parent."""
        ...

    def upload(self, host: np.ndarray) -> Any:
        """The host's array on the device; on the CPU the array itself. The host's array may be reused on return."""
        ...

    def resident(self, host: np.ndarray, first: int = 0) -> Any:
        """As many first rows of the host's array as the device can keep for a whole run.

        Args:
            first: the number of the array's first row: it lies as it would among all of them, as far from a multiple of
                256 bytes, since a library may choose its kernel by that.
        """
        ...

    def free_memory(self) -> int | None:
        """Bytes that are free on a device; None where arrays are the host's."""
        ...

    def to_host(self, array: Any) -> np.ndarray:
        """A device array on the host, after all work queued before it; on the CPU the array itself."""
        ...

    def leaves_and_block(self, m: int, sizes: tuple[int, ...]) -> tuple[int, int]:
        """The number of leaves (a power of two) and the most rows of a block for m rows and these layers."""
        ...

    def leaf_loop(self, network: Any, feed: Any, dtype: np.dtype, rows: int, block_rows: int) -> LeafLoop | None:
        """A whole leaf in one call, for one owner; None where the plain composition is all there is.

        Args:
            network, feed: a `gpubp.network.Network` and the `gpubp.feed.Feed` of its rows.
            dtype: the precision of the pass.
            rows: the most rows of a block in this data set.
            block_rows: the most rows of a block.
        """
        ...

    def whole_sum(
        self, network: Any, feed: Any, Theta: np.ndarray, leaves: int, owners: int, block_rows: int,
        own: tuple[int, int] | None = None,
    ) -> WholeSum | None:  # fmt: skip
        """All leaves in one call; None where leaves are to be taken one by one.

        Args:
            network, feed: as for `leaf_loop`.
            Theta: the host's flat Θ in the type of the pass: where each pass finds it.
            own: first and stop of the leaves to sum; by default all.
        """
        ...

    def engine(self, network: Any, feed: Any, lambda_: float, precision: Any, answer: Any, **plan: Any) -> Any:
        """A whole evaluation on the device, see `backend.cuda.engine.Engine`; asked for only where `has_engine`.

        Args:
            network, feed: as for `leaf_loop`.
            precision: a `gpubp.precision.Precision`.
            answer: (2,) float64 on the device: where each evaluation leaves J and the cost of the validation rows.
            plan: `leaves` and `block_rows`, to override the engine's own; `own`, see there.
        """
        ...

    def trim(self) -> None:
        """Give memory that nobody uses back to the device, for those who do not take it from us."""
        ...

    def vectors(self) -> Any:
        """The space of the device's vectors for optimizers, see `optimizers.vectors`."""
        ...

    def copy(self, source: Any, out: Any) -> None:
        """out ← source, both of one type and shape."""
        ...

    def guard(self) -> AbstractContextManager[Any]:
        """Entered by each thread around its work: one BLAS thread, the right device, no warnings of overflow."""
        ...

    def conditions(self) -> dict[str, str]:
        """What the bits of a result depend on: device, libraries, kernels."""
        ...
