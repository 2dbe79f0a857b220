"""docs/backpropagation.md says nothing that is not so: its commands are run, its numbers compared, its lines looked up.

``python tests/test_docs_backpropagation.py`` writes what the commands print now into the page, to be read before it is
kept.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "backpropagation.md"
PICTURE = PAGE.with_suffix(".svg")
TEXT = PAGE.read_text()
SOURCE = {line.strip() for line in (ROOT / "gpubp" / "backprop.py").read_text().splitlines()}
CONSOLE = re.compile(r"```console\n\$ (gpubp [^\n]*)\n(.*?)```", re.S)
COMMANDS = CONSOLE.findall(TEXT)
# of a finite difference and its error the last digits, and all of a relative error, are rounding
ROUNDING = re.compile(r"\d(\.\d+)?e-(0[89]|1\d)")


def printed(command: str) -> str:
    """What a command prints, without blanks at the ends of lines; behind a pipe ``head``, ``tail`` or ``grep``."""
    from in_process import ran

    words, _, pipe = command.partition(" | ")
    result = ran(*shlex.split(words)[1:])
    assert result.returncode == 0, result.stderr
    lines = [line.rstrip() for line in result.stdout.rstrip().splitlines()]
    match pipe.split():
        case ["head", "-n", count]:
            lines = lines[: int(count)]
        case ["tail", "-n", count]:
            lines = lines[-int(count) :]
        case ["grep", word]:
            lines = [line for line in lines if word in line]
        case ["grep", "-A", count, word]:
            at = next(i for i, line in enumerate(lines) if word in line)
            lines = lines[at : at + int(count) + 1]
        case other:
            assert not other
    return "".join(f"{line}\n" for line in lines)


def code_of(text: str) -> list[str]:
    """The lines of the page that are said to be those of backprop.py: in Python blocks without imports, and in the
    table."""
    blocks = [block for block in re.findall(r"```python\n(.*?)```", text, re.S) if "import" not in block]
    table = re.findall(r"\| `(backend\.[^`]*)` \|", text)
    return [*"".join(blocks).splitlines(), *table]


def without_rounding(text: str) -> str:
    """The text with its rounding errors, and the blanks that line them up, made alike."""
    return "\n".join(re.sub(r" +", " ", ROUNDING.sub("~", line)) for line in text.splitlines())


@pytest.mark.parametrize(("command", "shown"), COMMANDS, ids=[command for command, _ in COMMANDS])
def test_a_command_prints_what_is_shown(command, shown):
    assert without_rounding(printed(command)) == without_rounding(shown)


def test_each_line_of_code_is_one_of_backprop_and_all_of_them_are_there():
    lines = code_of(TEXT)
    assert len(lines) > 15 and [line for line in lines if line.strip() not in SOURCE] == []
    work = {line for line in SOURCE if line.startswith(("backend.gemm", "backend.apply", "backend.total"))}
    assert work == {line.strip() for line in lines}


def test_numbers_in_the_text_are_numbers_of_the_commands():
    prose = re.sub(r"```.*?```", "", TEXT, flags=re.S)
    numbers = re.findall(r"(?<![\w.])\d+\.\d\d+", prose)
    outputs = "".join(shown for _, shown in COMMANDS)
    assert [number for number in numbers if number not in outputs] == []
    assert len(COMMANDS) >= 7


def test_the_python_block_gives_the_gradient_that_is_shown():
    from gpubp.explain.seed import seed_example

    (block,) = (block for block in re.findall(r"```python\n(.*?)```", TEXT, re.S) if "import" in block)
    names: dict[str, object] = {}
    exec(block, names)
    e = seed_example()
    assert names["C"] == pytest.approx(e.C, rel=1e-14)
    for l in (1, 2, 3):
        np.testing.assert_allclose(names[f"D{l}"], e.gradient[l], rtol=1e-13)  # pyright: ignore


def test_the_readme_shows_the_same_sum():
    (block,) = re.findall(r"```text\n(δ.*?)```", (ROOT / "README.md").read_text(), re.S)
    assert block in printed("gpubp explain --example --unit 2:2")


def drawn(folder: Path) -> str:
    from in_process import ran

    path = folder / PICTURE.name
    assert ran("explain", "--example", "--svg", path, "--overwrite").returncode == 0
    return path.read_text()


def test_the_picture_is_what_the_command_draws(tmp_path):
    assert drawn(tmp_path) == PICTURE.read_text()
    assert f"`gpubp explain --example --svg {PICTURE.name}`" in TEXT


def test_the_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)#]+)\)", TEXT):
        assert (PAGE.parent / target).exists(), target
    headings = {
        re.sub(r"[^\w\- ]", "", line.lstrip("# ").lower()).replace(" ", "-")
        for line in TEXT.splitlines()
        if line.startswith("#")
    }
    for anchor in re.findall(r"\]\(#([^)]+)\)", TEXT):
        assert anchor in headings


if __name__ == "__main__":
    drawn(PICTURE.parent)
    PAGE.write_text(CONSOLE.sub(lambda found: f"```console\n$ {found[1]}\n{printed(found[1])}```", TEXT))
