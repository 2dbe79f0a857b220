"""How `info` shows what a data file, a run or this machine is."""

from __future__ import annotations

from typing import Any

from ._options import table

_MOST_CLASSES = 20  # more are for --json


def plain(value: Any) -> str:
    """A value for a person: six digits, "-" for nothing, a list one by one."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        return "; ".join(map(plain, value))
    return f"{value:,}" if isinstance(value, int) else str(value)


def file_text(result: dict[str, Any]) -> str:
    """`gpubp.data.dataset.describe_file`'s record in lines."""
    parts = [table([("file", result["path"]), ("size", f"{result['bytes']:,} bytes"), *result["attributes"].items()])]
    parts.append("datasets:\n" + "\n".join("  " + _dataset(record) for record in result["datasets"]))
    for part in result["parts"]:
        parts.append(_part(part))
    return "\n\n".join(parts)


def _dataset(record: dict[str, Any]) -> str:
    if "shape" not in record:
        return f"{record['name']}: {record['trouble']}"
    shape = " x ".join(f"{n:,}" for n in record["shape"]) or "one value"
    layout = f"chunks {' x '.join(map(str, record['chunks']))}" if record["chunks"] else "contiguous"
    words = [f"{record['name']:<12} {shape:>16}  {record['dtype']:<8} {layout}"]
    if record["compression"]:
        words.append(record["compression"])
    if record["trouble"]:
        words.append(record["trouble"])
    return ", ".join(words)


def _part(part: dict[str, Any]) -> str:
    title = f"{part['split']} rows:" if part["split"] else "rows:"
    if "trouble" in part:
        return f"{title}\n  {part['trouble']}"
    lines = [("X", f"{part['x']}, {part['rows']:,} rows of {part['features']:,} features ({part['dtype']})")]
    if part["y"]:
        target = part.get("target", {})
        lines.append(("y", f"{part['y']}, {target.get('says', '')}; --cost auto takes {target.get('cost', '?')}"))
        classes, counts = target.get("classes"), target.get("counts")
        if classes and counts and len(classes) <= _MOST_CLASSES:
            lines.append(("classes", ", ".join(f"{c}: {n:,}" for c, n in zip(classes, counts, strict=True))))
    if part["weights"]:
        lines.append(("weights", part["weights"]))
    return title + "\n" + "\n".join("  " + line for line in table(lines).splitlines())
