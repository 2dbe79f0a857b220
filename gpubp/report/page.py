"""The page: one file, no script, nothing from elsewhere."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from .. import __version__
from . import sections
from .html import text
from .material import Material

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"


def html(m: Material, numbers: dict[str, Any]) -> str:
    """The whole page."""
    path = m.run.path
    name = os.path.basename(os.path.abspath(path))
    parts = sections.all_of(m)
    contents = "".join(f'<li><a href="#{id_}">{text(title)}</a></li>' for id_, title, _ in parts)
    body = "".join(
        f'<section id="{id_}" aria-labelledby="{id_}-title"><h2 id="{id_}-title">{text(title)}</h2>'
        f"{write(m, numbers)}</section>"
        for id_, title, write in parts
    )
    network = m.run.model.network
    head = f"{'-'.join(map(str, network.sizes))}, {network.activation}, {network.cost}, λ = {m.run.model.lambda_:g}"
    style = Path(__file__).with_name("page.css").read_text(encoding="utf-8")
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{text(name)}: gpubp report</title>
<style>
{style}</style>
</head>
<body>
<header>
<p class="kind">gpubp report</p>
<h1>{text(name)}</h1>
<p>{text(head)}</p>
<nav aria-label="Contents"><ul>{contents}</ul></nav>
</header>
<main>
{body}
</main>
<footer><p>Made by gpubp {text(__version__)} from {text(m.run.checkpoint.name)} of {text(path)}.</p></footer>
</body>
</html>
"""
