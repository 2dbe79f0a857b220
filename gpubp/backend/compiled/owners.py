"""The whole sum over rows without Python's lock: the tree of `gpubp.tree`, leaf by leaf, by threads that stay awake.

The tree, the leaves and the order of every addition are `SumTree`'s; so are the bits. What is left out is Python:
between two leaves a thread would wait for its lock, and a thread that is woken for each pass comes some 50 to 100 µs
late, which is a tenth of a pass over 5,000 rows. Here a thread takes its next leaf by an atomic operation, and between
passes it looks for work for about a millisecond before it goes to sleep.

All that threads share are int64 numbers in arrays, changed by atomic operations alone:

`shared`   see the names below, and from `OWN` on for each owner: the last pass it has seen; whether it sleeps; the leaf
           that it has taken and not begun, + 1
`ranges`   for each owner the leaves it has left, first << 32 | stop
`waiting`  for each inner node of the tree (heap order, root 1) its first child that is finished: its buffer + 1
`free`     how many buffers are free, and their numbers
"""

from __future__ import annotations

from typing import Any

import numba
from numba import njit

from .intrinsics import atomic_add, atomic_load, call, compare_and_set, pause, pointer
from .leaf import run

carray: Any = numba.carray  # type: ignore[attr-defined]  (they do not list it)

PASS, DONE, STOP, GRADIENT, ROOT, LOCK, FAILED, FROM, TO, OWN = range(10)
SEEN, ASLEEP, LEAF, PER_OWNER = range(4)
# What `work` and `help_out` answer.
FINISHED, MORE, NO_BUFFER, SLEEP, STOPPED = range(5)


@njit(nogil=True, cache=True)
def wait_for(address, value, spins):  # type: ignore[no-untyped-def]
    """Look until the number at an address is not `value`, or so many times; whether it is not."""
    for _ in range(spins):
        if atomic_load(address) != value:
            return True
        pause()
    return atomic_load(address) != value


@njit(nogil=True, cache=True)
def wait_until(address, value, spins):  # type: ignore[no-untyped-def]
    """Look until the number at an address is `value`, or so many times; whether it is."""
    for _ in range(spins):
        if atomic_load(address) == value:
            return True
        pause()
    return atomic_load(address) == value


