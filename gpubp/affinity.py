"""Which cores a process may run on."""

from __future__ import annotations

import os


def affinity() -> frozenset[int]:
    """Their numbers."""
    try:
        return frozenset(os.sched_getaffinity(0))
    except AttributeError:  # macOS has no affinity
        return frozenset(range(os.cpu_count() or 1))
