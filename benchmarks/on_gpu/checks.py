"""The tests marked gpu, and compute-sanitizer's tools on the fused kernel."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from .card import Card
from .plan import Task

ROOT = Path(__file__).parents[2]
_USUAL = "/usr/local/cuda/bin/compute-sanitizer"
_COUNT = re.compile(r"(\d+) (passed|failed|skipped|error)")
_ERRORS = re.compile(r"(?:ERROR SUMMARY: |RACECHECK SUMMARY: )(\d+)")


def carry_out(task: Task, smoke: bool, timeout: float, sanitizer: str | None) -> dict[str, Any]:
    """The row of a check, whatever happens."""
    began = time.monotonic()
    row = _tests(smoke, timeout) if task.what == "tests" else _sanitized(task.what, smoke, timeout, sanitizer)
    return row | {"took_s": time.monotonic() - began}


def _tests(smoke: bool, timeout: float) -> dict[str, Any]:
    # in a smoke test a few tests that need no GPU, to see that they are run and counted
    which = ["tests/test_tree.py"] if smoke else ["-m", "gpu"]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--durations=5", *which]
    code, text = _run(command, timeout)
    if "No module named pytest" in text:
        return {"status": "absent", "why": "pytest is not installed"}
    # the last line of a finished run counts; of one that was cut off, its dots do
    counts = {word: int(n) for n, word in _COUNT.findall(text.strip().splitlines()[-1] if text.strip() else "")}
    failures = [line[:300] for line in text.splitlines() if line.startswith(("FAILED", "ERROR"))]
    found = {"counts": counts, "failures": failures[:20], "tail": text[-1500:] if code else ""}
    if code is None:
        return {"status": "timeout", "why": f"not done within {timeout:.0f} s", **found}
    if code == 5 or not counts:
        return {"status": "failed", "why": f"no test was run (exit code {code})", **found}
    return {"status": "ok", **found}


def _sanitized(tool: str, smoke: bool, timeout: float, sanitizer: str | None) -> dict[str, Any]:
    program = sanitizer or shutil.which("compute-sanitizer") or (_USUAL if os.path.exists(_USUAL) else None)
    if program is None:
        return {"status": "absent", "why": "no compute-sanitizer here"}
    command = [
        program, "--tool", tool, "--error-exitcode", "9", "--print-limit", "5",
        sys.executable, str(Path(__file__).parents[1] / "gpu.py"), "--once", *(["--smoke"] if smoke else []),
    ]  # fmt: skip
    code, text = _run(command, timeout)
    summary = _ERRORS.findall(text)
    if code is None:
        return {"status": "timeout", "why": f"not done within {timeout:.0f} s", "tail": text[-800:]}
    if "did one cost and gradient" not in text and code != 9:  # the tool does not get on with this machine
        return {"status": "absent", "why": f"nothing ran under {tool} (exit code {code})", "tail": text[-800:]}
    errors = int(summary[-1]) if summary else (0 if code == 0 else 1)
    return {"status": "ok", "errors": errors, "tail": text[-1500:] if errors else ""}


def once(smoke: bool) -> None:
    """One cost and gradient by the fused kernel at each of its precisions, small: what compute-sanitizer looks at."""
    from dataclasses import replace

    from . import inputs, ours, plan
    from .measure import Absent

    sys.path.insert(0, str(ROOT))
    card = Card(smoke)
    if not smoke:  # each array its own allocation, so that the tool sees where it ends
        card.xp.cuda.set_allocator(None)
    for name, m in (("A", 300), ("D", 777)):
        data = inputs.make(card, replace(plan.shapes(smoke)[name], m=m), "float32")
        for precision in ("tf32", "tf32x3", "bf16"):
            try:
                ready = ours.build(Task("", "ours", plan.FUSED, name, precision), data, card)
            except Absent as reason:
                print(f"{name} {precision}: {reason}")
                continue
            print(f"{name} {precision}: J = {ready.J(ready.evaluate())}, did one cost and gradient", flush=True)
            ready.close()


def _run(command: list[str], timeout: float) -> tuple[int | None, str]:
    """Exit code (None: it was stopped) and everything it said."""
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT, start_new_session=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    try:
        text, _ = process.communicate(timeout=timeout)
        return process.returncode, text
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)  # its children too
        return None, process.communicate()[0]
