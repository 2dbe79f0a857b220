"""How many cores are ours: of the container, the job and the affinity mask, not of the host."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path

from ..affinity import affinity


@cache
def available_cores() -> int:
    """The cores this process may use: its affinity, cut by the CPU quota of its control groups; at least 1."""
    cores = len(affinity())
    quota = _quota(Path("/sys/fs/cgroup"), Path("/proc/self/cgroup"))
    return max(1, min(cores, int(quota + 0.5) if quota else cores))


def _quota(root: Path, ours: Path) -> float | None:
    """Cores' worth of CPU time per period, or None where there is no limit.

    The smallest of our group and of those around it: a job's limit often lies on the group above (cgroup v2 and v1).
    `ours` names our groups; inside a container its root is what a process sees, whatever the name.
    """
    found = [quota for group in _groups(root, ours) if (quota := _v2(group) or _v1(group))]
    return min(found, default=None)


def _groups(root: Path, ours: Path) -> Iterator[Path]:
    try:
        lines = [line.split(":", 2) for line in ours.read_text().splitlines()]
    except OSError:
        lines = []
    for _, controllers, path in (line for line in lines if len(line) == 3):
        if controllers and "cpu" not in controllers.split(","):
            continue
        top = root / "cpu" if controllers else root
        inside = Path(path.lstrip("/"))
        yield from (top / part for part in (inside, *inside.parents))
    yield from (root, root / "cpu")


def _v2(group: Path) -> float | None:
    try:
        limit, period = (group / "cpu.max").read_text().split()
        return None if limit == "max" else int(limit) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None


def _v1(group: Path) -> float | None:
    try:
        limit = int((group / "cpu.cfs_quota_us").read_text())
        return limit / int((group / "cpu.cfs_period_us").read_text()) if limit > 0 else None
    except (OSError, ValueError, ZeroDivisionError):
        return None
