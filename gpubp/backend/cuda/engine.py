"""J(Θ) and ∇J(Θ) on the device: from the optimizer's float64 Θ there to J and ∇J there, without a wait.

What is queued is always the same, so from the second time on it is one CUDA graph. Where rows are sent in each pass, or
there is much to do, the two ends are launched by themselves and the pass between them is recorded once for all.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from . import edges
from .device import Device
from .fused_pass import FusedPass, fused_kernel, fused_leaves
from .layered import LayeredPass, layered_plan, padded, places
from .recorded import Recorded, Step

MOST_GRAPHS = 8  # of different places of Θ and ∇J: optimizers with a line search have two of each
SMALL = 500  # launches of a pass that may be in a graph for each place of Θ and ∇J
MOST_LAUNCHES = 100_000  # of a pass that is recorded at all: a graph keeps memory for each, about 1 kB by estimate


class Engine:
    """One evaluation after another.

    Args:
        network, feed: a `gpubp.network.Network` and the `gpubp.feed.Feed` of its rows.
        lambda_: λ.
        precision: of the pass, a `gpubp.precision.Precision`.
        answer: (2,) float64 on the device, where each evaluation leaves J and the cost of the validation rows.
        kernel: "fused", "layered", or "auto": fused where the network fits it.
        leaves, block_rows: override what follows from the rows and the network.
        own: given the number of leaves, first and stop of those to sum; by default all.

    Attributes:
        kernel: "fused" or "layered"; how: likewise, with all that bits depend on; leaves, block_rows: what was taken.
        node: shape and type of the arrays of the topmost nodes, see `nodes`.

    Raises:
        BackendError: "fused" for a network that does not fit it; the message says why.
    """

    def __init__(
        self, device: Device, network: Any, feed: Any, lambda_: float, precision: Any, answer: Any, *,
        kernel: str = "auto", leaves: int | None = None, block_rows: int | None = None,
        own: Callable[[int], tuple[int, int]] | None = None,
    ) -> None:  # fmt: skip
        self._device, self._network = device, network
        rows, P = feed.rows, network.P
        dtype, products = precision.dtype, precision.products
        self._weight_sum = rows.weight_sum / rows.unit
        self._held_sum = rows.validation_sum / rows.unit
        self._pull = lambda_ / rows.weight_sum
        self._units = network.sizes[1]
        self._shape = P, network.sizes[0], self._units, int(network.views(np.arange(P))[1][1][0, 0])
        mean, scale = (rows.scaling.mean, rows.scaling.scale) if feed.folds else (None, None)
        self._mean, self._scale = (None if v is None else device.upload(np.ascontiguousarray(v)) for v in (mean, scale))
        decays = np.zeros(P, np.uint8)
        for W in network.views(decays).W[1:]:
            W[...] = 1
        decays = device.upload(decays)

        fused = fused_kernel(device, network, feed, products, kernel)
        bf16 = products == "bf16" and fused is None
        layout = network if fused is not None else padded(network, feed, bf16)
        where = None if fused is not None else device.upload(places(network, layout))
        self._moments = decays, where, self._mean, self._scale
        self._flat = device.empty((layout.P,), dtype)
        self._narrow = device.empty((layout.P,), np.dtype(np.uint16)) if bf16 else None
        for flat in (self._flat, self._narrow):
            if flat is not None:
                device.zero(flat)  # what no element of Θ is written to stays zero
        suggested = layered_plan(rows.m, network.sizes) if fused is None else (fused_leaves(rows.m), fused.tile_rows)
        self.leaves = leaves or suggested[0]
        self.block_rows = block_rows if block_rows and fused is None else suggested[1]
        part = (0, self.leaves) if own is None else own(self.leaves)
        if fused is not None:
            self.kernel = "fused"
            cut = fused.shape  # sums in a tile follow it, and it follows the shared memory that there is
            self.how = f"fused, tiles of {cut.tile} rows, {cut.bands} bands, {cut.warps} warps"
            self._pass: Any = FusedPass(device, network, feed, self._flat, fused, self.leaves, part)
        else:
            self.kernel = self.how = "layered"
            self._pass = LayeredPass(
                device, network, layout, feed, self._flat, self._narrow, products, self.leaves, self.block_rows, part
            )
        real = np.dtype(np.float64)
        self.node: list[tuple[tuple[int, ...], np.dtype]] = [((layout.P,), dtype), ((2,), real)]
        self._squares, self._answer = device.empty((edges.blocks(P),), real), answer
        self._enter, self._leave = edges.enter(dtype, narrow=bf16), edges.leave(dtype)
        self._small = self._pass.conveyor is None and self._pass.launches <= SMALL
        self._recorded: dict[Any, Recorded] = {}

    def queue(self, Theta: Any, gradient: Any) -> None:
        """Queue J(Θ) and the validation cost → the answer, and ∇J(Θ) → `gradient` unless that is None.

        Θ and the gradient are (P,) float64 on the device.
        """
        with_gradient = gradient is not None
        if not self._small:
            self._end(Theta, gradient, *self.nodes(Theta, with_gradient)[1])
            return
        key = self._device.address(Theta), self._device.address(gradient) if with_gradient else None
        if key not in self._recorded:
            if len(self._recorded) >= MOST_GRAPHS:
                self._forget()
            ends = Step(partial(self._begin, Theta)), Step(partial(self._end, Theta, gradient, *self._pass.nodes[1]))
            steps = [ends[0], *self._pass.steps(with_gradient), ends[1]]
            self._recorded[key] = Recorded(self._device, steps)
        self._recorded[key]()

    def nodes(self, Theta: Any, with_gradient: bool) -> dict[int, tuple[Any, Any]]:
        """Queue the sums over its own leaves at Θ: the topmost nodes' Δ and costs by heap index, as `node` says."""
        self._begin(Theta)
        if with_gradient not in self._recorded:
            steps, capture = self._pass.steps(with_gradient), self._pass.launches <= MOST_LAUNCHES
            self._recorded[with_gradient] = Recorded(self._device, steps, self._pass.conveyor, capture=capture)
        self._recorded[with_gradient]()
        return self._pass.nodes

    def finish(self, Theta: Any, gradient: Any, flat: Any, cost: Any) -> None:
        """Queue what `queue` does after the sums, from those of the root; `flat` may be None without a gradient."""
        if not self._pass.nodes:  # nothing has begun here
            self._begin(Theta)
        self._end(Theta, gradient, flat, cost)

    def close(self) -> None:
        """End its threads, once all work is done."""
        try:
            self._forget()
        finally:
            self._pass.close()

    def _forget(self) -> None:
        """Drop the graphs, none of which may be running."""
        self._device.host_waits_for(self._device.mark())
        self._recorded.clear()

    def _begin(self, Theta: Any) -> None:
        P = self._network.P
        blocks = edges.enter_blocks(P, self._units, self._mean is not None)
        arguments = (Theta, *self._moments, self._flat, self._narrow, self._squares, *self._shape)
        self._device.launch(self._enter, blocks, arguments)

    def _end(self, Theta: Any, gradient: Any, flat: Any, cost: Any) -> None:
        sums = flat, cost, Theta, *self._moments, self._squares, gradient, self._answer
        numbers = *self._shape, self._weight_sum, self._held_sum, self._pull
        blocks = 1 if gradient is None else edges.blocks(self._network.P)
        self._device.launch(self._leave, blocks, (*sums, *numbers))
