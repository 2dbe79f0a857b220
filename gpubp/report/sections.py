"""The parts of the page."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from . import pictures
from .html import Raw, cards, code, data, details, figure_of, pairs, paragraph, percent, table, text
from .material import Material
from .style import svg

_ROWS_OF_HISTORY = 40
_ROWS_OF_CLASSES = 200
_NAMES_OF_MATRIX = 30
_TARGETS = 8  # of a row

Numbers = dict[str, Any]


def verdict(m: Material, n: Numbers) -> str:
    """What it is, how it ended, how good it is, what to do."""
    said = m.said
    parts = [cards(_most_important(m, n))]
    parts += [paragraph(one) for one in (said.what, said.ended) if one]
    if said.good:
        parts.append(paragraph(said.good, "loud" if m.judged and m.judged.kind == "training" else ""))
    else:
        parts.append(paragraph(f"How good it is cannot be said here: {m.why_not}.", "loud"))
    parts += [paragraph(said.because)] if said.because else []
    if said.next:
        items = "".join(
            f"<li>{text(do)}{f':{code(command)}' if command else '.'}</li>" for do, command in said.next
        )  # fmt: skip
        parts.append(f"<h3>What to do next</h3><ul>{items}</ul>")
    return "".join(parts)


def _most_important(m: Material, n: Numbers) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    q = n["quality"]
    if q:
        for key in ("accuracy", "exact"):
            if q.get(key) is not None:
                found.append(
                    ({"exact": "all labels right"}.get(key, key), data(f"quality.{key}", q[key], percent(q[key])))
                )
        for key, name in (("r2", "R²"), ("rmse", "RMSE")):
            if q.get(key) is not None:
                found.append((name, data(f"quality.{key}", q[key], f"{q[key]:.4g}")))
        found.append(("cost on these rows", data("quality.cost", q["cost"], f"{q['cost']:.4g}")))
    t = n["training"]
    if t["cost"] is not None:
        found.append(("training cost", data("training.cost", t["cost"], f"{t['cost']:.4g}")))
    elif t["reached"].get("J") is not None:
        found.append(("cost J", data("training.reached.J", t["reached"]["J"], f"{t['reached']['J']:.4g}")))
    for key, name in (("iteration", "iterations"), ("passes", "passes"), ("seconds", "seconds")):
        if t[key] is not None:
            shown = f"{t[key]:,.0f}" if key != "seconds" or t[key] >= 100 else f"{t[key]:.3g}"
            found.append((name, data(f"training.{key}", t[key], shown)))
    return found


def training(m: Material, n: Numbers) -> str:
    """The curves of the training."""
    history = m.run.history
    if not history:
        return paragraph("No iteration was finished: there is nothing to draw.")
    every = -(-len(history) // _ROWS_OF_HISTORY)
    shown = [row for i, row in enumerate(history) if i % every == 0 or i == len(history) - 1]
    steps = any(row.get("step") is not None for row in history)
    head = ["iteration", "passes", "seconds", "J", "validation", "max|∇J|", *(["‖ΔΘ‖"] if steps else []), "precision"]
    rows = [
        [row["iteration"], row["passes"], round(row["seconds"], 3), row["J"], row["validation"], row["gradient"],
         *([row.get("step")] if steps else []), str(row["precision"])]
        for row in shown
    ]  # fmt: skip
    caption = "History" if every == 1 else f"History, every {every:,}th iteration"
    return figures(m, ("cost", "cost-seconds", "gradient", "step")) + details("The numbers", table(head, rows, caption))


def quality(m: Material, n: Numbers) -> str:
    """How good the answers are."""
    q = n["quality"]
    if q is None:
        return paragraph(f"Not looked at: {m.why_not}.", "loud")
    assert m.judged is not None
    head = f"On {m.judged.what}, in one forward pass in {m.precision}."
    if q.get("dropped"):
        head += f" {q['dropped']:,} more rows have a missing value and do not count."
    parts = [paragraph(head)]
    if m.judged.kind == "training":
        parts.append(paragraph("These are rows that it was trained on: on others it may do far worse.", "loud"))
    cost = data("quality.cost", q["cost"], f"{q['cost']:.4g}")
    facts = [
        ("cost", Raw(cost if math.isnan(q["cost_se"]) else f"{cost} ± {q['cost_se']:.2g}")),
        ("best constant answer's cost", q["constant"]),
    ]
    facts += _facts_of_answers(q) if "accuracy" in q else _facts_of_numbers(q)
    names = ("confusion", "roc", "precision-recall", "calibration", "residuals", "predicted")
    parts.append(pairs(facts))
    parts.append(figures(m, names))
    parts.append(_tables_of_answers(q) if "accuracy" in q else _tables_of_numbers(q))
    return "".join(parts)


def _facts_of_answers(q: Numbers) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = [("accuracy", Raw(data("quality.accuracy", q["accuracy"], percent(q["accuracy"]))))]
    pooled, ece = q["pooled"], q["calibration"]["ece"]
    binary = len(q.get("classes", ())) == 2
    if not binary:
        found.append(
            ("mean area under the ROC curves", Raw(data("quality.mean_auc", q["mean_auc"], _four(q["mean_auc"]))))
        )
        found.append(("mean average precision", Raw(data("quality.mean_ap", q["mean_ap"], _four(q["mean_ap"])))))
    name = "" if binary else ", all outputs together"
    off = f" (± {pooled['auc_may_be_off_by']:.1g}, from histograms)" if pooled["auc_may_be_off_by"] else ""
    found.append(
        (f"area under the ROC curve{name}", Raw(data("quality.pooled.auc", pooled["auc"], _four(pooled["auc"])) + off))
    )
    found.append((f"average precision{name}", Raw(data("quality.pooled.ap", pooled["ap"], _four(pooled["ap"])))))
    found.append(("expected calibration error", Raw(data("quality.calibration.ece", ece, _four(ece)))))
    return found


def _tables_of_answers(q: Numbers) -> str:
    each = q["each"]
    shown = (
        each if len(each) <= _ROWS_OF_CLASSES else sorted(each, key=lambda one: (one["recall"] is None, one["recall"]))
    )
    rows = [
        [Raw(text(one["name"])), one["rows"], percent(one["recall"]), percent(one["precision"]), _four(one["auc"]),
         _four(one["ap"])]
        for one in shown[:_ROWS_OF_CLASSES]
    ]  # fmt: skip
    what = "class" if "classes" in q else "label"
    caption = f"By {what}" if len(each) == len(rows) else f"The {len(rows)} classes of the lowest recall"
    head = [what, "weight of rows" if q["weighted"] else "rows", "recall", "precision", "ROC area", "average precision"]
    parts = [table(head, rows, caption)]
    if "confusion" in q and len(q["confusion"]) <= _NAMES_OF_MATRIX:
        names = [str(one) for one in q["classes"]]
        matrix = [[Raw(text(name)), *row] for name, row in zip(names, q["confusion"], strict=True)]
        parts.append(
            details("The confusion matrix in numbers", table(["truth \\ answer", *names], matrix, "Confusion"))
        )
    if q.get("most_confused"):
        worst = [[f"{one['truth']} → {one['answer']}", one["rows"]] for one in q["most_confused"]]
        parts.append(details("The most frequent mistakes", table(["truth → answer", "rows"], worst, "Mistakes")))
    c = q["calibration"]
    bins = [
        [f"{i / len(c['bins']):.2f} – {(i + 1) / len(c['bins']):.2f}", b["weight"], _four(b["confidence"]),
         _four(b["share"])]
        for i, b in enumerate(c["bins"])
    ]  # fmt: skip
    head = ["probability", "answers", "mean probability", "share that is true"]
    parts.append(details("Calibration in numbers", table(head, bins, f"Calibration: {c['of']}")))
    return "".join(parts)


def _facts_of_numbers(q: Numbers) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = [("RMSE", Raw(data("quality.rmse", q["rmse"], figure_of(q["rmse"]))))]
    found.append(("R²", Raw(data("quality.r2", q["r2"], figure_of(q["r2"])))))
    within = ", ".join(f"{share} within {value:.4g}" for share, value in q["error_within"].items())
    of = "" if q["every"] == 1 else f" (of every {q['every']:,}th row)"
    found.append(("errors", within + of))
    return found


def _tables_of_numbers(q: Numbers) -> str:
    rows = [
        [f"output {k}", rmse, r2, bias]
        for k, (rmse, r2, bias) in enumerate(
            zip(q["rmse_per_output"], q["r2_per_output"], q["bias_per_output"], strict=True), 1
        )
    ]
    return table(["", "RMSE", "R²", "mean of prediction − truth"], rows[:_ROWS_OF_CLASSES], "By output")


def worst(m: Material, n: Numbers) -> str:
    """The rows it does worst on."""
    if not n["worst"]:
        unknown = f"what a single row costs is not known of {m.run.model.network.cost}"
        why = m.why_not or (unknown if m.quality and math.isnan(m.quality.cost_se) else "no row has a weight")
        return paragraph(f"Not looked at: {why}.")
    shares = {"probability": "its probability", "of_truth": "the truth's"}
    known = [name for name in shares if any(one[name] is not None for one in n["worst"])]
    head = ["row", "truth", "answer", *(shares[name] for name in known), "cost"]
    rows = []
    for one in n["worst"]:
        share = [percent(one[name]) for name in known]
        rows.append([one["row"], _label(one["truth"]), _label(one["answer"]), *share, f"{one['cost']:.4g}"])
    place = f", by their place in '{m.judged.split}'" if m.judged and m.judged.split else ""
    caption = f"The rows of the largest cost{place}"
    return figures(m, ("worst",), table(head, rows, caption))


def hidden(m: Material, n: Numbers) -> str:
    """The hidden units as pictures."""
    units = m.run.model.network.sizes[1]
    most = "" if units <= 100 else paragraph(f"The first 100 of {units:,} units.")
    return most + figures(m, ("hidden",))


def speed(m: Material, n: Numbers) -> str:
    """How fast it was."""
    t = n["throughput"]
    if t is None:
        return paragraph("Not looked at.")
    rows: list[tuple[str, Any]] = []
    if t["rows_per_s"] is not None:
        rows += [
            ("rows per second", Raw(data("throughput.rows_per_s", t["rows_per_s"], f"{t['rows_per_s']:,.0f}"))),
            ("GFLOP/s of matrix products", Raw(data("throughput.gflops", t["gflops"], f"{t['gflops']:,.3g}"))),
            ("measured over", f"{t['passes']:,.0f} passes in {t['seconds']:,.3g} s, after the first iteration"),
        ]
    if t["limit"]:
        limit = t["limit"]
        rows += [
            ("the matrix products alone", f"{limit['gflops']:,.3g} GFLOP/s, {limit['by']}, {limit['rows']:,} rows"),
            ("fraction of that", Raw(data("throughput.of_limit", t["of_limit"], percent(t["of_limit"])))),
        ]
    else:
        rows.append(("fraction of the machine's limit", f"not measured: {t['why_not']}"))
    beside = pairs(rows) + "".join(paragraph(note, "note") for note in t["notes"])
    return figures(m, ("throughput",), beside)


def description(m: Material, n: Numbers) -> str:
    """What was asked for, and what its bits depend on."""
    told = n["description"]
    rows = [(name, value) for name, value in told.items() if name not in ("matrices", "checkpoints")]
    parts = [pairs(rows)]
    listed = [f"<li>{text(one)}</li>" for name in ("matrices", "checkpoints") for one in told.get(name, [])]
    parts.append(details("The matrices and the checkpoints", f"<ul>{''.join(listed)}</ul>"))
    parts.append("<h3>Once more</h3>" + paragraph("This repeats the run:") + code(n["command"]))
    parts.append(
        "<h3>What its bits depend on</h3>"
        + paragraph(
            "The same data (their fingerprint is 'data'), words and conditions give the same Θ, bit for bit, on any "
            "number of threads."
        )
        + pairs(sorted(n["conditions"].items()))
    )
    return "".join(parts)


def figures(m: Material, names: tuple[str, ...], beside: str = "") -> str:
    """Those of these pictures that there are, each with what it shows, and what stands beside the last one."""
    there = pictures.of(m)
    parts = []
    for name in (name for name in names if name in there):
        one = pictures.drawing(name)
        drawn = svg(pictures.draw(m, name), f"drawn-{name}").replace("{title}", text(f"{one.title}. {one.about}"), 1)
        parts.append(
            f'<figure id="picture-{name}">{drawn}<figcaption><strong>{text(one.title)}.</strong> {text(one.about)}'
            "</figcaption></figure>"
        )
    if not parts:
        return beside
    parts += [f"<div>{beside}</div>"] if beside else []
    return f'<div class="figures">{"".join(parts)}</div>'


def all_of(m: Material) -> list[tuple[str, str, Callable[[Material, Numbers], str]]]:
    """The sections: id, title, who writes it."""
    found: list[tuple[str, str, Callable[[Material, Numbers], str]]] = [
        ("verdict", "In short", verdict),
        ("training", "How the training went", training),
        ("quality", "How good it is", quality),
    ]
    if m.quality is not None:
        found.append(("worst", "The worst rows", worst))
    if "hidden" in pictures.of(m):
        found.append(("hidden", "Hidden units", hidden))
    return [*found, ("speed", "Speed", speed), ("run", "The run", description)]


def _label(value: Any) -> Raw:
    """A class, labels, or targets in four digits, of many the first."""
    values = value if isinstance(value, list) else [value]
    shown = [f"{one:.4g}" if isinstance(one, float) else str(one) for one in values[:_TARGETS]]
    return Raw(text(", ".join(shown) + (", …" if len(values) > _TARGETS else "")))


def _four(value: float | None) -> str:
    return "–" if value is None or value != value else f"{value:.4f}"
