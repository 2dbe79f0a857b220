"""The few elements that a page is made of; every text goes through `text`, whatever it holds."""

from __future__ import annotations

import html as _html
import math
from collections.abc import Iterable, Sequence
from typing import Any


def text(value: Any) -> str:
    """Text as it may stand in a page."""
    return _html.escape(str(value), quote=True)


def figure_of(value: Any) -> str:
    """A number or a word for a person: six digits, "–" for nothing."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{int(value):,}" if value == int(value) and 1000 <= abs(value) < 1e15 else f"{value:.6g}"
    if isinstance(value, list | tuple):
        return ", ".join(map(figure_of, value))
    return str(value)


def percent(value: float | None) -> str:
    """A share in hundredths."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"{100 * value:.2f} %" if value == 0 or value >= 1e-4 else f"{100 * value:.1g} %"


def data(key: str, value: Any, shown: str) -> str:
    """A number under the name that it has in --json, with all its digits for machines."""
    return f'<data data-key="{text(key)}" value="{text("" if value is None else value)}">{text(shown)}</data>'


def paragraph(words: str, kind: str = "") -> str:
    """A paragraph of plain text."""
    return f"<p{f' class={chr(34)}{kind}{chr(34)}' if kind else ''}>{text(words)}</p>"


def code(words: str) -> str:
    """A command to be copied."""
    return f'<pre tabindex="0"><code>{text(words)}</code></pre>'


def table(head: Sequence[str], rows: Iterable[Sequence[Any]], caption: str) -> str:
    """A table whose first column names the rows; numbers stand to the right. It scrolls by itself where it is wide."""
    body = []
    for first, *others in rows:
        cells = "".join(
            f'<td class="{"n" if isinstance(one, int | float) or one is None else "t"}">{_cell(one)}</td>'
            for one in others
        )
        body.append(f'<tr><th scope="row">{_cell(first)}</th>{cells}</tr>')
    top = "".join(f'<th scope="col">{text(one)}</th>' for one in head)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{text(caption)}"><table><caption>{text(caption)}'
        f"</caption><thead><tr>{top}</tr></thead><tbody>{''.join(body)}</tbody></table></div>"
    )


def pairs(rows: Iterable[tuple[str, Any]]) -> str:
    """Names and values, one below the other."""
    lines = "".join(f"<dt>{text(name)}</dt><dd>{_cell(value)}</dd>" for name, value in rows)
    return f'<dl class="pairs">{lines}</dl>'


def cards(rows: Iterable[tuple[str, str]]) -> str:
    """The few numbers that matter most; values come as elements."""
    return f'<dl class="cards">{"".join(f"<div><dt>{text(n)}</dt><dd>{v}</dd></div>" for n, v in rows)}</dl>'


def details(summary: str, inside: str) -> str:
    """What is there for who asks."""
    return f"<details><summary>{text(summary)}</summary>{inside}</details>"


class Raw(str):
    """An element already."""


def _cell(value: Any) -> str:
    return value if isinstance(value, Raw) else text(figure_of(value))
