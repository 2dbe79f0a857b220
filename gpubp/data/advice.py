"""What to fix in a data file: plain words, and the exact words to type. Made from the record of `report` alone.

There are three kinds: "error", training stops at it; "advice", it is worth doing; "note", good to know.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from .names import field_options, quoted

KINDS = ("error", "advice", "note")
MARKS = frozenset({-9999.0, -999.9, -999.25, -999.0, -99.0, 999.0, 9999.0, 99999.0, -99999.0})  # "no value" of tables
_UNEVEN = 10  # the largest class to the smallest
_MANY = 100  # classes that may be meant as numbers
_WIDE = 1e4  # the largest σ to the smallest
_DIGITS = 1e5  # of a mean to its σ: float32 has seven digits
_FEW = 6

Advice = dict[str, Any]


def advice(record: dict[str, Any]) -> list[Advice]:
    """What to fix, the gravest first.

    Args:
        record: of `report.describe_file`, without this.

    Returns:
        Records of `kind`, `split`, `what` (a sentence), `do` (a sentence, an option or nothing) and `command` (a whole
        line to type, or None).
    """
    found: list[Advice] = []
    for part in record["parts"]:
        for kind, what, do, command in _of_part(record, part):
            found.append({"kind": kind, "split": part["split"], "what": what, "do": do, "command": command})
    found += _between(record)
    return sorted(found, key=lambda one: KINDS.index(one["kind"]))


def train_command(record: dict[str, Any]) -> str | None:
    """The line that trains on the file, with the options that the advice speaks of; None if nothing can be trained."""
    parts = record["parts"]
    if not parts or "trouble" in parts[0] or not parts[0].get("target") or "trouble" in parts[0]["target"]:
        return None
    if any(one["kind"] == "error" and not one["do"].startswith("--") for one in record["advice"]):
        return None
    options = [one["do"] for one in record["advice"] if one["do"].startswith("--") and one["kind"] != "note"]
    unique = list(dict.fromkeys(option for option in options if "…" not in option))
    return " ".join(["gpubp", "train", shlex.quote(record["path"]), "--out", "run", *_asked(record), *unique])


def _asked(record: dict[str, Any], *but: str) -> list[str]:
    """The options with which the record was made, for another command on the same rows."""
    chosen = ((name, value) for name, value in record["asked"].items() if name not in but)
    return [word for name, value in chosen for word in (f"--{name}", shlex.quote(value))]


Line = tuple[str, str, str, str | None]


def _of_part(record: dict[str, Any], part: dict[str, Any]) -> Iterator[Line]:
    if "trouble" in part:
        yield "error", part["trouble"], "", None
        yield from _compound(record)
        return
    yield from _shape(part)
    yield from _layout(record, part)
    if "values" in part:
        yield from _gaps(part)
        yield from _columns(part)
        yield from _scales(part)
    if part.get("target"):
        yield from _target(part)
    weighing = part.get("weighing")
    if weighing and weighing["zeros"]:
        share = weighing["zeros"] / part["rows"]
        yield "note", f"{weighing['zeros']:,} rows ({_percent(share)}) have the weight 0: they do not count", "", None


def _compound(record: dict[str, Any]) -> Iterator[Line]:
    """Tables with fields: which could be X."""
    for entry in record["datasets"]:
        numeric = [name for name, kind in (entry.get("fields") or {}).items() if kind.lstrip("<>=|")[:1] in "biuf"
                   and not kind.startswith("bytes")]  # fmt: skip
        if numeric and not entry["trouble"]:
            options = field_options(entry["name"], list(entry["fields"]), numeric)
            line = f"gpubp info {shlex.quote(record['path'])} {options}"
            fields = _count(len(numeric), "numeric field")
            what = f"{quoted(entry['name'])} is a table with {fields}: name those that are X and y"
            yield "advice", what, "", line


def _shape(part: dict[str, Any]) -> Iterator[Line]:
    m, d = part["rows"], part["features"]
    if d >= 10 * m and d > 1000:
        what = f"X has {m:,} rows of {d:,} features: it looks transposed, if its columns are the examples"
        yield "advice", what, "store X with one example per row", None


def _layout(record: dict[str, Any], part: dict[str, Any]) -> Iterator[Line]:
    entry = next((one for one in record["datasets"] if one["name"] == part["x"]), {})
    line, reading = _convert(record), part.get("reading")
    plain = entry.get("layout") == "contiguous" and "HDF5" not in str((reading or {}).get("way"))
    if reading and reading["raw"] and reading["rate"] < reading["raw"] / 2 and not plain:
        times = reading["raw"] / reading["rate"]
        cost = f"rows come at {_size(reading['rate'])}/s, the file's bytes alone at {_size(reading['raw'])}/s"
        if not reading["kept"]:
            what = f"X is stored so that it is read {times:.0f} times slower than it could be in every pass: {cost}"
            yield "advice", what, "", line
        elif reading["seconds"] > 0.2:
            yield "note", f"X is slow to read, which matters in the first pass only: {cost}", "", line
    smallest = part.get("values", {}).get("smallest")
    if smallest:
        bits = [int("".join(filter(str.isdigit, name))) for name in (part["dtype"], smallest)]
        what = f"X is {part['dtype']}, but {smallest} holds every value exactly, in {_fraction(bits[1] / bits[0])}"
        yield "advice", f"{what} of the bytes", "", line


def _gaps(part: dict[str, Any]) -> Iterator[Line]:
    values, columns, m = part["values"], part["columns"], part["rows"]
    if values["missing"]:
        where = [one for one in columns if one["missing"]]
        rows = f"{_count(values['rows_missing'], 'row')} ({_percent(values['rows_missing'] / m)})"
        found = f"{_count(values['missing'], 'value')} {_are(values['missing'])} missing (NaN)"
        few = values["rows_missing"] <= 0.01 * m
        yield "error", f"{found}, in {rows} and {_listed(where)}", "--missing drop" if few else "--missing mean", None
        if empty := [one for one in columns if one["missing"] == m]:
            yield "advice", f"{_listed(empty, 'empty')}: nothing but NaN", "--select columns=… without them", None
    if values["infinite"]:
        where = [one for one in columns if one["infinite"]]
        what = f"{_count(values['infinite'], 'value')} {_are(values['infinite'])} infinite, in {_listed(where)}"
        yield "error", what, "training refuses the first: repair them in the file", None
    marked = [one for one in columns if mark_of(one) is not None]
    if marked:
        marks = sorted({mark_of(one) for one in marked}, key=lambda mark: (mark is None, mark))
        texts = " or ".join(f"{mark:g}" for mark in marks if mark is not None)
        what = f"{_listed(marked)}: the end at {texts} often stands for “no value” and is taken as a number"
        yield "advice", what, "store NaN in its place, then --missing mean", None


def mark_of(column: dict[str, Any]) -> float | None:
    """The value in a column that stands for "no value", if its least or greatest looks like one."""
    low, high, std = column["min"], column["max"], column["std"]
    if low is None or low == high:
        return None
    if low in MARKS and (high >= 0 or high > low / 2) and std:
        return low
    return high if high in MARKS and low <= high / 100 else None


def _columns(part: dict[str, Any]) -> Iterator[Line]:
    values, columns = part["values"], part["columns"]
    image = part["dtype"] == "uint8" and part["features"] > 64
    if values["constant"]:
        where = [columns[k] for k in values["constant"]]
        harmless = "harmless, they tell nothing" if len(where) > 1 else "harmless, it tells nothing"
        do = "" if image else f"--select columns=… can leave {'them' if len(where) > 1 else 'it'} out"
        yield "note", f"{_listed(where, 'constant')}: {harmless}", do, None
    if values["may_be_equal"] and not image:
        groups = values["may_be_equal"]
        texts = " and ".join(_listed([columns[k] for k in group]) for group in groups[:3])
        more = f" (and {len(groups) - 3} more groups)" if len(groups) > 3 else ""
        what = f"{texts}{more} have the same figures: they may be equal"
        yield "note", what, "--select columns=… can leave one of them", None
    y = part.get("target", {}).get("figures")
    if y:
        for one in columns:
            if _same_figures(one, y):
                what = f"{_listed([one])} has the figures of y: is it y itself?"
                yield "advice", what, "--select columns=… without it", None


def _same_figures(column: dict[str, Any], y: dict[str, Any]) -> bool:
    if column["missing"] or column["min"] == column["max"] or column["std"] is None:
        return False
    ends = column["min"] == y["min"] and column["max"] == y["max"]
    return ends and all(math.isclose(column[name], y[name], rel_tol=1e-9, abs_tol=1e-12) for name in ("mean", "std"))


def _scales(part: dict[str, Any]) -> Iterator[Line]:
    columns = [one for one in part["columns"] if one["min"] is not None and one["min"] != one["max"]]
    endless = [one for one in columns if one["std"] is None]
    if endless:
        what = f"{_listed(endless)}: the squares of the values are not finite"
        yield "error", what, "scale them down in the file", None
    spread = part["values"]["spread"]
    huge = max((max(abs(one["min"]), abs(one["max"])) for one in columns), default=0)
    if spread and (spread > _WIDE or huge > 1e4):
        reach = f"deviations differ by {spread:.1e}" if spread > _WIDE else f"values reach {huge:.3g}"
        yield "note", f"{reach}: the default --scale takes care of it, --scale none would not", "", None
    tight = [one for one in columns if one["std"] and abs(one["mean"]) > _DIGITS * one["std"]]
    if tight and part["dtype"] in ("float32", "float16"):
        what = f"{_listed(tight)}: the mean is more than {_DIGITS:.0e} deviations, {part['dtype']} has few digits left"
        yield "advice", what, "subtract a constant before storing, or store float64", None


def _target(part: dict[str, Any]) -> Iterator[Line]:
    target = part["target"]
    if "trouble" in target:
        yield "error", target["trouble"], "", None
        return
    balance = target.get("balance")
    if balance and balance["ratio"] > _UNEVEN:
        large, small = balance["largest"], balance["smallest"]
        what = (
            f"class {_label(large['class'])} has {balance['ratio']:,.0f} times the rows of class"
            f" {_label(small['class'])} ({large['rows']:,} and {small['rows']:,})"
        )
        yield "advice" if part["split"] in (None, "train") else "note", what, "--class-weight balanced", None
    classes = target.get("classes") or []
    if len(classes) > _MANY and not isinstance(classes[0], str):
        what = f"y holds {len(classes):,} different whole numbers, each taken as a class"
        yield "note", what, "--cost squares if they are amounts", None
    shares = target.get("shares") or []
    never = [k for k, share in enumerate(shares) if share in (0.0, 1.0)]
    if never:
        listed = ", ".join(map(str, never[:_FEW])) + (" …" if len(never) > _FEW else "")
        yield "advice", f"label columns that are the same in all rows: {listed}", "leave them out of y", None
    for k, one in enumerate(target.get("range") or []):
        if one["min"] == one["max"]:
            yield "advice", f"target {k} is {one['min']:g} in all rows: there is nothing to learn", "", None


def _between(record: dict[str, Any]) -> Iterator[Advice]:
    """What sets of rows have to do with each other."""
    parts = {part["split"]: part for part in record["parts"] if "trouble" not in part}
    train = parts.get("train") or parts.get(None)
    if train is None:
        return
    if train.get("target") and "val" not in parts and train["rows"] >= 100:
        what = "there are no validation rows: a part of the training rows can be held out"
        yield {"kind": "advice", "split": train["split"], "what": what, "do": "--validation 0.1", "command": None}
    for split, part in parts.items():
        if part is train:
            continue
        what = ""
        known, here = (set(map(repr, one.get("target", {}).get("classes") or ())) for one in (train, part))
        if part["features"] != train["features"]:
            what = f"the {split} rows have {part['features']:,} features and the training rows {train['features']:,}"
        elif known and here - known:
            what = f"the {split} rows have classes that no training row has: {', '.join(sorted(here - known)[:_FEW])}"
        if what:
            yield {"kind": "error", "split": split, "what": what, "do": "", "command": None}


def _convert(record: dict[str, Any]) -> str:
    place = Path(record["path"])
    target = place.with_name(f"{place.name.removesuffix(place.suffix)}-new.h5")
    line = shlex.join(["gpubp", "convert", str(place), str(target)])
    return " ".join([line, *_asked(record, "split")])  # it converts all of them


def _listed(columns: Sequence[dict[str, Any]], adjective: str = "") -> str:
    """Such as ``columns 3 'pt' and 5 'eta'``."""
    texts = [f"{one['column']} {quoted(one['name'])}" if one["name"] else str(one["column"]) for one in columns[:_FEW]]
    noun = f"{adjective} column".strip() + ("s" if len(columns) > 1 else "")
    if len(columns) > _FEW:
        return f"{len(columns):,} {noun} ({', '.join(texts)} …)"
    return f"{noun} {', '.join(texts[:-1])} and {texts[-1]}" if len(texts) > 1 else f"{noun} {texts[0]}"


def _label(label: Any) -> str:
    return quoted(label) if isinstance(label, str) else str(label)


def _count(n: int, noun: str) -> str:
    return f"{n:,} {noun}{'s' if n != 1 else ''}"


def _are(n: int) -> str:
    return "is" if n == 1 else "are"


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %" if share < 0.995 else f"{100 * share:.0f} %"


def _fraction(share: float) -> str:
    return {0.5: "half", 0.25: "a quarter", 0.125: "an eighth"}.get(share, f"{share:.0%}")


def _size(count: float) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.3g} MB"
