"""How much memory there is to use, and how a person writes an amount of it.

What counts is the smallest of what the machine has left (`MemAvailable`) and what each enclosing control group has left
(a container or a batch job may have far less than its machine). Page cache that a group holds is given back under
pressure, so inactive file pages do not count as used.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from ..errors import UsageError

_UNITS = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_UNITS |= {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}


def parse_size(text: str) -> int:
    """Bytes from a size such as ``256MB`` (10⁶), ``1.5 GiB`` (2³⁰) or ``4096``.

    Raises:
        UsageError: the text is no size.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*([A-Za-z]*)\s*", text, re.ASCII)
    unit = _UNITS.get((match[2] or "B").upper()) if match else None
    if match is None or unit is None:
        raise UsageError(f"the size '{text}'", wanted="a number with B, kB, MB, GB, KiB, MiB or GiB, such as 256MB")
    return int(float(match[1]) * unit) if "." in match[1] else int(match[1]) * unit


def available_memory(root: str | Path = "/") -> int:
    """Bytes this process may still take without swapping or being killed.

    Args:
        root: where `proc` and `sys` are found (tests give a folder of their own).
    """
    root = Path(root)
    left = [_machine(root), *_groups(root)]
    return max(0, min(left))


def default_budget() -> int:
    """Bytes of rows kept in memory unless the user says otherwise: half of what is available."""
    return available_memory() // 2


def _machine(root: Path) -> int:
    match = re.search(r"^MemAvailable:\s+(\d+) kB", _text(root / "proc/meminfo"), re.MULTILINE)
    if match:
        return int(match[1]) * 1024
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")  # no /proc (macOS): what is built in


def _groups(root: Path) -> Iterator[int]:
    """What each control group that limits this process has left, version 2 and version 1."""
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        if not controllers:
            top, limit, used, idle = root / "sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"
        elif "memory" in controllers.split(","):
            top = root / "sys/fs/cgroup/memory"
            limit, used, idle = "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"
        else:
            continue
        folder = top / group.lstrip("/")
        # In a container the path may be that of the host and not exist here: then only the top is seen.
        for place in (folder, *folder.parents):
            if place == top.parent:
                break
            bound, taken = _text(place / limit).strip(), _text(place / used).strip()
            if bound.isdigit() and taken.isdigit():
                match = re.search(rf"^{idle} (\d+)$", _text(place / "memory.stat"), re.MULTILINE)
                yield int(bound) - int(taken) + (int(match[1]) if match else 0)


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
