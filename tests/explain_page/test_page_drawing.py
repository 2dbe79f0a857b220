"""The drawing: nothing overlaps, signs and widths are those of the numbers, every file is what its name says."""

from __future__ import annotations

import io
import math
import re
import xml.etree.ElementTree as ET
from itertools import combinations

import numpy as np
import pytest
from page_examples import NASTY, example, nasty, wide

from gpubp.errors import DataError, UsageError
from gpubp.explain import drawing
from gpubp.explain.fold import fold
from gpubp.explain.layout import layout, short_example
from gpubp.explain.notation import number
from gpubp.explain.seed import seed_example
from gpubp.explain.shapes import NEGATIVE, POSITIVE, Box, Circle, Line, Raster, Words, bytes_of, png, room
from gpubp.pictures import Picture

SVG = "{http://www.w3.org/2000/svg}"
EXAMPLES = {
    "course": seed_example,
    "wide": wide,
    "no hidden layer": lambda: example((2, 1)),
    "one and one": lambda: example((1, 1), cost="squares"),
    "five hidden layers": lambda: example((3, 4, 3, 5, 3, 2, 2), activation="tanh", cost="sigmoid_squares"),
    "as exercise 4": lambda: example((400, 25, 10), cost="softmax", picture=Picture(20, 20, by_columns=True)),
    "small picture": lambda: example((64, 2, 1), picture=Picture(8, 8)),
    "one output": lambda: example((30, 12, 1), activation="relu"),
    "names": nasty,
}


def box_of(words: Words) -> tuple[float, float, float, float]:
    """Where words are, by widths that no usual font exceeds."""
    wide_ = 0.93 * room(words.pieces, words.size)
    left = words.x - {"start": 0, "middle": wide_ / 2, "end": wide_}[words.anchor]
    return left, words.y - 0.75 * words.size, left + wide_, words.y + 0.2 * words.size


def overlap(a, b) -> bool:
    return min(a[2], b[2]) - max(a[0], b[0]) > 0.5 and min(a[3], b[3]) - max(a[1], b[1]) > 0.5


@pytest.mark.parametrize("name", EXAMPLES)
def test_nothing_overlaps_and_nothing_is_cut_off(name):
    e = EXAMPLES[name]()
    found = layout(e, fold(e))
    shapes = [shape for group in found.groups for shape in group.shapes]
    words = [box_of(shape) for shape in shapes if isinstance(shape, Words)]
    for left, top, right, bottom in words:
        assert left >= 0 and top >= 0 and right <= found.width and bottom <= found.height
    assert not [pair for pair in combinations(words, 2) if overlap(*pair)]
    circles = [shape for shape in shapes if isinstance(shape, Circle) and shape.r > 20]
    assert all(math.dist(a[:2], b[:2]) > a.r + b.r for a, b in combinations(circles, 2))
    assert all(0 <= c.x - c.r and c.x + c.r <= found.width and c.y + c.r <= found.height for c in circles)
    assert min(shape.size for shape in shapes if isinstance(shape, Words)) >= 8.5
    for group in found.groups:  # the numbers upon edges keep away from units
        if group.kind == "number":
            box = box_of(group.shapes[1])
            for c in circles:
                near = max(box[0], min(c.x, box[2])), max(box[1], min(c.y, box[3]))
                assert math.dist(near, c[:2]) >= c.r


@pytest.mark.parametrize("by", ("theta", "contribution"))
def test_edges_have_the_sign_and_the_size_of_their_numbers(by):
    e = example((3, 12, 4, 2), cost="softmax", seed=2)
    shown = fold(e, top=5)
    lines = {group.key: group.shapes[0] for group in layout(e, shown, by).groups if group.kind == "edge"}
    expected = {(l, to, i) for l in (1, 2, 3) for to in shown.shown[l + 1] for i in (0, *shown.shown[l])}
    rest = {(2, to, "rest") for to in shown.shown[3]}
    assert set(lines) == expected | rest  # none from the inputs to the rest of layer 2: an input has no δ
    for l in (1, 2, 3):
        worth = {}
        for key in expected:
            if key[0] == l:
                a = 1.0 if key[2] == 0 or by == "theta" else e.a[l][key[2] - 1]
                worth[key] = e.Theta[l][key[1] - 1, key[2]] * a
        if l == 2 and by == "contribution":
            hidden = [i for i in range(1, 13) if i not in shown.shown[2]]
            for key in rest:
                worth[key] = sum(e.Theta[2][key[1] - 1, i] * e.a[2][i - 1] for i in hidden)
        for key, value in worth.items():
            line = lines[key]
            assert isinstance(line, Line)
            assert line.colour == (POSITIVE if value > 0 else NEGATIVE) and (line.dash is None) == (value > 0)
        values = np.array([abs(v) for v in worth.values()])
        widths = np.array([lines[key].width for key in worth])
        slope = (widths.max() - 0.6) / values.max()
        assert np.allclose(widths, 0.6 + slope * values)


