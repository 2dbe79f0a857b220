"""What was wanted, and what the rows say about it. To add a target, add a function to `TARGETS`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from .plan import BYTES, FUSED, LAYERED, Rows, fastest, flops, shapes

Row = Mapping[str, Any]


class Verdict(NamedTuple):
    """A target and its figure; `met` is None where it was not measured."""

    wanted: str
    figure: str
    met: bool | None


def limit(rows: Rows, what: str, unit: str, precision: str = "") -> float | None:
    """A ceiling measured on the same card."""
    key = " ".join(part for part in ("limits", what, precision) if part)
    row = rows.get(key, {})
    return row.get(unit) if row.get("status") == "ok" else None


def floor(rows: Rows, row: Row, smoke: bool) -> float | None:
    """Seconds that an evaluation takes at least: its products at the measured rate, or one reading of X.

    A product of tf32x3 is three of tf32. X is read at the rate of a copy, bytes read and written counted.
    """
    shape = shapes(smoke)[row["shape"]]
    precision = "tf32" if row["precision"] == "tf32x3" else row["precision"]
    rate, width = limit(rows, "product", "flops_per_s", precision), limit(rows, "copy", "bytes_per_s")
    if not rate or not width:
        return None
    stored = 2 if row["precision"] == "bf16" and row["side"] != "ours" and row["stored"] == "float32" else None
    read = shape.m * shape.layers[0] * (stored or BYTES[row["stored"]]) / width
    return max(flops(shape) * (3 if row["precision"] == "tf32x3" else 1) / rate, read)


def verdicts(rows: Rows, smoke: bool) -> list[Verdict]:
    """Every target, in order."""
    return [verdict for target in TARGETS for verdict in target(rows, smoke)]


def duration(seconds: float) -> str:
    """Three digits, in µs, ms or s."""
    for unit, size in (("µs", 1e-6), ("ms", 1e-3), ("s", 1.0)):
        if seconds < 999.5 * size or unit == "s":
            return f"{seconds / size:.3g} {unit}"
    raise AssertionError


def _ours(rows: Rows, shape: str, precision: str, kernel: str = "") -> Row | None:
    if kernel:
        found = [row for row in rows.values() if _good(row) and row["what"] == kernel]
        found = [row for row in found if row["shape"] == shape and row["precision"] == precision]
        return min(found, key=lambda row: row["median_s"]) if found else None
    return rows.get(fastest(rows, shape, precision, ours=True))


def _good(row: Row) -> bool:
    return row.get("status") == "ok" and row.get("side") == "ours" and "median_s" in row


def _at_most(wanted: str, row: Row | None, most: float) -> Verdict:
    if row is None:
        return Verdict(wanted, "", None)
    figure = f"{duration(row['median_s'])} ({row['what']}, {row['precision']}, X as {row['stored']})"
    return Verdict(wanted, figure, row["median_s"] <= most)


def lead(rows: Rows, shape: str, precision: str) -> tuple[float, str] | None:
    """Times as fast as the best peer, and how that is known: from a race where there was one with that peer."""
    ours, peer = fastest(rows, shape, precision, ours=True), fastest(rows, shape, precision, ours=False)
    if not ours or not peer:
        return None
    name = f"{rows[peer]['side']} {title(rows[peer])}"
    race = rows.get(f"race {shape} {precision} float32", {})
    if race.get("status") == "ok" and list(race["rival"]) == [ours, peer]:
        return race["lead"], f"{name}, in turns"
    return rows[peer]["median_s"] / rows[ours]["median_s"], f"{name}, one after the other"


def title(row: Row) -> str:
    """A contender with the rows of its chunks."""
    return f"{row['what']} of {row['rows']:,}" if row["rows"] else row["what"]


def _lead(shape: str, precision: str, least: float) -> Callable[[Rows], Verdict]:
    def verdict(rows: Rows) -> Verdict:
        at = f"{shape}, {precision}: {least:g} × the best peer or more"
        if found := lead(rows, shape, precision):
            return Verdict(at, f"{found[0]:.2f} × {found[1]}", found[0] >= least)
        return Verdict(at, "", None)

    return verdict


def _fused_A(rows: Rows, smoke: bool) -> list[Verdict]:
    best = [row for precision in ("tf32", "tf32x3", "fp32") if (row := _ours(rows, "A", precision, FUSED))]
    fastest_row = min(best, key=lambda row: row["median_s"]) if best else None
    return [_at_most("A, fused: 15 µs or less", fastest_row, 15e-6), _lead("A", "tf32", 2)(rows)]


def _B(rows: Rows, smoke: bool) -> list[Verdict]:
    return [_at_most("B, tf32: 0.35 ms or less", _ours(rows, "B", "tf32"), 0.35e-3), _lead("B", "tf32", 1.5)(rows)]


def _C(rows: Rows, smoke: bool) -> list[Verdict]:
    found = []
    for precision, share in (("bf16", 0.80), ("tf32", 0.85)):
        wanted = f"C, {precision}: {share:.0%} of the matrix-product rate or more"
        row, rate = _ours(rows, "C", precision, LAYERED), limit(rows, "product", "flops_per_s", precision)
        if row is None or not rate:
            found.append(Verdict(wanted, "", None))
        else:
            reached = flops(shapes(smoke)["C"]) / row["median_s"] / rate
            of = f"{reached:.1%} of {rate / 1e12:.0f} TFLOP/s ({duration(row['median_s'])})"
            found.append(Verdict(wanted, of, reached >= share))
        found.append(_lead("C", precision, 1.0)(rows))
    return found


def _D(rows: Rows, smoke: bool) -> list[Verdict]:
    return [
        _at_most("D, tf32: 6 ms or less", _ours(rows, "D", "tf32"), 6e-3),
        _at_most("D, bf16: 3 ms or less (a stretch)", _ours(rows, "D", "bf16"), 3e-3),
        _lead("D", "tf32", 2)(rows),
    ]


def _G(rows: Rows, smoke: bool) -> list[Verdict]:
    found = [row for row in rows.values() if _good(row) and row["shape"] == "G"]
    row = min(found, key=lambda row: row["median_s"]) if found else None
    return [_at_most("G, a thousand million rows: 0.3 s or less", row, 0.3), _lead("G", "bf16", 1.0)(rows)]


def _errors(rows: Rows, smoke: bool) -> list[Verdict]:
    verdicts = []
    for precision, where, most in (("fp64", "ABD", 1e-13), ("fp32", "ABD", 2e-6), ("fp32", "C", 1e-4)):
        ours = [row for row in rows.values() if _good(row) and row["precision"] == precision]
        found = {shape: [row["gradient_error"] for row in ours if row["shape"] == shape] for shape in where}
        errors = {shape: max(some) for shape, some in found.items() if some}
        figure = ", ".join(f"{shape} {error:.1e}" for shape, error in errors.items())
        wanted = f"gradient error at {precision} on {', '.join(where)}: {most:g} or less"
        met = all(error <= most for error in errors.values()) if len(errors) == len(where) else None
        if errors and max(errors.values()) > most:
            met = False
        verdicts.append(Verdict(wanted, figure, met))
    return verdicts


def _waits(rows: Rows, smoke: bool) -> list[Verdict]:
    measured = [row for row in rows.values() if _good(row) and row.get("waits") is not None]
    most = max((row["waits"] for row in measured), default=None)
    wanted = "waits for the device in an evaluation: 1"
    found = [Verdict(wanted, "", None) if most is None else Verdict(wanted, f"at most {most}", most <= 1)]
    runs = [row for row in rows.values() if row.get("what") == "50 iterations" and row.get("status") == "ok"]
    shares = {row["shape"]: row["waits_per_evaluation"] for row in runs if "waits_per_evaluation" in row}
    figure = ", ".join(f"{shape} {share:.2f}" for shape, share in shares.items())
    met = max(shares.values()) <= 1.05 if shares else None  # a run's beginning and end may wait too
    found.append(Verdict("waits in 50 iterations of L-BFGS: 1 per evaluation", figure, met))
    answered = [row for row in rows.values() if _good(row) and "same_bits" in row]
    others = [f"{title(row)} {row['shape']} {row['precision']}" for row in answered if not row["same_bits"]]
    figure = ("all" if not others else f"not {', '.join(others)}") + f" of {len(answered)}" if answered else ""
    found.append(Verdict("the same bits when repeated", figure, not others if answered else None))
    return found


def _streaming(rows: Rows, smoke: bool) -> list[Verdict]:
    verdicts = []
    for precision in ("bf16", "tf32"):
        row = rows.get(f"ours streaming C {precision} uint8", {})
        wanted = f"C as bytes, {precision}, a third on the card: 90 % of the speed of all, same bits"
        if row.get("status") == "ok":
            figure = f"{row['speed']:.1%}, {'the same' if row['same_bits'] else 'other'} bits"
            verdicts.append(Verdict(wanted, figure, row["speed"] >= 0.9 and row["same_bits"]))
        else:
            verdicts.append(Verdict(wanted, "", None))
    return verdicts


def _checks(rows: Rows, smoke: bool) -> list[Verdict]:
    tests = rows.get("checks tests", {})
    counts = tests.get("counts", {})
    figure = ", ".join(f"{n} {word}" for word, n in counts.items()) or tests.get("why", "")
    done = tests.get("status") == "ok"
    bad = counts.get("failed", 0) + counts.get("error", 0)
    found = [Verdict("tests marked gpu: all pass", figure, bad == 0 and counts.get("passed", 0) > 0 if done else None)]
    for tool in ("memcheck", "racecheck"):
        row = rows.get(f"checks {tool}", {})
        errors = row.get("errors")
        figure = row.get("why", "") if errors is None else f"{errors}"
        found.append(Verdict(f"compute-sanitizer {tool}: 0 errors", figure, None if errors is None else errors == 0))
    return found


TARGETS = (_fused_A, _B, _C, _D, _G, _errors, _waits, _streaming, _checks)
