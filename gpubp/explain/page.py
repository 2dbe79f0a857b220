"""An explanation as one HTML file: the drawing to explore, every number and every sum below it; nothing from elsewhere.

Without scripts and on paper the drawing, the tables and the sums are all there; the script writes nothing that they do
not say, it brings together what belongs to a unit.
"""

from __future__ import annotations

import json
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from ..results import put, refuse_no_folder
from .fold import Fold
from .layout import By, input_name, layout, short_example
from .notation import as_html, cost_name, number
from .plain import name_of, plain
from .record import Explanation
from .sums import Equation, backward, forward, html_of, literal_meaning, literal_sum, meaning
from .svg import render

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"


def write(
    e: Explanation, fold: Fold, path: str | Path, by: By = "theta", checked: Any = None, *, literal: bool = False
) -> None:
    """Put the page into a file, which is replaced when the page is whole.

    Args:
        by, checked, literal: as `html`.

    Raises:
        UsageError: as `gpubp.explain.layout.layout`.
        DataError: no such folder, or the file cannot be written.
    """
    path = Path(path)
    refuse_no_folder(path)
    put(path, html(e, fold, by, checked, literal=literal).encode())


def html(e: Explanation, fold: Fold, by: By = "theta", checked: Any = None, *, literal: bool = False) -> str:
    """The page.

    Args:
        by: what makes an edge thick: "theta" |Θ|, "contribution" |Θ·a|.
        checked: the slopes that were measured, see `gpubp.explain.slopes`; None where they were not.
        literal: also the course's recursion without g′.

    Raises:
        UsageError: as `gpubp.explain.layout.layout`.
    """
    drawing = layout(e, fold, by, title=False)
    # at eight tenths of its size the smallest words can still be read; narrower it scrolls in its frame
    style = f'style="min-width:{0.8 * drawing.width:.0f}px;max-width:{1.25 * drawing.width:.0f}px"'
    svg = render(drawing, live=True).replace("<svg ", f"<svg {style} ", 1)
    slopes = {} if checked is None else dict(checked.units)
    data = json.dumps(plain(e, fold), ensure_ascii=False, separators=(",", ":")).replace("</", "<\\/")
    title = f"Every δ of {short_example(e.names.example) or 'one example'}"
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>
{_file("page.css")}</style>
</head>
<body>
<a class="skip" href="#numbers">Skip the drawing</a>
<header>
<h1>{escape(title)}</h1>
{_introduction(e)}
</header>
<main>
<div class="look">
<div class="drawing">
{svg}</div>
{_panel(e)}
</div>
<section id="numbers">
<h2>Units</h2>
{"".join(_table(e, fold, l, slopes, literal) for l in range(1, e.L + 1))}
</section>
<section>
<h2>Sums</h2>
{_reading(e, literal)}
<div class="all">
{"".join(_article(e, fold, l, j, slopes, literal) for l in range(e.L, 1, -1) for j in fold.shown[l])}</div>
</section>
</main>
<footer><p>Made by gpubp. Nothing on this page comes from elsewhere; its numbers are also in it as JSON.</p></footer>
<script type="application/json" id="data">{data}</script>
<script>
{_file("page.js")}</script>
</body>
</html>
"""


def _file(name: str) -> str:
    return files("gpubp.explain").joinpath(name).read_text("utf-8")


def _introduction(e: Explanation) -> str:
    names, network = e.names, e.network
    sizes = "-".join(map(str, network.sizes))
    hidden = f", hidden units {network.activation}" * (e.L > 2)
    what = f"<strong>{sizes}</strong>{hidden}, cost {network.cost}"
    said = [f"{what}: {escape(names.network)}" if names.network else what]
    said += [escape(names.example)] if names.example != short_example(names.example) else []
    answers = [f"wanted <strong>{escape(names.truth)}</strong>"] if names.truth else []
    answers += [f"the network's answer <strong>{escape(names.answer)}</strong>"] if names.answer else []
    answers.append(f"{cost_name(e)} = <strong>{number(e.C)}</strong>")
    said.append("; ".join(answers))
    first, *others = map(as_html, meaning(e))
    said += [f"δ = ∂{cost_name(e)}/∂z; {first}.", *(f"{line[0].upper()}{line[1:]}." for line in others)]
    return "\n".join(f"<p>{line}</p>" for line in said)


def _panel(e: Explanation) -> str:
    hidden = e.L > 2
    way = "back" if hidden else "forth"
    return f"""<aside id="panel" aria-label="A unit's sum" data-way="{way}">
