"""How many cores are ours: of the container and the affinity mask, not of the host."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path


@cache
def available_cores() -> int:
    """The cores this process may use: its affinity, cut by the CPU quota of its control group; at least 1."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS has no affinity
        cores = os.cpu_count() or 1
    quota = _quota(Path("/sys/fs/cgroup"))
    return max(1, min(cores, int(quota + 0.5) if quota else cores))


def _quota(root: Path) -> float | None:
    """Cores' worth of CPU time per period (cgroup v2, then v1), or None where there is no limit."""
    try:
        limit, period = (root / "cpu.max").read_text().split()
        return None if limit == "max" else int(limit) / int(period)
    except (OSError, ValueError):
        pass
    try:
        limit = int((root / "cpu/cpu.cfs_quota_us").read_text())
        return limit / int((root / "cpu/cpu.cfs_period_us").read_text()) if limit > 0 else None
    except (OSError, ValueError):
        return None
