"""One cost and gradient on several ranks: beside one rank, beside MPI's own Allreduce, beside PyTorch with gloo.

    python3 benchmarks/ranks.py --out FILE                      # all stages: about ten minutes
    python3 benchmarks/ranks.py --stages strong,tree --shape D  # some
    python3 benchmarks/ranks.py --torch PYTHON --stages peers   # a Python that has PyTorch
    python3 benchmarks/ranks.py --short                         # seconds: does it run?

strong     the same rows on 1, 2, 4 … ranks of one thread, and on one rank with as many threads
tree       the same passes, the root by our tree and by `Allreduce`, an evaluation of each in turn
weak       as many rows for each rank
crowded    twice as many ranks as cores: nothing breaks
exchange   the upper part of the tree alone, by size: nodes whole, by slices, and `Allreduce`
many       what one of thousands of ranks does itself in an exchange: its copies and additions
agreement  what follows an iteration: that Θ is the same everywhere, and whether to go on
peers      the lines of PyTorch that an expert would write, on the same rows

Contenders are alive together and asked in turns; a ratio is the median over the turns of the ratios within one. Nobody
is timed with a wrong answer, and gpubp's ranks must have the same bits. Seconds of cores are those of all ranks.
"""

from __future__ import annotations

import argparse
import os
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
STAGES = ("strong", "tree", "weak", "crowded", "exchange", "many", "agreement", "peers")
SIZES = (1_000, 10_000, 100_000, 300_000, 1_000_000, 3_000_000, 10_000_000, 100_000_000)  # bytes of a node
MANY = ((2, 1 << 14), (64, 1 << 14), (1024, 1 << 14), (8192, 1 << 14), (10_000, 1 << 14), (10_000, 1 << 20))  # leaves
PARAMETERS = (6_000, 235_000, 2_000_000, 6_000_000)
CHUNKS = (0, 2048, 8192)  # rows that PyTorch is tried with; 0: all at once


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--member", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--peer", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--stages", default=",".join(STAGES), help="some of " + ",".join(STAGES))
    parser.add_argument("--shape", default="B,D", help="of benchmarks/problems.py")
    parser.add_argument("--m", type=int, help="rows, instead of the shape's own")
    parser.add_argument("--ranks", help="1,2,4: by default powers of two as far as there are cores")
    parser.add_argument("--rounds", type=int, default=9, help="turns of each contender")
    parser.add_argument("--least", type=float, default=0.3, help="seconds of a turn")
    parser.add_argument(
        "--patience", type=float, default=5, help="seconds that a turn waits for cores without other work"
    )
    parser.add_argument("--mpiexec", metavar="PATH", help="by default the one beside this Python")
    parser.add_argument("--torch", metavar="PYTHON", help="a Python that has PyTorch, for the stage `peers`")
    parser.add_argument("--short", action="store_true", help="a quick look: small problems, two short turns")
    parser.add_argument("--out", metavar="FILE", help="write everything that was measured there")
    options = parser.parse_args()
    if options.member or options.peer:
        from on_ranks import member, peer

        (member if options.member else peer).serve()
        return 0
    stages = options.stages.split(",")
    if unknown := [name for name in stages if name not in STAGES]:
        parser.error(f"stage {', '.join(unknown)}; wanted some of {', '.join(STAGES)}")
    sys.path.insert(0, str(ROOT))
    for pool in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):  # the reference's, before NumPy comes
        os.environ.setdefault(pool, "1")
    from on_ranks import team
    from problems import SHAPES
    from report import conditions, write
    from runner import Pace

    from gpubp.backend.cores import available_cores

    launcher = team.mpiexec(options.mpiexec)
    if reason := team.why_no_ranks(launcher):
        print(f"skipped: {reason}")
        return 0
    cores = available_cores()
    counts = [int(n) for n in options.ranks.split(",")] if options.ranks else _powers(max(cores, 2))
    if unknown := [name for name in options.shape.upper().split(",") if name not in SHAPES]:
        parser.error(f"shape {', '.join(unknown)}; wanted some of {', '.join(SHAPES)}")
    shapes = [SHAPES[name].with_rows(options.m) for name in options.shape.upper().split(",")]
    pace = Pace(rounds=options.rounds, least=options.least, pause=0.1, patience=options.patience)
    if options.short:
        shapes = [SHAPES["D"].with_rows(4000)]
        pace = Pace(rounds=2, least=0.01, pause=0, patience=0)
    bench = Bench(launcher, pace, options.short)
    found: dict[str, Any] = {"what": "one cost and gradient on ranks", **conditions(), "cores": cores, "stages": {}}
    found["versions"]["mpi"] = _mpi()
    for stage in stages:
        if stage == "peers" and not options.torch:
            print("\n### peers\n\nskipped: --torch names no Python that has PyTorch")
            continue
        found["stages"][stage] = bench.run(stage, shapes, counts, cores, options.torch)
        write(options.out, found)
    if bench.failed:
        print("\n".join(["", *(f"**failed**: {reason}" for reason in bench.failed)]))
    return 1 if bench.failed else 0