def test_the_edges_of_a_small_network_carry_their_numbers():
    e = seed_example()
    for by in ("theta", "contribution"):
        said = {g.key: g.shapes[1].pieces[0].text for g in layout(e, fold(e), by).groups if g.kind == "number"}
        a = [None, *(np.concatenate([[1.0], e.a[l]]) if by == "contribution" else np.ones(9) for l in (1, 2, 3))]
        worth = {(l, to, i): e.Theta[l][to - 1, i] * a[l][i] for l, to, i in said}
        assert len(said) == 15 and said == {key: number(value, 3) for key, value in worth.items()}


def test_the_title_names_a_file_without_its_folders():
    found = layout(e := example((2, 2, 1), example="row 7 (test) of /data/of many/digits.h5"), fold(e))
    words = ["".join(p.text for p in s.pieces) for g in found.groups for s in g.shapes if isinstance(s, Words)]
    assert any(line.startswith("row 7 (test) of digits.h5; C = ") for line in words)
    assert found.title == "Network 2-2-1: row 7 (test) of digits.h5"
    assert short_example("x as given, y = cat of a/dog") == "x as given, y = cat of a/dog"


def test_numbers_in_units_are_those_of_the_record():
    e = seed_example()
    units = {group.key: group for group in layout(e, fold(e)).groups if group.kind == "unit"}
    said = ["".join(p.text for p in shape.pieces) for shape in units[2, 2].shapes if isinstance(shape, Words)]
    assert said == ["a2(2)", "z 0.65", "a 0.657", "δ 0.005205"]
    assert "δ_2^(2) = (Θ_12^(2)·δ_1^(3)" in units[2, 2].label
    assert [g.key for g in layout(e, fold(e)).groups if g.kind == "bias"] == [(1, 0), (2, 0), (3, 0)]


def test_what_is_folded_is_counted_and_summed():
    e = wide()
    shown = fold(e)
    rests = {group.key: group.label for group in layout(e, shown).groups if group.kind == "rest"}
    hidden = np.delete(np.abs(e.delta[2]), [j - 1 for j in shown.shown[2]]).sum()
    assert rests[2, "rest"] == f"504 more units of layer 2, Σ|δ| = {hidden:.4g}"
    assert rests[1, "rest"].startswith("776 more units of layer 1, Σ|a| = ")
    assert set(rests) == {(1, "rest"), (2, "rest"), (3, "rest")}  # ten outputs are shown, fifteen are not
    many = example((9, 2, 15))
    assert (3, "rest") in {group.key for group in layout(many, fold(many)).groups if group.kind == "rest"}


def test_the_marks_on_the_picture_are_where_the_inputs_are():
    e = EXAMPLES["as exercise 4"]()
    shown = fold(e)
    groups = layout(e, shown).groups
    shapes = next(g.shapes for g in groups if any(isinstance(s, Raster) for s in g.shapes))
    raster = next(s for s in shapes if isinstance(s, Raster))
    assert np.array_equal(raster.pixels, bytes_of(e.x.reshape(20, 20).T))
    marks = [s for s in shapes if isinstance(s, Box) and s.stroke == "#E69F00"]
    for j, mark in zip(shown.shown[1], marks, strict=True):
        column, row = divmod(j - 1, 20)  # column after column
        assert (mark.x + mark.width / 2 - raster.x) / raster.width * 20 == pytest.approx(column + 0.5)
        assert (mark.y + mark.height / 2 - raster.y) / raster.height * 20 == pytest.approx(row + 0.5)
    labels = {g.key: g.label for g in groups if g.kind == "unit"}
    j = shown.shown[1][0]
    assert f"pixel {(j - 1) % 20 + 1}, {(j - 1) // 20 + 1}" in labels[1, j]


