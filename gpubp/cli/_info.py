"""How `info` shows what a data file, a run or this machine is."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

from ._options import table

_WIDTH = 100
_MOST_CLASSES = 20  # more are for --json, and so are more datasets, attributes and columns
_MOST_DATASETS = 40
_MOST_ATTRIBUTES = 12
_MOST_COLUMNS = 20
_TINY = 1 << 20  # bytes of rows that are read too soon to tell a speed
PROVENANCE = {
    *("command", "content", "converted_by", "created", "digest", "history", "layout"),
    *("source", "source_bytes", "source_format", "source_sha256"),
}
_HEADS = {"error": "to fix", "advice": "worth doing", "note": "good to know"}


def plain(value: Any) -> str:
    """A value for a person: six digits, "-" for nothing, a list one by one."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        return "; ".join(map(plain, value))
    return f"{value:,}" if isinstance(value, int) else str(value)


def size(count: float) -> str:
    """Bytes in three digits: ``3.92 MB``."""
    for unit, each in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= 0.9995 * each:
            return f"{_three(count / each)} {unit}"
    return f"{count:.0f} bytes"


def duration(seconds: float) -> str:
    """A time as a person says it: ``1.5 ms``, ``4 min``."""
    if seconds >= 5400:
        return f"{seconds / 3600:.1f} h"
    if seconds >= 90:
        return f"{seconds / 60:.0f} min"
    if seconds >= 1:
        return f"{_three(seconds)} s"
    return f"{_three(seconds * 1e3)} ms" if seconds >= 1e-3 else "less than a millisecond"


def file_text(result: dict[str, Any]) -> str:
    """`gpubp.data.report.describe_file`'s record for a person."""
    from ..data.advice import train_command

    command = train_command(result)
    result = _printable(result)
    head = [f"{result['path']}   HDF5, {size(result['bytes'])}"]
    attributes = list(result["attributes"].items())
    if "converted_by" in result["attributes"]:
        head.append(_origin(result["attributes"]))
        attributes = [(name, value) for name, value in attributes if name not in PROVENANCE]
    if attributes:
        head += table([(name, _cut(plain(value))) for name, value in attributes[:_MOST_ATTRIBUTES]]).splitlines()
    if len(attributes) > _MOST_ATTRIBUTES:
        head.append(f"… and {len(attributes) - _MOST_ATTRIBUTES} more attributes (--json)")
    if result["checksums"]:
        head.append(f"checksums: yes, of {', '.join(result['checksums'][:_MOST_ATTRIBUTES])}")
    blocks = ["\n".join(head), _datasets(result["datasets"])]
    blocks += [_part(part) for part in result["parts"] if "rows" in part]  # the advice begins with the others' trouble
    if result["advice"]:
        blocks.append(_advice(result["advice"], several=len(result["parts"]) > 1))
    if command is not None:
        blocks.append(f"train with\n  {_printable(command)}")
    return "\n\n".join(block for block in blocks if block)


def _origin(made: dict[str, Any]) -> str:
    """Where a file comes from that `convert` wrote: the least of what it noted (--json has all of it)."""
    kind = f" ({made['source_format']})" if "source_format" in made else ""
    of = f"{plain(made.get('source'))}{kind}"
    when = f", {plain(made['created'])}" if "created" in made else ""
    return f"made from {of} by {plain(made['converted_by'])}{when}"


def _datasets(records: list[dict[str, Any]]) -> str:
    if not records:
        return "datasets: none"
    known, lines = [one for one in records if "shape" in one], []
    rows = [(_cut(one["name"], 40), _shape(one["shape"]), _cut(_type(one), 40), _layout(one), _kept(one))
            for one in known[:_MOST_DATASETS]]  # fmt: skip
    for one, line in zip(known, aligned(rows, "<><<>"), strict=False):
        lines.append(line)
        if one["trouble"]:
            lines += _wrapped(one["trouble"], "    refused: ")
    for one in (one for one in records if "shape" not in one):
        lines += _wrapped(f"{one['name']} {one['trouble']}", "  refused: ")
        if len(lines) > 2 * _MOST_DATASETS:
            break
    if len(records) > _MOST_DATASETS:
        lines.append(f"  {len(records):,} names in all (--json lists them)")
    return "datasets\n" + "\n".join(lines)


