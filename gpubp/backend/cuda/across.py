"""The upper part of the sum tree where its nodes lie on devices of several processes: `communicator.Top` for them.

    ThroughHost   nodes are copied to the host, go on there as those of processes without a device, and the root comes
                  back: always possible, also where processes share a device
    ByNccl        nodes go from device to device, and each adds there what it got

Either way siblings are added one by one in the order of the tree: a library's own reduction would add in another.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ...communicator import Array, Communicator, Part, Top
from ...communicator.top import Plan
from .device import Device, add

Nodes = Callable[[], Mapping[int, Sequence[Array]]]


def top(device: Device, communicator: Communicator, leaves: int, node: Sequence[Part]) -> Top:
    """The upper part of a tree of so many leaves, whose nodes have these arrays on the device."""
    link = getattr(communicator, "link", None)
    if link is None:
        return ThroughHost(device, communicator, leaves, node)
    return ByNccl(device, communicator, link, Plan(communicator.rank, communicator.size, leaves, node))


class ThroughHost:
    """By way of the host's memory."""

    def __init__(self, device: Device, communicator: Communicator, leaves: int, node: Sequence[Part]) -> None:
        self._device, self._top = device, communicator.top(leaves, node)
        self.own = self._top.own
        self._root = [device.empty(*one) for one in node]

    def root(self, nodes: Nodes) -> Sequence[Array]:
        def on_host() -> dict[int, list[np.ndarray]]:
            with self._device.guard():  # an error of the device in our words, before the others hear of it
                return {index: [self._device.to_host(a) for a in arrays] for index, arrays in nodes().items()}

        for host, out in zip(self._top.root(on_host), self._root, strict=True):
            self._device.write(host, out)
        return self._root


class ByNccl:
    """From device to device.

    What NCCL has queued waits on the device for all others, for ever where one does not come. So it is queued when all
    have their nodes, which they say each other on the host, and it is waited for at once, under the watchdog: no other
    wait on the device is one for other processes.

    Args:
        link: a `communicator.nccl.NcclCommunicator`.
    """

    def __init__(self, device: Device, communicator: Any, link: Any, plan: Plan) -> None:
        self._device, self._communicator, self._link, self._plan = device, communicator, link, plan
        self.own = plan.own
        if plan.sliced:
            # each slice as long as the longest, so that those of the root come to lie side by side
            empty = [(n, dtype) for n, (_, dtype) in zip(plan.each, plan.lengths, strict=True)]
            self._slices = [[device.empty((n,), dtype) for n, dtype in empty] for _ in range(sum(plan.counts))]
            lengths = [one.stop - one.start for one in plan.cuts[plan.rank]]
            self._places = [[a[:n] for a, n in zip(one, lengths, strict=True)] for one in self._slices]
            self._gathered = [device.empty((plan.size * n,), dtype) for n, dtype in empty]
            return
        # all send as much as the one with the most nodes
        whole, most, byte = plan.whole.bytes, max(plan.counts), np.dtype(np.uint8)
        self._send, self._received = (device.empty((n * most * whole,), byte) for n in (1, plan.size))
        device.zero(self._send)
        self._filled = [plan.whole.views(self._send[i * whole :]) for i in range(most)]
        at = [(r * most + i) * whole for r, count in enumerate(plan.counts) for i in range(count)]
        self._places = [plan.whole.views(self._received[start:]) for start in at]

    def root(self, nodes: Nodes) -> Sequence[Array]:
        device, plan = self._device, self._plan
        found: Mapping[int, Sequence[Array]] = {}
        with self._communicator.together(), device.guard():
            if plan.mine:
                found = nodes()
                device.host_waits_for(device.mark())  # what fails there fails here, where the others hear of it
        mine = [[array.reshape(-1) for array in found[index]] for index in plan.mine]
        root = self._by_slices(mine) if plan.sliced else self._at_once(mine)
        done = device.mark()
        self._link.wait(lambda: device.past(done))
        return [flat.reshape(shape) for flat, shape in zip(root, plan.shapes, strict=True)]

    def _at_once(self, mine: list[list[Array]]) -> list[Array]:
        device = self._device
        for views, arrays in zip(self._filled, mine, strict=False):  # others may have more
            for view, array in zip(views, arrays, strict=True):
                device.copy(array, view)
        self._link.all_gather([(device.address(self._send), device.address(self._received), self._send.nbytes)])
        return self._added()

    def _by_slices(self, mine: list[list[Array]]) -> list[Array]:
        device, plan = self._device, self._plan
        address, places = device.address, iter(self._places)
        sent = [
            (address(array[one]), array[one].nbytes, peer)
            for peer, cut in enumerate(plan.cuts)
            for arrays in mine
            for array, one in zip(arrays, cut, strict=True)
            if peer != plan.rank and one.stop > one.start
        ]
        received = []
        for peer, count in enumerate(plan.counts):
            for i in range(count):
                for k, place in enumerate(next(places)):
                    if not place.nbytes:
                        continue
                    if peer == plan.rank:
                        device.copy(mine[i][k][plan.cuts[peer][k]], place)
                    else:
                        received.append((address(place), place.nbytes, peer))
        self._link.exchange(sent, received)
        self._added()
        gathered = zip(self._slices[0], self._gathered, strict=True)
        self._link.all_gather([(address(own), address(every), own.nbytes) for own, every in gathered])
        return [every[:n] for every, (n, _) in zip(self._gathered, plan.lengths, strict=True)]

    def _added(self) -> list[Array]:
        """The root, in the place of the first node."""
        for a, b in self._plan.additions:
            for one, other in zip(self._places[a], self._places[b], strict=True):
                add(self._device, one, other)
        return self._places[0]
