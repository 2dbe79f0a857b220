"""gpubp bench"""

from __future__ import annotations

from typing import Any

import click

from ..precision import LADDER
from ._options import Listing, emit, engine_options, json_option, table


def _layers(ctx: click.Context, param: click.Parameter, text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise click.BadParameter(f"'{text}'; wanted units per layer such as 28,64,64,1") from None


@click.command(name="bench", short_help="How fast this machine is, and what would make it faster.")
@click.option(
    "--layers", default="784,256,128,10", callback=_layers, metavar="SIZES", help="Units of every layer, input first."
)
@click.option(
    "--activation", default="sigmoid", metavar="NAME", cls=Listing, room="activation", help="Of the hidden layers:"
)
@click.option("--cost", default="logistic", metavar="NAME", cls=Listing, room="cost", help="With its output function:")
@click.option("--rows", type=click.IntRange(1), help="How many; by default so many that a pass takes 0.1 to 0.25 s.")
@click.option("--precision", type=click.Choice(LADDER), default="fp32", help="Of a pass.")
@engine_options
@click.option("--seconds", type=float, default=2.0, help="How long each measurement takes; there are up to five.")
@json_option
def command(layers: tuple[int, ...], activation: str, cost: str, as_json: bool, **options: Any) -> None:
    """Time one cost and gradient on random rows, beside its matrix products alone, and say what would make it faster.

    The answer is compared with plain NumPy's before anything is timed.
    """
    from ..bench import bench
    from ..network import Network

    result = bench(Network(layers, activation, cost), **options)
    emit(result, as_json, _text(result))


def _text(r: dict[str, Any]) -> str:
    checked, limit, one = r["checked"], r["limit"], r["one_thread"]
    threads = "1 thread" if r["threads"] == 1 else f"{r['threads']} threads"
    asked = f" of {r['most_threads']}, as so few rows share no further" if r["threads"] < r["most_threads"] else ""
    compiled = ", with compiled code loaded or made" if r.get("kernel") == "compiled" else ""
    lines: list[tuple[str, Any]] = [
        ("network", f"{r['network']}, {r['parameters']:,} parameters, {r['activation']} units, {r['cost']} cost"),
        ("rows", f"{r['rows']:,} random ones, {r['precision']}"),
        ("engine", f"{r['engine']}; {threads}{asked}"),
        (
            "answer",
            f"right: on {checked['rows']:,} rows J is {checked['J_error']:.1g} and ∇J {checked['gradient_error']:.1g} "
            "from plain NumPy's in fp64 (relative)",
        ),
        ("first pass", f"{r['first_pass_s']:.2f} s on {checked['rows']:,} rows{compiled}"),
        ("pass", f"{_time(r['pass_s'])}, the median of {r['passes']:,}; spread {100 * r['spread']:.1f} %"),
        ("speed", f"{_three(r['rows_per_s'])} rows per second, {_three(r['gflops'])} GFLOP/s of matrix products"),
    ]
    if limit is None:
        lines.append(("limit", "the time of the matrix products alone is measured only for the CPU"))
    else:
        scaled = f", {limit['rows']:,} rows scaled up" if limit["rows"] < r["rows"] else ""
        share = r["of_products"]
        cached = "; its blocks stay in the cache, whole layers do not" if share < 0.99 else ""
        lines += [
            ("limit", f"{_time(limit['s'])} for its matrix products alone, on whole layers: {limit['by']}{scaled}"),
            ("", f"a pass takes {share:.2f} of that time, {100 / share:.0f} % of the products' speed{cached}"),
        ]
    if one:
        lines.append(("threads", f"{threads}: {one['speedup']:.2f} times as fast as one"))
    advice = r["advice"] or ["nothing known: this is what the machine gives"]
    return "\n".join([table(lines), "", "what would make it faster:", *(f"  {line}" for line in advice)])


def _time(seconds: float) -> str:
    unit, size = next((pair for pair in (("s", 1.0), ("ms", 1e-3)) if seconds >= pair[1]), ("µs", 1e-6))
    return f"{_three(seconds / size)} {unit}"


def _three(value: float) -> str:
    """Three digits, and no power of ten."""
    return f"{value:#.3g}".rstrip(".") if value < 999.5 else f"{float(f'{value:.3g}'):,.0f}"