def _type(record: dict[str, Any]) -> str:
    return f"{len(record['fields'])} fields" if record["fields"] else record["dtype"]


def _layout(record: dict[str, Any]) -> str:
    words = [f"chunks of {_shape(record['chunks'])}" if record["chunks"] else record["layout"]]
    for one in record["filters"]:
        name = {"deflate": "gzip"}.get(one["name"], one["name"] or f"filter {one['code']}")
        level = f" {one['options'][0]}" if one["name"] == "deflate" and one["options"] else ""
        words.append(_cut(f"{name}{level}", 30))
    return ", ".join(words)


def _kept(record: dict[str, Any]) -> str:
    """Bytes in the file, and how much smaller than the values."""
    stored, declared = record["stored"], record["declared"]
    if record["filters"] and stored and declared:
        return f"{size(stored)} ({declared / stored:.1f} : 1)"
    return size(stored)


def _part(part: dict[str, Any]) -> str:
    title = f"{part['split']} rows" if part["split"] else "rows"
    lines = [("X", f"{part['x']}: {part['rows']:,} rows of {part['features']:,} features, {part['dtype']}")]
    if part["y"]:
        lines += _target(part["y"], part.get("target") or {})
    else:
        lines.append(("y", "none"))
    if part["weights"]:
        lines.append(("weights", f"{part['weights']}: {_weights(part['weighing'])}"))
    if "reading" in part:
        lines += _reading(part["reading"])
    if "skipped" in part:
        seconds = part["skipped"]["seconds"]
        lines.append(("values", f"not looked at: reading all rows takes about {duration(seconds)}; --full does"))
    if "values" in part:
        lines.append(("values", _values(part)))
    if "trouble" in part:
        lines.append(("", part["trouble"]))
    width = max(len(name) for name, _ in lines)
    text = [title]
    for name, value in lines:
        text += _wrapped(value, f"  {name:<{width}}  ")
    if "columns" in part:
        text += _columns(part)
    return "\n".join(text)


def _target(name: str, target: dict[str, Any]) -> list[tuple[str, str]]:
    if "trouble" in target:
        return [("y", f"{name}: {target['stored']}"), ("", target["trouble"])]
    outputs = _some(target["outputs"], "output")
    lines = [("y", f"{name}: {target['says']}; the cost is {target['cost']}, the network has {outputs}")]
    balance = target.get("balance")
    if balance:
        if "counts" in target and len(target["counts"]) <= _MOST_CLASSES:
            pairs = zip(target["classes"], target["counts"], strict=True)
            shown = (_together(f"{_cut(str(label), 30)}: {count:,}") for label, count in pairs)
            lines.append(("classes", "   ".join(shown)))
        if balance["ratio"] == 1:
            return [*lines, ("balance", f"even: {balance['largest']['rows']:,} rows of each class")]
        ends = [f"{word} {_cut(str(one['class']), 30)} ({100 * one['share']:.3g} %, {one['rows']:,} rows)"
                for word, one in (("largest", balance["largest"]), ("smallest", balance["smallest"]))]  # fmt: skip
        lines.append(("balance", f"{_evenness(balance['ratio'])}: {', '.join(ends)}"))
    for k, one in enumerate((target.get("range") or [])[:_MOST_CLASSES]):
        which = f"y {k}" if len(target["range"]) > 1 else "range"
        lines.append((which, f"{plain(one['min'])} … {plain(one['max'])}, mean {plain(one['mean'])},"
                             f" deviation {plain(one['std'])}"))  # fmt: skip
    shares = target.get("shares")
    if shares:
        shown = "   ".join(_together(f"{k}: {100 * share:.3g} %") for k, share in enumerate(shares[:_MOST_CLASSES]))
        lines.append(("yes", shown + ("   …" if len(shares) > _MOST_CLASSES else "")))
    return lines


