"""The documentation as a site: it is built without a warning, and read from a folder, with no network."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from running import ROOT

for module in ("mkdocs", "material", "mkdocstrings", "latex2mathml"):
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not installed (extra docs)", allow_module_level=True)

README = (ROOT / "README.md").read_text()


def built(place: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """The site of this checkout in a folder. (With --quiet there would be no warning for --strict to count.)"""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.run(
        [sys.executable, "-P", "-m", "mkdocs", "build", "--strict", "-d", str(place), *options],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("site")
    done = built(place)
    assert done.returncode == 0 and "WARNING" not in done.stderr, done.stderr
    return place


def test_nothing_is_loaded_from_elsewhere(site: Path):
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 15
    loaded = r'<(?:script|img|iframe|source)[^>]*\ssrc="?([^"\s>]+)|<link[^>]*\shref="?([^"\s>]+)'
    for page in pages:
        for pair in re.findall(loaded, page.read_text()):
            link = pair[0] or pair[1]
            assert not re.match(r"(https?:)?//", link), f"{page.name} loads {link}"
    for sheet in site.rglob("*.css"):
        assert not re.search(r"(@import|url\()\s*[\"']?(https?:)?//", sheet.read_text()), sheet.name


def test_every_document_is_in_it_as_it_stands(site: Path):
    for page, words in {
        "index.html": "Two commands",
        "changelog.html": "Unreleased",
        "notes.html": "what was tried, with numbers",
        "contributing.html": "One place to touch",
        "security.html": "What is trusted",
        "images.html": "One Dockerfile",
        "checkpoint-format.html": "The user block",
        "faults.html": "What can go wrong",
        "licences.html": "h5py",
        "reference/index.html": "cost_and_gradient",
        "reference/seeing.html": "gpubp.report.report",
    }.items():
        assert words in (site / page).read_text(), page
    headings = {line[3:] for line in README.splitlines() if line.startswith("## ")}
    assert len(headings) > 10 and all(f"{heading}<a" in (site / "index.html").read_text() for heading in headings)


def test_links_of_the_repository_lead_somewhere_in_the_site(site: Path):
    for page in site.rglob("*.html"):
        if page.name == "404.html":  # shown under any address, by a server
            continue
        for link in re.findall(r'href="([^"#]+)', page.read_text()):
            if not re.match(r"[a-z]+:", link):
                assert (page.parent / link).exists(), f"{page.relative_to(site)} links to {link}"
    assert 'href="source/gpubp/backprop.py.html"' in (site / "index.html").read_text()
    assert "def backward" in re.sub(r"<[^>]+>", "", (site / "source/gpubp/backprop.py.html").read_text())


def test_every_command_is_in_it(site: Path):
    from gpubp.cli._main import cli

    text = (site / "commands.html").read_text()
    names = cli.list_commands(None)  # pyright: ignore[reportArgumentType]
    assert len(names) > 10 and all(f'id="gpubp-{name}"' in text for name in names)
    assert "--hidden" in text and "--resume" in text


def test_the_estimators_are_in_it_with_what_they_share(site: Path):
    text = (site / "reference/sklearn.html").read_text()
    for name in ("MLPClassifier", "MLPRegressor"):
        assert all(f'id="gpubp.sklearn.{name}.{method}"' in text for method in ("fit", "loss_and_gradient", "predict"))


def test_a_formula_is_mathml_and_none_is_left_as_tex(site: Path):
    page = (site / "backpropagation.html").read_text()
    plain = re.sub(r"<(code|pre)\b.*?</\1>", "", page, flags=re.S)
    assert plain.count("<math") > 60 and plain.count('display="block"') >= 8
    assert "arithmatex" not in page and "\\delta" not in plain and "\\frac" not in plain


@pytest.mark.parametrize("page", ["index.html", "backpropagation.html", "reference/index.html"])
@pytest.mark.parametrize("size", ["desk", "phone"])
def test_a_page_is_read_without_a_network_and_without_a_complaint(site: Path, browser, page: str, size: str):
    with browser.open(site / page, size) as seen:
        seen.page.wait_for_timeout(300)
        assert seen.complaints == []
        assert [url for url in seen.requests if not url.startswith(site.as_uri())] == []
        assert not seen.scrolls_sideways


def test_formulas_are_drawn(site: Path, browser):
    with browser.open(site / "backpropagation.html") as seen:
        boxes = seen.page.eval_on_selector_all(
            "math", "all => all.map(m => { const r = m.getBoundingClientRect(); return [r.width, r.height] })"
        )
        assert len(boxes) > 60 and all(width > 4 and 8 < height < 120 for width, height in boxes)
        # a fraction has its parts one above the other: markup that is not understood lies in one line
        numerator, denominator = seen.page.eval_on_selector_all(
            "mfrac:first-of-type > *", "all => all.slice(0, 2).map(one => one.getBoundingClientRect().top)"
        )
        assert denominator > numerator + 8


def test_its_search_finds_without_a_server(site: Path, browser):
    with browser.open(site / "index.html") as seen:
        seen.page.keyboard.press("f")
        seen.page.get_by_placeholder("Search").wait_for()
        seen.page.keyboard.type("levenberg")
        found = seen.page.locator(".md-search-result__link").first
        found.wait_for(timeout=10_000)
        assert seen.complaints == [] and all(url.startswith(site.as_uri()) for url in seen.requests)
        assert found.get_attribute("href").partition("?")[0].endswith(".html")


def test_a_broken_link_fails_the_build(tmp_path: Path):
    """`--strict`, and what mkdocs.yml warns of: a link between documents that leads nowhere is an error."""
    (tmp_path / "breaks.py").write_text(
        "def on_page_markdown(markdown, page, **_):\n"
        "    broken = '\\n[x](not-there.md) [y](#not-here)\\n'\n"
        "    return markdown + broken if page.file.src_uri == 'index.md' else markdown\n"
    )
    (tmp_path / "mkdocs.yml").write_text(
        f"INHERIT: {ROOT / 'mkdocs.yml'}\ndocs_dir: {ROOT / 'docs'}\nplugins: []\n"
        f"hooks: [{ROOT / 'scripts' / 'site_hooks.py'}, breaks.py]\n"
    )
    done = built(tmp_path / "site", "-f", str(tmp_path / "mkdocs.yml"))
    assert done.returncode != 0
    warned = [line for line in done.stderr.splitlines() if line.startswith("WARNING")]
    assert len(warned) == 2 and "not-there.md" in warned[0] and "#not-here" in warned[1]
