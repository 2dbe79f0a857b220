"""How an evaluation is shown to a person."""

from __future__ import annotations

from typing import Any

from ._options import of_split, table

_MOST_CLASSES = 20  # a larger confusion matrix is for --json


def evaluation_text(result: dict[str, Any]) -> str:
    """`gpubp.inference.evaluate`'s result in lines."""
    lines: list[tuple[str, Any]] = [
        ("rows", f"{result['rows']:,}{of_split(result.get('split'))}"),
        ("cost", f"{result['cost']:.6g}"),
    ]
    if "J" in result:
        lines.append((f"J, λ = {result['lambda']:g}", f"{result['J']:.6f}"))
    for key in ("accuracy", "exact"):
        if key in result:
            lines.append((key, f"{100 * result[key]:.2f} %"))
    for key in ("rmse", "r2"):
        if result.get(key) is not None:
            lines.append((key, f"{result[key]:.6g}"))
    text = table(lines)
    if "confusion" in result and len(result["classes"]) <= _MOST_CLASSES:
        text += "\n\n" + confusion_text(result["classes"], result["confusion"])
    return text


def confusion_text(classes: list[Any], counts: list[list[Any]]) -> str:
    """A row for each true class, a column for each predicted one."""
    names = [str(c) for c in classes]
    cells = [[f"{count:g}" for count in row] for row in counts]
    width = max(len(text) for row in [names, *cells] for text in row)
    first = max(len(name) for name in [*names, "true \\ predicted"])
    head = "true \\ predicted".ljust(first) + "".join(f"  {name:>{width}}" for name in names)
    return "\n".join(
        [head, *(n.rjust(first) + "".join(f"  {c:>{width}}" for c in row) for n, row in zip(names, cells, strict=True))]
    )