def _evenness(ratio: float) -> str:
    if ratio < 1.05:
        return "even"
    return next((word for most, word in ((1.5, "nearly even"), (3, "somewhat uneven"), (10, "uneven")) if ratio < most),
                f"very uneven, {ratio:,.0f} : 1")  # fmt: skip


def _weights(found: dict[str, Any]) -> str:
    zeros = f", {found['zeros']:,} are zero" if found["zeros"] else ""
    return f"{plain(found['min'])} … {plain(found['max'])}, sum {plain(found['sum'])}{zeros}"


def _reading(found: dict[str, Any]) -> list[tuple[str, str]]:
    once = f"all {size(found['bytes'])} in {duration(found['seconds'])}"
    if found["bytes"] < _TINY:
        return [("a pass", f"{once}, {found['way']}; they fit in memory and are kept after the first pass")]
    share = found["cached"]
    where = (
        ""
        if share is None
        else {1.0: ": in the page cache", 0.0: ": not in the page cache"}.get(
            share, f": {100 * share:.0f} % in the page cache"
        )
    )
    raw = f"; plain pread of the same rows' bytes {size(found['raw'])}/s" if found["raw"] else ""
    speed = f"{size(found['rate'])}/s, {found['way']}{raw} (measured as the file lay{where})"
    if found["kept"]:
        then = f"; they fit in memory ({size(found['budget'])} for rows) and are kept after the first pass"
    else:
        again = size(found["bytes"] - found["budget"])
        then = f"; more than the {size(found['budget'])} for rows in memory: {again} are read in every pass"
    return [("speed", speed), ("a pass", once + then)]


def _values(part: dict[str, Any]) -> str:
    values = part["values"]
    if "min" not in values:
        return "none is a finite number"
    words = [f"{figure(values['min'])} … {figure(values['max'])}, mean {figure(values['mean'])}"]
    if values["missing"]:
        share = 100 * values["rows_missing"] / part["rows"]
        words.append(f"{values['missing']:,} missing (NaN) in {_some(values['rows_missing'], 'row')} ({share:.2g} %)")
    else:
        words.append("none missing")
    if values["infinite"]:
        words.append(f"{values['infinite']:,} infinite")
    if values["constant"]:
        words.append(_some(len(values["constant"]), "constant column"))
    if part["dtype"].startswith("float") and values["whole"]:
        which = "all are" if values["whole"] == part["features"] else f"those of {_some(values['whole'], 'column')} are"
        words.append(f"{which} whole numbers")
    return "; ".join(words)


