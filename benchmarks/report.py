"""What a race found: tables for a person, a record for `benchmarks/results/`.

The record holds every turn, the versions, the processor; no host name and no path.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from contenders import WHOLE
from race import Race
from runner import NOISE, ROOT, Result

_PACKAGES = (
    "numpy", "scipy", "scikit-learn", "torch", "triton", "jax", "jaxlib", "jax-cuda13-plugin", "optax", "numba",
    "llvmlite", "mkl", "h5py", "hdf5plugin", "numcodecs", "isal", "cupy-cuda12x", "cupy-cuda13x", "nvidia-cublas",
)  # fmt: skip


def limit(race: Race) -> tuple[float, dict[str, dict[str, float]]] | None:
    """The limit in seconds, and each product's seconds by library; None where no products were timed.

    The limit is the sum over the products of the faster of the libraries' medians.
    """
    by_product: dict[str, dict[str, float]] = {}
    for result in race.results:
        if result.name in WHOLE:
            for product, turns in result.products.items():
                library = result.name.rsplit(" ", 1)[-1]
                by_product.setdefault(product, {})[library] = float(np.median(turns))
    if not by_product:
        return None
    return sum(min(seconds.values()) for seconds in by_product.values()), by_product


def text(race: Race) -> str:
    """Tables and summary of one shape, in Markdown."""
    found, by_product = limit(race) or (None, {})
    lines = [f"### {race.shape}, {race.threads} thread{'s' if race.threads > 1 else ''}", ""]
    if found:
        products = "; ".join(
            f"{name} " + ", ".join(f"{library} {_ms(s)}" for library, s in seconds.items())
            for name, seconds in by_product.items()
        )
        lines += [f"The limit is {_ms(found)} ms: the faster library for each product ({products}).", ""]
    lines += table(
        ("", "ms", "min", "spread", "÷ limit", "cores", "first s", "∇J error", "J error", "MB"),
        [_row(result, found) for result in race.results],
    )
    ours = [result for result in race.results if result.kind == "gpubp"]
    others = [result for result in race.results if result.kind in ("peer", "information")]
    if ours and others:
        lines += ["", "Times as fast:", ""]
        rows = [[other.title, *(f"{other.seconds / our.seconds:.2f}" for our in ours)] for other in others]
        lines += table(("as", *(our.name for our in ours)), rows)
    lines += ["", *summary(race)]
    lines += noise(race.results)
    for name, sizes in race.tuning.items():
        tried = ", ".join(f"{rows:,}: {_ms(seconds)}" for rows, seconds in sizes.items())
        if tried:
            lines.append(f"- {name} (ms at each size): {tried}")
    lines += [f"- {name}: skipped, {reason}" for name, reason in race.skipped.items()]
    lines += [f"- {name}: **failed**, {reason}" for name, reason in race.failed.items()]
    return "\n".join(lines)


def summary(race: Race) -> list[str]:
    """For each engine of gpubp, the ratios that the targets are about."""
    found = limit(race)
    peers = [result for result in race.results if result.kind == "peer"]
    lines = []
    for our in (result for result in race.results if result.kind == "gpubp"):
        parts = [f"{our.seconds / found[0]:.2f} × the limit"] if found else []
        if peers:
            best = min(peers, key=lambda peer: peer.seconds)
            parts.append(f"{best.seconds / our.seconds:.2f} times as fast as the best peer ({best.title})")
        for peer in peers:
            if peer.name == "scikit-learn":
                parts.append(f"{peer.seconds / our.seconds:.2f} times as fast as scikit-learn")
        lines.append(f"- **{our.name}**: {'; '.join(parts) or f'{_ms(our.seconds)} ms'}")
    return lines


def noise(results: Sequence[Result]) -> list[str]:
    """A line of warning where the machine had other work."""
    others = max((float(np.median(result.others)) for result in results), default=0.0)
    return [f"- **Noisy**: up to {others:.1f} cores were busy with other work: no figures to keep"] * (others > NOISE)


def record(what: str, races: Sequence[Race], **more: Any) -> dict[str, Any]:
    """Everything, for a JSON file."""
    shapes = []
    for race in races:
        found, by_product = limit(race) or (None, {})
        results = [{**asdict(result), "median_s": result.seconds} for result in race.results]
        shapes.append({**asdict(race), "limit_s": found, "products_s": by_product, "results": results})
    return {"what": what, **conditions(), **more, "races": shapes}


def conditions() -> dict[str, Any]:
    """When, by what command, on what, with which versions."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join(["python3", f"benchmarks/{Path(sys.argv[0]).name}", *map(_bare, sys.argv[1:])]),
        "commit": _commit(),
        "machine": {
            "processor": _line_of("/proc/cpuinfo", "model name"),
            "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
            "memory": _line_of("/proc/meminfo", "MemTotal"),
            "system": f"{platform.system()} {platform.release()}",
            "load": os.getloadavg(),
        },
        "versions": {"python": platform.python_version(), **_versions()},
    }


def write(path: str | None, content: dict[str, Any]) -> None:
    """As JSON to that file, if there is one."""
    if path:
        Path(path).write_text(json.dumps(content, indent=1) + "\n")


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table whose columns stand below each other in a terminal too."""
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        first, *others = zip(cells, widths, strict=True)
        return f"| {' | '.join([first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)])} |"

    rule = [f"{'-' * (width - 1)}{':' if i else '-'}" for i, width in enumerate(widths)]
    return [line(head), f"|{'|'.join(f' {dashes} ' for dashes in rule)}|", *map(line, rows)]


def _row(result: Result, found: float | None) -> list[str]:
    return [
        result.title,
        _ms(result.seconds),
        _ms(min(result.turns)),
        f"{100 * result.spread:.0f} %",
        f"{result.seconds / found:.2f}" if found else "",
        f"{np.median(result.cores):.2f}",
        f"{result.setup_s + result.first_s:.1f}",
        "" if result.gradient_error is None else f"{result.gradient_error:.1e}",
        "" if result.J_error is None else f"{result.J_error:.1e}",
        f"{result.memory_mb:.0f}",
    ]


def _ms(seconds: float) -> str:
    ms = 1e3 * seconds
    return f"{ms:.3f}" if ms < 1 else f"{ms:.2f}" if ms < 100 else f"{ms:.0f}"


def _bare(argument: str) -> str:
    """A path of this machine is nobody's business."""
    return Path(argument).name if os.sep in argument else argument


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _commit() -> str | None:
    """The commit of the checkout, with a + where it was changed since."""
    try:
        command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty=+", "--exclude=*"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def _line_of(path: str, name: str) -> str | None:
    try:
        with open(path) as file:
            return next((line.split(":", 1)[1].strip() for line in file if line.startswith(name)), None)
    except OSError:
        return None