@njit(nogil=True, cache=True)
def wake(shared, asleep):  # type: ignore[no-untyped-def]
    """Begin a pass: 1 in `asleep` for each helper that sleeps, and is from now on taken to be awake."""
    base = shared.ctypes.data
    atomic_add(base + 8 * PASS, 1)
    for owner in range(1, (len(shared) - OWN) // PER_OWNER):
        if compare_and_set(base + 8 * (OWN + owner * PER_OWNER + ASLEEP), 1, 0) == 1:
            asleep[owner] = 1


@njit(nogil=True, cache=True)
def give_up(owner, shared, ranges):  # type: ignore[no-untyped-def]
    """End this pass for a helper that cannot go on, and have the others take no more leaves."""
    empty(ranges)
    own = OWN + owner * PER_OWNER
    shared[own + LEAF] = 0
    shared[own + SEEN] += 1
    atomic_add(shared.ctypes.data + 8 * DONE, 1)


@njit(nogil=True, cache=True)
def empty(ranges):  # type: ignore[no-untyped-def]
    """No leaf is left to be taken."""
    for owner in range(len(ranges)):
        address = ranges.ctypes.data + 8 * owner
        before = atomic_load(address)
        while compare_and_set(address, before, 0) != before:
            before = atomic_load(address)


@njit(nogil=True, cache=True)
def take(owner, ranges):  # type: ignore[no-untyped-def]
    """The owner's next leaf, or else one from the tail of the longest range left; −1 when all are taken."""
    base = ranges.ctypes.data
    while True:
        mine = atomic_load(base + 8 * owner)
        first, stop = mine >> 32, mine & 0xFFFFFFFF
        if first < stop:
            if compare_and_set(base + 8 * owner, mine, (first + 1) << 32 | stop) == mine:
                return first
            continue
        longest, victim, whole = 0, 0, 0
        for other in range(len(ranges)):
            theirs = atomic_load(base + 8 * other)
            length = (theirs & 0xFFFFFFFF) - (theirs >> 32)
            if length > longest:
                longest, victim, whole = length, other, theirs
        if longest == 0:
            return -1
        if compare_and_set(base + 8 * victim, whole, whole - 1) == whole:
            return (whole & 0xFFFFFFFF) - 1


@njit(nogil=True, cache=True)
def lend(shared, free):  # type: ignore[no-untyped-def]
    """A free buffer's number, or −1."""
    lock = shared.ctypes.data + 8 * LOCK
    while compare_and_set(lock, 0, 1) != 0:
        pause()
    number = -1
    if free[0] > 0:
        number = free[free[0]]
        free[0] -= 1
    compare_and_set(lock, 1, 0)
    return number


@njit(nogil=True, cache=True)
def give(number, shared, free):  # type: ignore[no-untyped-def]
    """Give a buffer back."""
    lock = shared.ctypes.data + 8 * LOCK
    while compare_and_set(lock, 0, 1) != 0:
        pause()
    free[0] += 1
    free[free[0]] = number
    compare_and_set(lock, 1, 0)


@njit(nogil=True, cache=True, error_model="numpy")
def work(
    owner, shared, ranges, waiting, free, nodes, costs, add, m, block_rows,
    layers, places, data, code, Theta, scratch, sums, most,
):  # fmt: skip # type: ignore[no-untyped-def]
    """Compute leaves and add siblings, until no leaf is left (FINISHED), `most` are done (MORE), or NO_BUFFER is free.

    Where rows cannot be read, FAILED is set, the first such block's rows are in FROM and TO, and no leaf is left.

    nodes: the address of each buffer, a flat Δ; costs: (buffers, 2); add: the kernel a ← a + b. The rest as for `leaf`.
    """
    leaves = len(waiting)
    gradient = atomic_load(shared.ctypes.data + 8 * GRADIENT) != 0
    mine = OWN + owner * PER_OWNER + LEAF
    for _ in range(most):
        if shared[mine] == 0:
            shared[mine] = take(owner, ranges) + 1
        leaf = shared[mine] - 1
        if leaf < 0:
            return FINISHED
        node = lend(shared, free)
        if node < 0:
            return NO_BUFFER
        shared[mine] = 0
        start, stop = leaf * m // leaves, (leaf + 1) * m // leaves
        blocks = max(1, -(-(stop - start) // block_rows))
        costs[node] = 0.0
        Delta = carray(pointer(nodes[node], scratch[0]), len(Theta))
        cost = costs[node]
        failed = run(
            layers, places, data, code, Theta, Delta, scratch, sums, cost, start, stop, blocks, False, gradient
        )
        if failed:
            if compare_and_set(shared.ctypes.data + 8 * FAILED, 0, 1) == 0:
                shared[FROM] = start + (stop - start) * (failed - 1) // blocks
                shared[TO] = start + (stop - start) * failed // blocks
            give(node, shared, free)
            empty(ranges)
            return FINISHED
        index = leaves + leaf
        while index > 1:
            index >>= 1
            other = compare_and_set(waiting.ctypes.data + 8 * index, 0, node + 1) - 1
            if other < 0:
                break
            # a + b = b + a to the bit, so it does not matter which of the two climbs
            if gradient:
                call(add, (1, len(Theta), 1, nodes[node], nodes[other]))
            costs[node] += costs[other]
            give(other, shared, free)
        else:
            shared[ROOT] = node
    return MORE


@njit(nogil=True, cache=True, error_model="numpy")
def help_out(
    owner, spins, shared, ranges, waiting, free, nodes, costs, add, m, block_rows,
    layers, places, data, code, Theta, scratch, sums,
):  # fmt: skip # type: ignore[no-untyped-def]
    """A helper's life between two sleeps: wait for a pass, work, say so; SLEEP after so many looks in vain."""
    base = shared.ctypes.data
    own = OWN + owner * PER_OWNER
    while True:
        if not wait_for(base + 8 * PASS, shared[own + SEEN], spins):
            compare_and_set(base + 8 * (own + ASLEEP), 0, 1)
            # a pass that began just now has seen us awake and will not wake us; else it will, or has
            begun = atomic_load(base + 8 * PASS) != shared[own + SEEN]
            if not begun or compare_and_set(base + 8 * (own + ASLEEP), 1, 0) != 1:
                return SLEEP
        if atomic_load(base + 8 * STOP) != 0:
            return STOPPED
        state = work(
            owner, shared, ranges, waiting, free, nodes, costs, add, m, block_rows,
            layers, places, data, code, Theta, scratch, sums, 1 << 62,
        )  # fmt: skip
        if state == NO_BUFFER:
            return NO_BUFFER
        shared[own + SEEN] += 1
        atomic_add(base + 8 * DONE, 1)
