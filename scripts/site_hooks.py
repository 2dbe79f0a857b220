"""What MkDocs cannot do by itself for our site: documents from above docs/, their links, formulas.

Documents are written for a reader of the repository: README.md lies at its top, links go from file to file. Here they
are brought into the site as they stand, links are turned to where each file is there, and a linked file of code gets a
page. Formulas between dollars become MathML, which browsers draw themselves.
"""

from __future__ import annotations

import html
import posixpath
import re
import sys
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
# where a document of the repository is in the site; those of docs/ keep their names
PLACES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "NOTES.md": "notes.md",
    "SECURITY.md": "security.md",
    "docker/README.md": "images.md",
}
HOMES = {there: here for here, there in PLACES.items()}
LANGUAGES = {".py": "python", ".sh": "bash", ".md": "markdown", ".toml": "toml", ".yml": "yaml", ".cu": "cuda"}
FENCE = re.compile(r"^(```|~~~).*?^\1[`~]*$", re.M | re.S)
LINK = re.compile(r"(\]\()([^)\s]+)(\))")
NAMES = "<mi>(?:log|exp|max|min)</mi>"
PRIME = '<mo lspace="0" rspace="0">&#x02032;</mo>'
THIN = '<mspace width="0.17em"/>'
MATH = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.S)


def on_files(files: Files, config: Any) -> Files:
    """Bring in the documents from above docs/, the page of commands, and a page for each file that is linked."""
    for here, there in PLACES.items():
        files.append(File.generated(config, there, abs_src_path=str(ROOT / here)))
    files.append(File.generated(config, "commands.md", content=commands()))
    linked = {target for file in files.documentation_pages() for target in targets(home(file.src_uri))}
    for target in sorted(linked):
        if place(target).startswith("source/"):
            files.append(File.generated(config, place(target), content=source_page(target)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Turn links between files of the repository to where these are in the site."""
    here = home(page.file.src_uri)

    def turned(match: re.Match[str]) -> str:
        path, mark, anchor = match[2].partition("#")
        target = resolved(here, path)
        if target is None:
            return match[0]
        there = posixpath.relpath(place(target), posixpath.dirname(page.file.src_uri) or ".")
        return f"{match[1]}{there}{mark}{anchor}{match[3]}"

    return outside_fences(markdown, lambda text: LINK.sub(turned, text))


def on_page_content(content: str, **_: Any) -> str:
    """Make MathML of the formulas."""
    return MATH.sub(lambda match: mathml(html.unescape(match[2]), block=match[1] == "div"), content)


def home(uri: str) -> str:
    """Where a page of the site is in the repository."""
    return HOMES.get(uri, f"docs/{uri}")


def place(path: str) -> str:
    """Where a file of the repository is in the site."""
    if path in PLACES:
        return PLACES[path]
    return path.removeprefix("docs/") if path.startswith("docs/") else f"source/{path}.md"


def resolved(here: str, link: str) -> str | None:
    """The file of the repository that a link in the document `here` means; None for anything else."""
    if not link or "://" in link or link.startswith("mailto:"):
        return None
    path = posixpath.normpath(posixpath.join(posixpath.dirname(here), link))
    return path if (ROOT / path).is_file() else None


def targets(here: str) -> set[str]:
    """The files of the repository that the document `here` links to; none where it is made, and not a file."""
    if not here.endswith(".md") or not (ROOT / here).is_file():
        return set()
    text = FENCE.sub("", (ROOT / here).read_text())
    return {target for match in LINK.finditer(text) if (target := resolved(here, match[2].partition("#")[0]))}


def outside_fences(text: str, change: Any) -> str:
    """`change` applied to all of a document but its blocks of code."""
    parts, at = [], 0
    for fence in FENCE.finditer(text):
        parts += [change(text[at : fence.start()]), fence[0]]
        at = fence.end()
    return "".join([*parts, change(text[at:])])


def source_page(path: str) -> str:
    """A file of the repository as a page."""
    language = LANGUAGES.get(Path(path).suffix, "text")
    return f'# `{path}`\n\n~~~~~~{language} linenums="1"\n{(ROOT / path).read_text()}\n~~~~~~\n'


def commands() -> str:
    """Every command's own help, one after the other."""
    sys.path.insert(0, str(ROOT))
    import click

    from gpubp.cli._main import cli

    lines = ["# Commands", "", "What `gpubp COMMAND --help` says. Each also takes `--json`.", ""]
    root = click.Context(cli, info_name="gpubp")
    for name in cli.list_commands(root):
        command = cli.get_command(root, name)
        assert command
        context = click.Context(command, info_name=name, parent=root, terminal_width=90)
        lines += [f"## gpubp {name}", "", "```text", command.get_help(context), "```", ""]
    return "\n".join(lines)


def mathml(tex: str, *, block: bool) -> str:
    """A formula as MathML. What the converter does not know of TeX's spacing is put right here."""
    tex = re.sub(r"\\mathrel\{(.)\}", r"\1", tex.strip())
    text = convert(tex, display="block" if block else "inline")
    # "+=" is one sign, a fraction's stroke and bars stand close, a prime is small already
    text = text.replace("<mo>&#x0002B;</mo><mo>&#x0003D;</mo>", "<mo>+=</mo>")
    text = re.sub(r"<mo( [^>]*)?>(/|\||&#x0002F;|&#x0007C;)</mo>", r'<mo\1 lspace="0" rspace="0">\2</mo>', text)
    text = re.sub(r"<msup>(<mi>\w+</mi>)<mi>&#x02032;</mi></msup>", rf"\1{PRIME}", text)
    # a function's name stands apart from its argument and from what is before it
    text = re.sub(rf"(</mi>|29;</mo>)(?={NAMES})", rf"\1{THIN}", text)
    return re.sub(rf"({NAMES})(?=<m[in]>)", rf"\1{THIN}", text)