def _columns(part: dict[str, Any]) -> list[str]:
    """The first columns and those that something is to be said about; none of images."""
    from ..data.advice import mark_of

    columns, constant = part["columns"], set(part["values"]["constant"])

    twins = {k: group[0] for group in part["values"]["may_be_equal"] for k in group[1:]}

    def word(one: dict[str, Any]) -> str:
        words = [f"{one[name]:,} {name}" for name in ("missing", "infinite") if one[name]]
        if one["column"] in constant:
            words.append("constant")
        elif part["dtype"].startswith("float") and one["whole"] and part["values"]["whole"] < part["features"]:
            words.append("whole numbers")
        if (mark := mark_of(one)) is not None:
            words.append(f"{mark:g} a mark?")
        if one["column"] in twins:
            words.append(f"as column {twins[one['column']]}?")
        return ", ".join(words)

    if part["dtype"] in ("uint8", "int8") and len(columns) > 3 * _MOST_COLUMNS:
        chosen = []  # images: a pixel by itself tells nothing
    else:
        grave = [one for one in columns if word(one) not in ("", "whole numbers")][: _MOST_COLUMNS // 2]
        marked = {one["column"] for one in grave}
        first = [one for one in columns if one["column"] not in marked]
        chosen = [*grave, *first[: _MOST_COLUMNS - len(grave)]]
    shown = sorted(chosen, key=lambda one: one["column"])
    if not shown:
        return []
    named = any(one["name"] for one in shown)
    rows = [("column", "name" if named else "", "min", "max", "mean", "deviation", "")]
    for one in shown:
        low, high, mean, std = (figure(one[key]) for key in ("min", "max", "mean", "std"))
        rows.append((str(one["column"]), _cut(one["name"] or "", 24), low, high, mean, std, word(one)))
    if not named:
        rows = [(number, *rest) for number, _, *rest in rows]
    lines = ["", *aligned(rows, "><>>>><" if named else ">>>>><")]
    if len(columns) > len(shown):
        lines.append(f"  {len(columns):,} columns in all (--json has every one)")
    return lines


def _advice(found: list[dict[str, Any]], *, several: bool) -> str:
    blocks = []
    for kind, head in _HEADS.items():
        lines = []
        seen: set[tuple[Any, ...]] = set()
        for one in (one for one in found if one["kind"] == kind):
            of = f"{one['split']}: " if several and one["split"] else ""
            if one["command"] and (one["command"],) in seen:
                lines[-1:] = [*_wrapped(f"{of}{one['what']}", "  - "), lines[-1]]
                continue
            lines += _wrapped(f"{of}{one['what']}", "  - ")
            if one["do"]:
                lines += _wrapped(one["do"], "      ")
            if one["command"]:
                seen.add((one["command"],))
                lines.append(f"      {one['command']}")
        if lines:
            blocks.append(head + "\n" + "\n".join(lines))
    return "\n\n".join(blocks)


def figure(value: Any) -> str:
    """A number of a table in four digits, without noise; whole numbers as they are."""
    if value is None:
        return "-"
    if isinstance(value, int) or (value == int(value) and abs(value) < 1e9):
        return f"{int(value):,}"
    if not 1e-3 <= abs(value) < 1e6:
        return f"{value:.3e}"
    return f"{value:,.4g}" if abs(value) < 1e4 else f"{value:,.0f}"


def aligned(rows: Sequence[tuple[str, ...]], sides: str) -> list[str]:
    """Lines of a table; `sides` has ``<`` or ``>`` for each column."""
    widths = [max(len(row[k]) for row in rows) for k in range(len(sides))]
    lines = ("  ".join(f"{cell:{side}{width}}" for cell, side, width in zip(row, sides, widths, strict=True))
             for row in rows)  # fmt: skip
    return [f"  {line}".rstrip() for line in lines]


def _wrapped(text: str, head: str) -> list[str]:
    """Lines of the text after `head`; what `_together` joined stays on one."""
    lines = textwrap.wrap(
        text,
        _WIDTH,
        initial_indent=head,
        subsequent_indent=" " * len(head),
        break_long_words=False,
        break_on_hyphens=False,
    )
    return [line.replace("\0", " ") for line in lines] or [head.rstrip()]


def _together(words: str) -> str:
    return words.replace(" ", "\0")


def _shape(shape: list[int]) -> str:
    return " x ".join(f"{n:,}" for n in shape) or "one value"


def _three(value: float) -> str:
    return f"{value:.3g}" if value < 999.5 else f"{value:,.0f}"


def _some(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _cut(text: str, most: int = 78) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _printable(value: Any) -> Any:
    """The same record, with what a terminal would obey in its texts written as an escape: `\\x1b`."""
    if isinstance(value, str):
        return value if value.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in value)
    if isinstance(value, dict):
        return {_printable(name): _printable(one) for name, one in value.items()}
    return [_printable(one) for one in value] if isinstance(value, list | tuple) else value
