"""The tables, in Markdown, out of one or several JSON files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from report import table

from .plan import Rows, shapes
from .targets import duration, floor, lead, title, verdicts

MET = {True: "met", False: "**missed**", None: "unmeasured"}
PRECISIONS = ("fp64", "fp32", "tf32x3", "tf32", "bf16")


def markdown(paths: Sequence[str]) -> str:
    """Everything that these files hold, a card after the other."""
    parts = []
    for path in paths:
        with open(path) as file:
            parts.append(text(json.load(file)))
    return "\n\n".join(parts)


def text(record: dict[str, Any]) -> str:
    """One card's tables."""
    rows, runs = record["rows"], record["runs"]
    newest = len(runs) - 1
    smoke = bool(runs[newest].get("smoke"))
    lines = [*_head(record), "", "### Ceilings", "", *_ceilings(rows)]
    for name, shape in shapes(smoke).items():
        some = [row for row in rows.values() if row["shape"] == name and "call_s" in row]
        if some:
            lines += ["", f"### {shape}", "", *_shape(rows, some, newest, smoke), *_leads(rows, name)]
    lines += _duties(rows)
    lines += _troubles(rows, runs[newest].get("left_out", {}))
    return "\n".join(lines)


def brief(record: dict[str, Any]) -> str:
    """The targets, and what went wrong."""
    return "\n".join([*_head(record), *_troubles(record["rows"], record["runs"][-1].get("left_out", {}))])


def _head(record: dict[str, Any]) -> list[str]:
    rows, runs = record["rows"], record["runs"]
    newest, smoke = len(runs) - 1, bool(runs[-1].get("smoke"))
    lines = [f"## {record['card']}", ""]
    if smoke:
        lines += ["**A smoke test on a CPU, with tiny shapes: nothing here says anything about a GPU.**", ""]
    lines += [_conditions(run, i, newest) for i, run in enumerate(runs) if run] + [""]
    targets = [(v.wanted, v.figure, "smoke" if smoke else MET[v.met]) for v in verdicts(rows, smoke)]
    return lines + table(("target", "measured", ""), targets)


def _conditions(run: dict[str, Any], i: int, newest: int) -> str:
    packages = ", ".join(f"{name} {number}" for name, number in run.get("versions", {}).items())
    mark = "" if i == newest else f" (run {i + 1}, rows marked †)"
    clocks = f"; at the start: {run['state']}" if run.get("state") else ""
    took = f"; {run['took_s']:.0f} s" if run.get("took_s") else ""
    return (
        f"- {run.get('date')}, commit {run.get('commit')}, sources {run.get('sources')}{mark}: {packages}{clocks}{took}"
    )


def _ceilings(rows: Rows) -> list[str]:
    lines = []
    for row in rows.values():
        if row["side"] != "limits" or row["status"] != "ok":
            continue
        name = " ".join(part for part in (row["what"], row["shape"], row["precision"]) if part)
        rate = f"{row['flops_per_s'] / 1e12:.3g} TFLOP/s" if "flops_per_s" in row else ""
        rate = rate or (f"{row['bytes_per_s'] / 1e9:.4g} GB/s" if "bytes_per_s" in row else "")
        lines.append((name, rate, duration(row["median_s"]), f"{row['spread']:.1%}"))
    return table(("", "rate", "time", "spread"), lines) if lines else ["Not measured."]


def _shape(rows: Rows, some: list[Any], newest: int, smoke: bool) -> list[str]:
    lines = []
    for row in sorted(some, key=lambda row: (PRECISIONS.index(row["precision"]), row["median_s"])):
        least = floor(rows, row, smoke)
        lines.append(
            (
                f"{row['side'] + ' ' if row['side'] != 'ours' else ''}{title(row)}"
                + ("" if row["run"] == newest else " †"),
                row["precision"],
                row["stored"],
                duration(row["median_s"]),
                duration(row["min_s"]),
                f"{row['spread']:.1%}",
                duration(row["call_s"]),
                duration(row["device_s"]) if "device_s" in row else "",
                f"{least / row['median_s']:.1%}" if least else "",
                f"{row['gradient_error']:.1e}",
                f"{row['J_error']:.0e}",
                "same" if row["same_bits"] else "**other**",
                "" if row.get("waits") is None else str(row["waits"]),
            )
        )
    return table(
        (
            "", "precision", "X", "time", "min", "spread", "one call", "device alone", "floor ÷ time", "∇J error",
            "J error", "bits", "waits",
        ),
        lines,
    )  # fmt: skip


def _leads(rows: Rows, shape: str) -> list[str]:
    found = [(precision, lead(rows, shape, precision)) for precision in PRECISIONS]
    lines = [f"- {precision}: {one[0]:.2f} times as fast as {one[1]}" for precision, one in found if one]
    return ["", *lines] if lines else []


def _duties(rows: Rows) -> list[str]:
    lines = []
    for row in rows.values():
        if row["status"] != "ok":
            continue
        if row["what"] == "50 iterations":
            waits = f", {row['waits']} waits" if "waits" in row else ", waits unknown"
            lines.append(
                f"- {row['shape']}, {row['precision']}: {row['iterations']} iterations of L-BFGS, {row['evaluations']} "
                f"evaluations{waits}, {duration(row['per_evaluation_s'])} each, everything included"
            )
        if row["what"] == "streaming":
            lines.append(
                f"- {row['shape']} as {row['stored']}, {row['precision']}: all on the card "
                f"{duration(row['all']['median_s'])}, a third of it {duration(row['third']['median_s'])}"
            )
    return ["", "### Optimizer and streaming", "", *lines] if lines else []


def _troubles(rows: Rows, left_out: dict[str, str]) -> list[str]:
    lines = [f"- {key}: {row['status']}, {row.get('why', '')}" for key, row in rows.items() if row["status"] != "ok"]
    lines += [f"- {key}: left out, {why}" for key, why in left_out.items()]
    failures = rows.get("checks tests", {}).get("failures", [])
    lines += [f"- test: {line}" for line in failures]
    return ["", "### Not measured, failed, left out", "", *lines] if lines else []