<fieldset><legend>Follow</legend>
<label><input type="radio" name="way" value="back"{" checked" * hidden}> δ, backward</label>
<label><input type="radio" name="way" value="forth"{" checked" * (not hidden)}> z and a, forward</label></fieldset>
<div id="sum" aria-live="polite"><p class="hint">Point at a unit, or move to one with Tab and the arrow keys: its sum is
written here, term by term, and its edges light up. A click or Enter pins it, Escape releases it. Then point at a term,
or at an edge.</p></div>
<div id="bars"></div>
<div id="edge" aria-live="polite"></div>
</aside>"""


def _reading(e: Explanation, literal: bool) -> str:
    if e.L == 2:
        return ""
    c = cost_name(e)
    s, a, z = (as_html(f"{letter}_j") for letter in "saz")
    said = [
        f"With exact δ's to the right the plain weighted sum, in parentheses, is {s} = ∂{c}/∂{a}: what the cost does "
        f"as the unit's activation moves. Times g′({z}) it is ∂{c}/∂{z} = δ."
    ]
    said += [f"Literal is {' '.join(map(as_html, literal_meaning(e)))}"] * literal
    return "\n".join(f'<p class="reading">{words}</p>' for words in said)


def _table(e: Explanation, fold: Fold, l: int, slopes: dict[Any, Any], literal: bool) -> str:
    names = {j: input_name(e, j) if l == 1 else name_of(e, l, j) for j in fold.shown[l]}
    named = any(names.values())
    columns: list[tuple[str, np.ndarray]] = []
    if l == 1:
        columns += [("x", e.x)] * (not np.array_equal(e.x, e.a[1])) + [("a", e.a[1])]
    else:
        columns += [("z", e.z[l]), ("a", e.a[l])]
        columns += [("s", e.s[l]), ("g′(z)", e.slope[l])] if l < e.L else [("y", e.y)]
        columns += [("δ", e.delta[l])] + [("literal", e.literal()[l])] * literal
    measured = l > 1 and bool(slopes)
    heads = ["unit"] + ["name"] * named + [name for name, _ in columns]
    heads += [f"measured ∂{cost_name(e)}/∂z", "relative error", "verdict"] if measured else []
    rows = ["".join(f'<th scope="col"{_left(head)}>{head}</th>' for head in heads)]
    for j in fold.shown[l]:
        cells = [f'<th scope="row">{j}</th>'] + [f'<td class="name">{escape(names[j])}</td>'] * named
        cells += [f"<td>{number(float(column[j - 1]))}</td>" for _, column in columns]
        if measured:
            one = slopes.get((l, j))
            cells += [f"<td>{text}</td>" for text in (_measured(one) if one else ("", "", ""))]
        rows.append("".join(cells))
    if hidden := fold.hidden(l):
        rows.append(f'<td colspan="{len(heads)}" class="name">… {hidden:,} more</td>')
    name = "input" if l == 1 else "output" if l == e.L else "hidden"
    body = "\n".join(f"<tr>{row}</tr>" for row in rows[1:])
    return (
        f'<div class="wide"><table><caption>Layer {l}, {name}</caption>\n'
        f"<thead><tr>{rows[0]}</tr></thead>\n<tbody>{body}</tbody></table></div>\n"
    )


def _left(head: str) -> str:
    return ' class="name"' if head == "name" else ""


def _measured(one: Any) -> tuple[str, str, str]:
    return number(float(one.slope)), number(float(one.error), 2), escape(str(one.verdict))


def _article(e: Explanation, fold: Fold, l: int, j: int, slopes: dict[Any, Any], literal: bool) -> str:
    name = name_of(e, l, j)
    title = f"Unit {j} of layer {l}" + (f": {escape(name)}" if name else "")
    check = ""
    if one := slopes.get((l, j)):
        slope, error, verdict = _measured(one)
        check = (
            f'<p class="check back">Measured: ∂{cost_name(e)}/∂z = {slope}, relative error {error}: '
            f'<span class="verdict">{verdict}</span></p>\n'
        )
    equations = backward(e, l, j, fold.split)
    if literal and l < e.L:
        equations.append(literal_sum(e, l, j, fold.split))
    cost = f'<p class="note">Cost and output: C = {as_html(e.network.J.formula)}</p>\n' if l == e.L else ""
    return (
        f'<article id="unit-{l}-{j}">\n<h3>{title}</h3>\n{_set(equations, "back")}{check}'
        f"{_set(forward(e, l, j, fold.split), 'forth')}{cost}</article>\n"
    )


def _set(equations: list[Equation], way: str) -> str:
    """Each name = its first side, and the others below it."""
    inner = ""
    for name, (first, *others) in equations:
        inner += f"<p>{as_html(name)} = {html_of(first)}</p>"
        inner += "".join(f'<p class="side">= {html_of(side)}</p>' for side in others)
    return f'<div class="formula {way}">{inner}</div>\n'