@pytest.mark.parametrize("name", EXAMPLES)
def test_svg_is_xml_with_a_group_for_each_thing(name):
    e = EXAMPLES[name]()
    shown = fold(e)
    root = ET.fromstring(drawing.svg(e, shown))
    groups = [one.get("class") for one in root.iter(f"{SVG}g")]
    assert groups.count("unit") == sum(len(shown.shown[l]) for l in range(1, e.L + 1))
    assert groups.count("bias") == e.L - 1
    assert all(one.find(f"{SVG}title") is not None for one in root.iter(f"{SVG}g") if one.get("class") == "unit")
    addresses = [v for one in root.iter() for k, v in one.attrib.items() if k.endswith("href")]
    assert all(one.startswith("data:image/png;base64,") for one in addresses)
    if name == "names":
        text = "".join(root.itertext())
        assert NASTY[1] in text and NASTY[0] in text


@pytest.mark.parametrize("name", ("small picture", "names"))
def test_png_and_pdf_are_the_same_drawing(name, tmp_path):
    image = pytest.importorskip("matplotlib.image")
    e = EXAMPLES[name]()
    shown = fold(e)
    drawing.save(e, shown, tmp_path / "net.png")
    pixels = image.imread(tmp_path / "net.png")
    found = layout(e, shown)
    assert pixels.shape[1] == pytest.approx(2 * found.width, abs=3)
    assert pixels.shape[0] == pytest.approx(2 * found.height, abs=3)
    blue = np.abs(pixels[:, :, :3] - np.array([0, 0x72, 0xB2]) / 255).max(axis=2) < 0.02
    red = np.abs(pixels[:, :, :3] - np.array([0xD5, 0x5E, 0]) / 255).max(axis=2) < 0.02
    assert blue.mean() > 0.001 and red.mean() > 0.001
    assert (pixels[:3, :, :3] == 1).all() and (pixels[-3:, :, :3] == 1).all()  # white paper to its edge
    if name == "small picture":
        drawing.save(e, shown, tmp_path / "net.pdf")
        assert (tmp_path / "net.pdf").read_bytes().startswith(b"%PDF-")
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("shape", ((3, 5), (4, 2, 3), (4, 2, 4)))
def test_our_png_reads_back(shape):
    image = pytest.importorskip("matplotlib.image")
    pixels = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    back = np.rint(image.imread(io.BytesIO(png(pixels)), format="png") * 255).astype(np.uint8)
    assert np.array_equal(back, pixels)


def test_pictures_that_are_no_bytes_are_stretched():
    assert bytes_of(np.array([[-1.0, 1.0]])).tolist() == [[0, 255]]
    assert bytes_of(np.array([[0.0, 128.0]])).tolist() == [[0, 128]]
    assert bytes_of(np.array([[2.5, 2.5]])).tolist()[0][0] in (0, 2)  # all alike


def test_what_cannot_be_drawn_is_said_in_one_line(tmp_path, monkeypatch):
    e = seed_example()
    shown = fold(e)
    with pytest.raises(UsageError, match=r"a drawing named net\.gif; wanted a name that ends in \.svg, \.png, \.pdf"):
        drawing.save(e, shown, tmp_path / "net.gif")
    with pytest.raises(DataError, match=r"there is no folder .*none; make it first"):
        drawing.save(e, shown, tmp_path / "none" / "net.svg")
    (tmp_path / "there.svg").mkdir()
    with pytest.raises(DataError, match=r"cannot write .*there\.svg: Is a directory"):
        drawing.save(e, shown, tmp_path / "there.svg")
    with pytest.raises(UsageError, match="edges by 'size'; wanted theta or contribution"):
        drawing.svg(e, shown, "size")  # pyright: ignore[reportArgumentType]
    big = example((300, 100, 2), cost="softmax")
    with pytest.raises(UsageError, match=re.escape("a drawing of 30,302 edges; wanted 20,000 or fewer; show fewer")):
        drawing.svg(big, fold(big, top=0))

    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr("gpubp.canvas.import_module", missing)
    drawing.save(e, shown, tmp_path / "net.svg")  # needs nothing
    with pytest.raises(UsageError, match=re.escape("pip install 'gpubp[plot]', or take .svg")):
        drawing.save(e, shown, tmp_path / "net.png")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["net.svg", "there.svg"]