class Bench:
    """The stages. What each gives is what the record holds; tables are printed on the way."""

    def __init__(self, launcher: str | None, pace: Any, short: bool) -> None:
        self._launcher, self._pace, self._short = launcher, pace, short
        self.failed: list[str] = []

    def run(self, stage: str, shapes: list[Any], counts: list[int], cores: int, torch: str | None) -> list[Any]:
        from runner import Dropped

        most = counts[-1]
        alone = [("1 rank, 1 thread", 1, 1)]
        if stage in ("exchange", "agreement"):
            jobs: list[tuple[Any, ...]] = [(getattr(self, stage), n) for n in counts if n > 1]
        elif stage == "many":
            jobs = [(self.many,)]
        elif stage == "weak":
            jobs = [(self.weak, shape, counts) for shape in shapes]
        else:
            ranks = [(f"{n} ranks, 1 thread", n, 1) for n in counts if n > 1]
            teams = {
                "strong": [*alone, *ranks, (f"1 rank, {most} threads", 1, most)],
                "tree": [(f"{most} ranks", most, 1)],
                "crowded": [(f"{most} ranks, 1 thread", most, 1), (f"{2 * cores} ranks, 1 thread", 2 * cores, 1)],
                "peers": [*alone, (f"{most} ranks, 1 thread", most, 1)],
            }[stage]
            how = ["tree", "allreduce"] if stage == "tree" else ["tree"]
            jobs = [(self.race, shape, teams, how, torch if stage == "peers" else None) for shape in shapes]
        print(f"\n### {stage}\n", flush=True)
        found = []
        for job, *arguments in jobs:
            try:
                found.append(job(*arguments))
            except Dropped as reason:
                self.failed.append(f"{stage}: {reason}")
        return found

    def race(self, shape: Any, teams: list[Any], how: list[str], torch: str | None) -> dict[str, Any]:
        """Teams with the same rows: turns, and ratios to the first (where there is one team, to its first way)."""
        from dataclasses import asdict

        from on_ranks.team import Team, refuse_wrong
        from problems import make, reference

        J, gradient = reference(make(shape))
        with ExitStack() as stack:
            path = stack.enter_context(_folder()) + "/gradient.npy"
            _save(path, gradient)
            names: list[str] = []
            entered: list[Any] = []

            def enter(team: Any, **words: Any) -> dict[str, Any]:
                stack.callback(team.close)
                notes = team.ask("build", shape=asdict(shape), threads=team.threads, **words)
                refuse_wrong(team.name, checked := team.ask("check", J=J, gradient=path))
                entered.append((team, {"ranks": team.ranks, "threads": team.threads, **notes, "answers": checked}))
                return checked

            bits = set()
            for name, n, threads in teams:
                names.append(name)
                checked = enter(Team(name, n, threads, launcher=self._launcher), how=how)
                bits.add(checked["tree"]["bits"])
            if len(bits) > 1:
                self.failed.append(f"{shape}: other bits on other ranks")
            for name, n, threads in teams if torch else []:
                for rows in CHUNKS:
                    enter(Team(_peer(name, rows), n, threads, torch=torch), rows=rows)
            turns = self._turns([team for team, _ in entered], lambda team: team.ask("turn", least=self._pace.least))
        record = {"shape": str(shape), "m": shape.m, "same_bits": len(bits) == 1, "contenders": {}}
        for team, notes in entered:
            for way in turns[team.name][0]:
                title = team.name if way in ("torch", "tree") and len(how) == 1 else f"{team.name}, {way}"
                record["contenders"][title] = {**notes, **_gathered([turn[way] for turn in turns[team.name]])}
        first = next(iter(record["contenders"].values()))["turns_s"]
        _compare(record["contenders"], first)
        print(f"{shape}; bits {'the same' if record['same_bits'] else '**different**'} on all ranks\n")
        _print(record["contenders"])
        return record

    def weak(self, shape: Any, counts: list[int]) -> dict[str, Any]:
        """Rows in proportion to ranks."""
        from dataclasses import asdict

        from on_ranks.team import Team

        per_rank = shape.m // counts[-1]
        with ExitStack() as stack:
            teams = []
            for n in counts:
                team = Team(f"{n} × {per_rank:,} rows", n, launcher=self._launcher)
                stack.callback(team.close)
                team.ask("build", shape=asdict(shape.with_rows(n * per_rank)), threads=1, how=["tree"])
                teams.append(team)
            turns = self._turns(teams, lambda team: team.ask("turn", least=self._pace.least))
        contenders: dict[str, Any] = {}
        for team in teams:
            contenders[team.name] = {"ranks": team.ranks, **_gathered([turn["tree"] for turn in turns[team.name]])}
        _compare(contenders, next(iter(contenders.values()))["turns_s"])
        print(f"{shape.with_rows(per_rank)} for each rank\n")
        _print(contenders)
        return {"shape": str(shape), "rows_per_rank": per_rank, "contenders": contenders}

    def exchange(self, ranks: int) -> dict[str, Any]:
        """The upper part of the tree by size."""
        sizes = SIZES[:2] if self._short else SIZES
        return self._by_size(ranks, "exchange", "bytes", sizes, "a node of")

    def many(self) -> dict[str, Any]:
        """One of many ranks, without the others."""
        from on_ranks.team import Team
        from report import table

        team, found = Team("many", 1), []
        try:
            for ranks, leaves in MANY[:2] if self._short else MANY:
                for bytes in (24_000, 8_000_000):
                    asked = {"ranks": ranks, "leaves": leaves, "bytes": bytes}
                    turns = self._turns([team], lambda team, asked=asked: team.ask("many", **asked, least=0.05))
                    found.append({**asked, **_gathered([turn["root"] for turn in turns["many"]])})
        finally:
            team.close()
        rows = [[f"{one['ranks']:,}", f"{one['leaves']:,}", f"{one['bytes']:,}", _us(one)] for one in found]
        print("\n".join([*table(("ranks", "leaves", "a node of", "µs"), rows), ""]), flush=True)
        return {"exchanges": found}

    def agreement(self, ranks: int) -> dict[str, Any]:
        """What follows an iteration, by parameters."""
        sizes = PARAMETERS[:1] if self._short else PARAMETERS
        return self._by_size(ranks, "agreement", "P", sizes, "parameters")

    def _by_size(self, ranks: int, what: str, word: str, sizes: tuple[int, ...], title: str) -> dict[str, Any]:
        from on_ranks.team import Team
        from report import table

        team, found, least = Team(what, ranks, launcher=self._launcher), {}, self._pace.least / 3
        try:
            for size in sizes:
                turns = self._turns([team], lambda team, size=size: team.ask(what, **{word: size}, least=least))
                found[str(size)] = {way: _gathered([turn[way] for turn in turns[what]]) for way in turns[what][0]}
        finally:
            team.close()
        ways = list(next(iter(found.values())))
        rows = [[f"{int(size):,}", *(_us(one.get(way)) for way in ways)] for size, one in found.items()]
        print("\n".join([f"{ranks} ranks, µs\n", *table((title, *ways), rows), ""]), flush=True)
        return {"ranks": ranks, "by_size": found}

    def _turns(self, teams: list[Any], ask: Any) -> dict[str, list[Any]]:
        turns: dict[str, list[Any]] = {team.name: [] for team in teams}
        for turn in range(self._pace.rounds):
            for team in teams if turn % 2 == 0 else teams[::-1]:
                self._pace.rest()
                turns[team.name].append(ask(team))
        return turns


