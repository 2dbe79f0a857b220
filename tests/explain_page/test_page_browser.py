"""The page in a real browser: pointed at, by keyboard, on a phone, on paper, without scripts; never a request."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from page_examples import NASTY, example, nasty, values_in, wide

from gpubp.errors import DataError
from gpubp.explain import page
from gpubp.explain.fold import Fold, fold
from gpubp.explain.notation import factor, number
from gpubp.explain.plain import plain
from gpubp.explain.record import Explanation
from gpubp.explain.seed import seed_example

DIGITS = 6


def measured(e: Explanation) -> Any:
    """As the check of slopes reports it."""
    units = {
        (l, j): SimpleNamespace(slope=float(d) * (1 + 3e-11), error=3e-11, verdict="PASS")
        for l in range(2, e.L + 1)
        for j, d in enumerate(e.delta[l], start=1)
    }
    return SimpleNamespace(units=units)


def made(folder: Path, e: Explanation, shown: Fold | None = None, **more: Any) -> Path:
    page.write(e, shown or fold(e), folder / "page.html", **more)
    return folder / "page.html"


def unit(seen: Any, layer: int, j: int) -> Any:
    return seen.page.locator(f'.unit[data-key="{layer}-{j}"]')


def circle(seen: Any, layer: int, j: int) -> Any:
    """Where a pointer meets a unit."""
    return unit(seen, layer, j).locator("circle")


def printed(value: float) -> str:
    return number(value, DIGITS)


def assert_panel_is(seen: Any, data: dict[str, Any], layer: int, j: int, kind: str) -> None:
    """Every number of the panel is that of the data to the printed digits; the terms add up."""
    total = next(s for s in data["sums"] if (s["layer"], s["unit"], s["kind"]) == (layer, j, kind))
    own = next(u for u in data["units"] if (u["layer"], u["unit"]) == (layer, j))
    values = seen.page.locator("#bars .value").all_inner_texts()
    products = [t["product"] for t in total["terms"]] + [total["rest"]["total"]] * bool(total["rest"]["terms"])
    assert values == [printed(v) for v in [*products, total["total"]]]
    read = [float(v.replace("−", "-")) for v in values]
    assert sum(read[:-1]) == pytest.approx(read[-1], abs=5e-6 * sum(map(abs, read)))
    block = seen.page.locator(f"#sum .formula.{'back' if kind == 's' else 'forth'}")
    tokens = block.locator("p").nth(1).locator(".t").all_inner_texts()
    wanted = [f"{factor(t['Theta'])}·{factor(t['factor'])}" for t in total["terms"]]
    assert tokens == [*wanted, *[f"… ({total['rest']['terms']:,} more)"] * bool(total["rest"]["terms"])]
    added = block.locator("p").nth(2).locator(".t").all_inner_texts()  # without the signs between them
    last = 0.5 * 10.0 ** -len(added[0].partition(".")[2])
    for token, product in zip(added if len(products) > 1 else [], products, strict=len(products) > 1):
        assert abs(values_in(token)[0]) == pytest.approx(abs(product), abs=1.001 * last)
    text = block.inner_text()
    ends = [own["delta"], own["slope"], total["total"]] if kind == "s" else [own["z"], own["a"]]
    assert all(printed(v) in text for v in ends)
    assert seen.page.locator(".edge.lit").count() == len(products)


def lit(seen: Any) -> set[str]:
    """The edges that are lit."""
    return {one.get_attribute("data-key") for one in seen.page.locator(".edge.lit").all()}


def test_hovering_unit_2_of_layer_2_shows_its_sum(browser, tmp_path):
    e = seed_example()
    with browser.open(made(tmp_path, e, checked=measured(e))) as seen:
        circle(seen, 2, 2).hover()
        assert_panel_is(seen, plain(e, fold(e)), 2, 2, "s")
        heading = seen.page.locator("#sum h3").inner_text()
        symbols = seen.page.locator("#sum .back p").first
        assert heading == "Unit 2 of layer 2"
        assert symbols.inner_html().replace("&nbsp;", " ") == (
            'δ<sub>2</sub><sup>(2)</sup> = (<span class="t" data-edge="2-1-2">Θ<sub>12</sub><sup>(2)</sup>·'
            'δ<sub>1</sub><sup>(3)</sup></span> + <span class="t" data-edge="2-2-2">Θ<sub>22</sub><sup>(2)</sup>·'
            "δ<sub>2</sub><sup>(3)</sup></span>) · g′(z<sub>2</sub><sup>(2)</sup>)"
        )
        assert "Measured: ∂C/∂z = 0.00520524, relative error 3e−11: PASS" in seen.page.locator("#sum").inner_text()
        assert not seen.page.locator("#sum .forth").is_visible()
        seen.page.check("input[value=forth]")
        assert_panel_is(seen, plain(e, fold(e)), 2, 2, "z")
        assert lit(seen) == {"1-2-0", "1-2-1", "1-2-2"}
        products = [0.5, 0.45, -0.3]  # by size: a bar from the middle to its end is the largest of them all, the total
        bars = seen.page.evaluate("[...document.querySelectorAll('#bars i')].map(i => [i.className, i.style.width])")
        widths = {round(float(width.removesuffix("%")), 3): side for side, width in bars}
        assert widths == {**{round(50 * abs(p) / 0.65, 3): "plus" if p > 0 else "minus" for p in products}, 50: "plus"}
        seen.page.locator('.bias[data-key="2-0"] rect').hover()  # it has no left side, whatever is followed
        assert lit(seen) == {"2-1-0", "2-2-0"}
        seen.refuse_noise()


def test_the_seeds_recursion_stands_beside_where_it_is_asked_for(browser, tmp_path):
    e = seed_example()
    with browser.open(made(tmp_path, e, literal=True)) as seen:
        heads = "[...document.querySelectorAll('#numbers thead tr')].map(r => r.lastElementChild.innerText)"
        assert seen.page.evaluate(heads) == ["a", "literal", "literal", "literal"]
        cells = "[...document.querySelectorAll('#numbers tr')].map(r => r.lastElementChild.innerText)"
        told = [u["literal"] for u in plain(e, fold(e))["units"] if u["layer"] > 1]
        shown = [cell for cell in seen.page.evaluate(cells) if cell not in ("a", "literal")][2:]
        assert shown == [printed(value) for value in told]
        circle(seen, 2, 2).hover()
        text = seen.page.locator("#sum").inner_text()
        assert "without g′, from the output to here: δ2(2) = " in text.replace("\n", "") and printed(told[1]) in text
        assert "carried on by itself it is neither" in seen.page.locator("main").inner_text()
        seen.refuse_noise()
    assert "literal" not in page.html(e, fold(e)).partition("<script")[0]


def test_the_keyboard_does_the_same(browser, tmp_path):
    e = seed_example()
    with browser.open(made(tmp_path, e)) as seen:
        page_, active = seen.page, "document.activeElement.dataset.key"
        circle(seen, 2, 2).hover()
        hovered = page_.locator("#panel").inner_html()
        page_.keyboard.press("Escape")
        assert "Point at a unit" in page_.locator("#sum").inner_text()
        page_.mouse.move(5, 5)
        page_.keyboard.press("Tab")  # the link that skips the drawing
        assert page_.evaluate("document.activeElement.className") == "skip"
        page_.keyboard.press("Tab")
        assert page_.evaluate(active) == "1-0"
        for key, there in (("ArrowDown", "1-1"), ("ArrowRight", "2-1"), ("ArrowDown", "2-2")):
            page_.keyboard.press(key)
            assert page_.evaluate(active) == there
        assert page_.locator("#panel").inner_html() == hovered
        page_.keyboard.press("Enter")
        assert unit(seen, 2, 2).get_attribute("aria-pressed") == "true"
        circle(seen, 3, 1).hover()
        assert "Unit 2 of layer 2" in page_.locator("#sum").inner_text()  # pinned
        page_.keyboard.press("Escape")
        assert unit(seen, 2, 2).get_attribute("aria-pressed") == "false"
        circle(seen, 3, 2).hover()
        assert "Unit 2 of layer 3" in page_.locator("#sum").inner_text()
        page_.locator("#bars button").first.focus()
        assert page_.locator(".edge.hot").get_attribute("data-key") == "3-1-2"
        seen.refuse_noise()


def test_each_unit_says_what_it_is_and_has_a_ring_when_focused(browser, tmp_path):
    e = seed_example()
    with browser.open(made(tmp_path, e)) as seen:
        label = unit(seen, 2, 2).get_attribute("aria-label")
        assert label.startswith("unit 2 of layer 2; z = 0.65; a = 0.65701; δ_2^(2) = (Θ_12^(2)·δ_1^(3) + ")
        assert "= (0.6·(−0.120954) + 1.2·0.0797257) · 0.225348, = (−0.0725721 + 0.0956708) · 0.225348, = " in label
        assert label.endswith(", = 0.0230987 · 0.225348, = 0.00520524")
        assert seen.page.locator("#sum").get_attribute("aria-live") == "polite"
        assert seen.page.locator("svg[role=group]").get_attribute("aria-label")
        before = "getComputedStyle(document.querySelector('[data-key=\"1-1\"] circle')).strokeWidth"
        narrow = seen.page.evaluate(before)
        for key in ("Tab", "Tab", "Tab"):
            seen.page.keyboard.press(key)
        assert seen.page.evaluate("document.activeElement.dataset.key") == "1-1"
        assert (narrow, seen.page.evaluate(before)) == ("1.4px", "5px")


def test_an_edge_says_what_goes_along_it(browser, tmp_path):
    e = seed_example()
    with browser.open(made(tmp_path, e)) as seen:
        circle(seen, 2, 2).hover()
        seen.page.locator('#bars [data-edge="2-1-2"]').hover()
        text = seen.page.locator("#edge").inner_text()
        Theta, a, delta, slope = 0.6, e.a[2][1], e.delta[3][0], e.gradient[2][0, 2]
        assert f"forward: Θ·a = 0.6 · {printed(a)} = {printed(Theta * a)}" in text
        assert f"backward: Θ·δ = 0.6 · {printed(delta)} = {printed(Theta * delta)}" in text
        assert f"∂C/∂Θ = δ·a = {printed(delta)} · {printed(a)} = {printed(slope)}" in text
        assert slope < 0 and "gradient descent makes Θ larger" in text
        assert seen.page.locator(".edge.hot").get_attribute("data-key") == "2-1-2"
        # and the line itself: where no number stands on it
        hit = seen.page.locator('.edge[data-key="1-1-1"] .hit').bounding_box()
        seen.page.mouse.move(hit["x"] + 0.8 * hit["width"], hit["y"] + hit["height"] / 2)
        assert "0.8" in (said := seen.page.locator("#edge").inner_text()) and "backward" not in said
        seen.refuse_noise()


def test_the_loglikelihood_has_the_other_sign_and_says_so(browser, tmp_path):
    e = seed_example("loglik")
    with browser.open(made(tmp_path, e)) as seen:
        header = seen.page.locator("header").inner_text()
        assert (
            "every δ is a slope of the course's cost(t), a log-likelihood" in header and "cost(t) = −0.582666" in header
        )
        circle(seen, 4, 1).hover()
        assert "= 0.441592" in seen.page.locator("#sum").inner_text()
        circle(seen, 2, 2).hover()
        seen.page.locator('#bars [data-edge="2-1-2"]').hover()
        said = seen.page.locator("#edge").inner_text()
        assert "∂cost(t)/∂Θ" in said and "gradient descent makes Θ larger" in said  # the same step


@pytest.mark.parametrize("size", ("desk", "phone"))
def test_a_wide_network_is_folded_and_stays_within_the_window(browser, tmp_path, size):
    e = wide()
    path = made(tmp_path, e, checked=measured(e))
    assert path.stat().st_size < 1_000_000
    shown = fold(e)
    with browser.open(path, size) as seen:
        assert not seen.scrolls_sideways
        for l, kind in ((2, "s"), (3, "s"), (2, "z")):
            seen.page.check(f"input[value={'back' if kind == 's' else 'forth'}]")
            circle(seen, l, shown.shown[l][1]).click()
            assert_panel_is(seen, plain(e, shown), l, shown.shown[l][1], kind)
            assert not seen.scrolls_sideways
        seen.page.locator("#bars .term", has_text="776 more").hover()
        assert "776 edges that are not drawn" in seen.page.locator("#edge").inner_text()
        assert seen.page.locator(".edge.hot").get_attribute("data-key") == f"1-{shown.shown[2][1]}-rest"
        seen.page.check("input[value=back]")
        seen.page.locator("#bars .term", has_text="504 more").hover()
        assert re.search("504 edges that are not drawn.*to s", seen.page.locator("#edge").inner_text(), re.DOTALL)
        assert seen.page.locator(".edge.hot").get_attribute("data-key") == f"2-rest-{shown.shown[2][1]}"
        seen.refuse_noise()


@pytest.mark.parametrize("sizes", ((2, 1), (3, 2, 2, 2, 2, 2, 2)))
def test_networks_of_any_depth(browser, tmp_path, sizes):
    e = example(sizes, cost="sigmoid_squares", activation="tanh")
    with browser.open(made(tmp_path, e), "phone") as seen:
        assert not seen.scrolls_sideways
        seen.page.check("input[value=forth]")
        circle(seen, 2, 1).click()
        assert_panel_is(seen, plain(e, fold(e)), 2, 1, "z")
        seen.page.keyboard.press("Escape")
        seen.page.check("input[value=back]")
        circle(seen, e.L, 1).click()
        assert re.search(r"δ\s*1\s*\(\d\) = \(a", seen.page.locator("#sum .back p").first.inner_text())
        circle(seen, 1, 1).click()
        assert seen.page.locator("#bars .term").count() == sizes[1]
        seen.refuse_noise()


def test_numbers_of_any_size_are_written_as_python_writes_them(browser, tmp_path):
    e = example((1, 6, 1), activation="relu", cost="squares")
    Theta = [None, e.Theta[1], np.array([[1e-12, 1234567.0, -123456.4, -9.9999999e-5, 1e-4, 3e20, 0.0]])]
    object.__setattr__(e, "Theta", Theta)  # no network has such; the page need not know
    with browser.open(made(tmp_path, e)) as seen:
        circle(seen, 3, 1).hover()
        seen.page.check("input[value=forth]")
        values = seen.page.locator("#bars .value").all_inner_texts()[:-1]
        factors = [1.0, *e.a[2]]
        assert values == [printed(w * f) for w, f in zip(Theta[2][0], factors, strict=True)]
        seen.page.locator("#bars .term").nth(1).hover()
        assert f" = {printed(1234567.0)}" in seen.page.locator("#edge b").inner_text()


@pytest.mark.parametrize("scripts", (True, False))
def test_tables_and_sums_are_there_without_scripts_and_on_paper(browser, tmp_path, scripts):
    e = seed_example()
    path = made(tmp_path, e, checked=measured(e))
    assert path.stat().st_size < 100_000
    for size, media in (("desk", "screen"), ("phone", "screen"), ("desk", "print")):
        with browser.open(path, size, scripts=scripts, media=media) as seen:
            assert not seen.scrolls_sideways
            assert seen.page.locator("#panel").is_visible() == (scripts and media == "screen")
            assert seen.page.locator(".drawing svg").is_visible()
            captions = seen.page.locator("table caption").all_inner_texts()
            assert captions == ["Layer 1, input", "Layer 2, hidden", "Layer 3, hidden", "Layer 4, output"]
            cells = seen.page.locator("table").nth(1).locator("tbody tr").nth(1).locator("th, td").all_inner_texts()
            numbers = [e.z[2][1], e.a[2][1], e.s[2][1], e.slope[2][1], e.delta[2][1], e.delta[2][1]]
            assert cells == ["2", *map(printed, numbers), "3e−11", "PASS"]
            article = seen.page.locator("article#unit-2-2")
            said = article.inner_text().replace("\u00a0", " ")
            assert article.is_visible() and "= (0.6·(−0.120954) + 1.2·0.0797257) · 0.225348" in said
            seen.refuse_noise()


def test_on_paper_nothing_is_faded_and_the_drawing_fits(browser, tmp_path):
    with browser.open(made(tmp_path, wide())) as seen:
        circle(seen, 4, 1).hover()
        seen.page.emulate_media(media="print", reduced_motion="reduce")
        assert seen.page.evaluate("getComputedStyle(document.querySelector('.edge:not(.lit)')).opacity") == "1"
        seen.page.set_viewport_size({"width": 700, "height": 1000})  # A4 without its margins
        box = seen.page.locator(".drawing svg").bounding_box()
        assert box["width"] <= 700 and not seen.scrolls_sideways


def test_hostile_names_are_only_shown(browser, tmp_path):
    e = nasty()
    path = made(tmp_path, e)
    with browser.open(path) as seen:
        assert seen.page.title() == f"Every δ of {NASTY[0]}"
        assert NASTY[1] in seen.page.locator("header").inner_text()
        assert seen.page.locator("td.name").all_inner_texts() == [*NASTY, *NASTY[:2]]
        circle(seen, 3, 1).hover()
        assert seen.page.locator("#sum h3").inner_text() == f"Unit 1 of layer 3: {NASTY[0]}"
        circle(seen, 1, 2).hover()
        assert NASTY[1] in seen.page.locator("#sum h3").inner_text()
        assert seen.page.locator("script").count() == 2
        seen.refuse_noise()


def test_the_title_names_a_file_without_its_folders(tmp_path):
    e = example((2, 2, 1), example="row 7 (test) of /data/of many/folders & more/digits.h5")
    text = made(tmp_path, e).read_text()
    assert "<title>Every δ of row 7 (test) of digits.h5</title>" in text
    assert "<h1>Every δ of row 7 (test) of digits.h5</h1>" in text
    assert "<p>row 7 (test) of /data/of many/folders &amp; more/digits.h5</p>" in text
    assert "<p>row" not in made(tmp_path, example((2, 2, 1), example="row 7 of digits.h5")).read_text()


def test_the_page_carries_what_json_prints(tmp_path):
    e = nasty()
    text = made(tmp_path, e).read_text()
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert found and json.loads(found[1]) == plain(e, fold(e))


def test_the_page_allows_itself_nothing_from_elsewhere(tmp_path):
    text = made(tmp_path, wide()).read_text()
    policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"
    assert f'http-equiv="Content-Security-Policy" content="{policy}"' in text
    assert set(re.findall(r"https?://[^\"\s<]+", text)) == {"http://www.w3.org/2000/svg"}  # a name, never asked for
    assert not re.search(r"\b(src|href)=\"(?!data:|#)", text)


def test_a_page_that_cannot_be_written_is_one_line(tmp_path):
    e = seed_example()
    with pytest.raises(DataError, match=r"there is no folder .*none; make it first"):
        page.write(e, fold(e), tmp_path / "none" / "page.html")
    (tmp_path / "page.html").mkdir()
    with pytest.raises(DataError, match=r"cannot write .*page\.html: Is a directory"):
        made(tmp_path, e)


def test_letters_have_contrast():
    """≥ 4.5 : 1 (WCAG 2.2, 1.4.3) of every colour of letters, on white and on the yellow of what is lit."""
    style = (Path(page.__file__).parent / "page.css").read_text()
    letters = set(re.findall(r"(?<![-\w])color: (#\w+)", style)) | set(re.findall(r"--(?:ink|pale): (#\w+)", style))
    letters |= {"#222222", "#595959"}  # of the drawing

    def light(colour: str) -> float:
        colour = colour[1:] if len(colour) == 7 else "".join(2 * c for c in colour[1:])
        parts = [int(colour[i : i + 2], 16) / 255 for i in (0, 2, 4)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    assert len(letters) >= 3
    for colour in letters:
        for paper in ("#ffffff", "#FFF3C2", "#f5f5f5"):
            assert (light(paper) + 0.05) / (light(colour) + 0.05) >= 4.5
