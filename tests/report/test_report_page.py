"""The page of a report as a browser has it."""

from __future__ import annotations

import json
import re
import shutil

import h5py
import numpy as np
import pytest
from report_runs import PLAIN, done
from running import write

pytest.importorskip("matplotlib")

SECTIONS = {
    "digits": [
        "In short",
        "How the training went",
        "How good it is",
        "The worst rows",
        "Hidden units",
        "Speed",
        "The run",
    ],
    "numbers": ["In short", "How the training went", "How good it is", "The worst rows", "Speed", "The run"],
}
PICTURES = {
    "digits": {"cost", "cost-seconds", "gradient", "confusion", "roc", "precision-recall", "calibration", "worst",
               "hidden", "throughput"},
    "numbers": {"cost", "cost-seconds", "gradient", "residuals", "predicted", "throughput"},
}  # fmt: skip


@pytest.fixture(scope="module")
def made(of_digits, of_numbers):
    """Both runs with their reports: name → (run, data, --json)."""
    found = {}
    for name, one, limit in (("digits", of_digits, "--limit"), ("numbers", of_numbers, "--no-limit")):
        found[name] = *one, done("-q", "report", one[0], "--json", limit).json
    return found


def value(numbers, key):
    for part in key.split("."):
        numbers = numbers[part]
    return numbers


@pytest.mark.parametrize("size", ["desk", "phone"])
@pytest.mark.parametrize("name", SECTIONS)
def test_the_page_shows_itself_and_asks_for_nothing(made, browser, name, size):
    run, _, told = made[name]
    page = run / "report.html"
    assert told["out"] == str(page) and told["bytes"] == page.stat().st_size < 3_000_000
    with browser.open(page, size, scripts=False) as seen:
        seen.refuse_noise()
        assert not seen.scrolls_sideways
        assert seen.page.locator("h2").all_inner_texts() == SECTIONS[name]
        pictures = {one.get_attribute("id").removeprefix("picture-") for one in seen.page.locator("figure").all()}
        assert pictures - {"step"} == set(told["pictures"]) - {"step"} == PICTURES[name]
        for one in seen.page.locator("figure svg").all():
            box, title = one.bounding_box(), one.locator("title").first.text_content()
            assert box["width"] > 250 and box["height"] > 100 and len(title) > 20 and one.get_attribute("role") == "img"
        for one in seen.page.locator("nav a").all():
            assert seen.page.locator(one.get_attribute("href")).count() == 1
        ids = seen.page.eval_on_selector_all("[id]", "all => all.map(one => one.id)")
        assert len(ids) == len(set(ids))


@pytest.mark.parametrize("name", SECTIONS)
def test_its_numbers_are_those_of_json_and_of_evaluate(made, browser, name):
    run, data, told = made[name]
    with browser.open(run / "report.html") as seen:
        seen.refuse_noise()
        shown = [(one.get_attribute("data-key"), one.get_attribute("value"), one.text_content())
                 for one in seen.page.locator("data").all()]  # fmt: skip
        said = seen.page.locator("#verdict").inner_text()
    assert len(shown) >= 12
    for key, exact, text in shown:
        assert float(exact) == value(told, key), key
        if key == "training.passes":  # shown as a whole number
            assert text == f"{value(told, key):,.0f}"
            continue
        number = float(re.sub(r"[ ,%]", "", text)) / (100 if "%" in text else 1)
        assert number == pytest.approx(value(told, key), rel=6e-3, abs=6e-5), (key, text)
    for sentence in told["verdict"]["sentences"][:3]:
        assert sentence in said
    if name == "digits":
        evaluated = done("-q", "evaluate", run, data, "--json").json
        for key in ("rows", "cost", "accuracy", "confusion", "classes"):
            assert told["quality"][key] == evaluated[key], key
    else:
        # the rows that were held out: the training saw their cost
        last = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()][-1]
        assert told["judged"]["kind"] == "validation" and told["quality"]["rows"] < 200
        assert told["quality"]["cost"] == pytest.approx(last["validation"], rel=1e-5)


def test_everything_can_be_reached_by_keyboard_and_printed(made, browser):
    run, _, _ = made["digits"]
    with browser.open(run / "report.html", media="print") as seen:
        assert seen.page.locator("nav").is_hidden()
        assert not seen.scrolls_sideways
    with browser.open(run / "report.html") as seen:
        seen.page.locator("summary").first.focus()
        seen.page.keyboard.press("Enter")
        assert seen.page.locator("details").first.get_attribute("open") is not None
        assert seen.page.locator("details table").first.is_visible()


def test_the_page_names_no_place_elsewhere_and_runs_no_script(made):
    for run, _, _ in made.values():
        page = (run / "report.html").read_text()
        assert "<script" not in page and "default-src 'none'" in page
        links = set(re.findall(r"""(?:href|src)="([^"]+)""", page))
        assert all(one.startswith(("#", "data:")) for one in links)
        assert set(re.findall(r"https?://[\w.]+", page)) <= {"http://www.w3.org"}  # names of the SVG's language


def test_a_report_is_the_same_twice_but_for_what_it_times(made, tmp_path):
    run, _, _ = made["numbers"]
    done("-q", "report", run, "-o", tmp_path / "again.html", "--no-limit")
    assert (tmp_path / "again.html").read_text() == (run / "report.html").read_text()


def test_names_of_classes_are_text_whatever_they_hold(tmp_path, browser):
    rng = np.random.default_rng(1)
    names = np.array(["<script>alert(1)</script>", r"$\frac$ {title}", "_a&amp;b", "語 \x1b[31m"])
    y = rng.integers(0, 4, 200)
    X = rng.normal(size=(200, 3)) + y[:, None]
    data = write(tmp_path / "<b>&.h5", X=X, y=np.array([names[i].encode() for i in y], h5py.string_dtype()))
    done("train", data, "--out", tmp_path / "$run", "--hidden", "3", "--iterations", "3", *PLAIN)
    told = done("-q", "report", tmp_path / "$run", "--json").json
    assert sorted(told["quality"]["classes"]) == sorted(names)
    with browser.open(tmp_path / "$run" / "report.html") as seen:
        seen.refuse_noise()
        rows = seen.page.locator("#quality table").first.locator("tbody th").all_inner_texts()
        assert {names[0], names[1], names[2]} <= set(rows)
        assert seen.page.locator("#quality b").count() == 0 and seen.page.locator("script").count() == 0
        assert r"$\frac$" in seen.page.locator("#picture-confusion").inner_text()


def test_a_copy_elsewhere_needs_nothing(made, browser, tmp_path):
    run, _, _ = made["digits"]
    shutil.copy(run / "report.html", tmp_path / "alone.html")
    with browser.open(tmp_path / "alone.html") as seen:
        seen.refuse_noise()
        loaded = seen.page.eval_on_selector_all("image", "all => all.map(one => one.href.baseVal.slice(0, 22))")
        assert loaded and set(loaded) == {"data:image/png;base64,"}