def _gathered(turns: list[dict[str, Any]]) -> dict[str, Any]:
    import numpy as np

    seconds = [turn["seconds"] for turn in turns]
    return {
        "median_s": float(np.median(seconds)),
        "cpu_s": float(np.median([turn["cpu_s"] for turn in turns])),
        "turns_s": seconds,
        "turns_cpu_s": [turn["cpu_s"] for turn in turns],
    }


def _compare(contenders: dict[str, Any], first: list[float]) -> None:
    """How many times as fast as the first one: the median of the turns' ratios, and their quartiles."""
    import numpy as np

    for one in contenders.values():
        ratios = np.array(first) / np.array(one["turns_s"])
        one["times_as_fast"] = float(np.median(ratios))
        one["quartiles"] = [float(q) for q in np.percentile(ratios, (25, 75))]


def _print(contenders: dict[str, Any]) -> None:
    from report import table

    rows = [
        [name, f"{1e3 * one['median_s']:.2f}", f"{1e3 * min(one['turns_s']):.2f}", f"{1e3 * one['cpu_s']:.2f}",
         f"{one['times_as_fast']:.3f}", f"{one['quartiles'][0]:.3f} to {one['quartiles'][1]:.3f}"]
        for name, one in contenders.items()
    ]  # fmt: skip
    head = ("", "ms", "min", "ms of cores", "times as fast", "quartiles")
    print("\n".join([*table(head, rows), ""]), flush=True)


def _peer(name: str, rows: int) -> str:
    return f"torch, {name}" + (f", chunks of {rows:,}" if rows else "")


def _us(one: dict[str, Any] | None) -> str:
    return "" if one is None else f"{1e6 * one['median_s']:.1f}"


def _powers(most: int) -> list[int]:
    return [1 << i for i in range(most.bit_length()) if 1 << i <= most]


def _mpi() -> dict[str, str]:
    import importlib.metadata as metadata

    found = {}
    for package in ("mpi4py", "mpich", "openmpi"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def _folder() -> Any:
    import tempfile

    return tempfile.TemporaryDirectory()


def _save(path: str, gradient: Any) -> None:
    import numpy as np

    np.save(path, gradient)


if __name__ == "__main__":
    sys.exit(main())
