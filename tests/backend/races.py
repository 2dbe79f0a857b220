"""A fused kernel under ThreadSanitizer: real threads, real barriers, and the same with one barrier taken out."""

from __future__ import annotations

import re
import subprocess
from functools import cache
from pathlib import Path

from fused_case import Case
from host_program import COMPILER

from gpubp.backend.cuda.fused import Fused
from gpubp.backend.kernels import Kernel

_BARRIER = re.compile(r"^ +(__syncthreads\(\);|meet_crew\(\);|await_copies\(\);)", re.MULTILINE)


def barriers(fused: Fused) -> list[tuple[str, Kernel]]:
    """The line of each barrier or wait, and the kernel without it."""
    body = fused.kernel.body
    without = []
    for match in _BARRIER.finditer(body):
        number = body.count("\n", 0, match.start()) + 1
        following = body[match.end() :].split("\n", 2)[1].strip()
        without.append((
            f"{match[1]} in line {number}, before: {following[:60]}",
            fused.kernel._replace(body=body[: match.start(1)] + body[match.end(1) :]),
        ))  # fmt: skip
    return without


@cache
def why_not() -> str | None:
    """Why there is no ThreadSanitizer here, or None."""
    if COMPILER is None:
        return "no C++ compiler (g++ or clang++)"
    program = "#include <barrier>\n#include <thread>\nint main() { std::barrier<> b(1); b.arrive_and_wait(); }\n"
    options = ["-std=c++20", "-fsanitize=thread", "-pthread"]
    command = [COMPILER, *options, "-x", "c++", "-", "-o", "/dev/null"]
    done = subprocess.run(command, input=program, capture_output=True, text=True)
    return None if done.returncode == 0 else "the C++ compiler has no ThreadSanitizer for C++20"


def found(folder: Path, case: Case, fused: Fused, kernel: Kernel, with_gradient: bool) -> bool:
    """Whether ThreadSanitizer sees a race in a launch of two blocks on random rows."""
    assert case.labels is None and case.stored == "f4" and not case.standardised
    m, K = case.m, case.sizes[-1]
    text = f"""\
#include "threads_on_host.hpp"
{kernel.text}
static std::vector<float> filled(size_t n, float width) {{
  static unsigned state = 1;
  std::vector<float> v(n);
  for (float& f : v) state = state * 1664525u + 1013904223u, f = width * ((state >> 8) / 8388608.0f - 1);
  return v;
}}
int main() {{
  std::vector<float> x = filled({m * case.sizes[0] + 4}, 1), w = filled({m + 4}, 1), v = filled({m + 4}, 1);
  std::vector<float> Theta = filled({fused.P}, 0.5f), partials({case.leaves * fused.P});
  std::vector<int> labels({m + 4}), numbers({K});
  for (int i = 0; i < {m}; ++i) labels[i] = i % {K};
  for (int k = 0; k < {K}; ++k) numbers[k] = k;
  std::vector<double> costs({2 * case.leaves});
  std::vector<unsigned char> memory({fused.kernel.shared + 16}, 0xFF);
  shared_ = memory.data() + (-(size_t)memory.data() & 15);
  named_threads = {32 * fused.shape.groups};
  launch(2, {kernel.threads}, [&] {{
    {kernel.name}(x.data(), labels.data(), numbers.data(), nullptr, nullptr, w.data(), v.data(), Theta.data(),
                  partials.data(), costs.data(), {m}, {case.leaves}, 0, {case.leaves}, 0, 0, 0, {m},
                  0, {int(with_gradient)});
  }});
}}
"""
    path = folder / "racing.cpp"
    path.write_text(text)
    command = [
        COMPILER or "", "-std=c++20", "-O1", "-g1", "-w", "-fsanitize=thread", "-pthread", f"-I{Path(__file__).parent}",
        "-o", folder / "racing", path,
    ]  # fmt: skip
    built = subprocess.run(command, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    environment = {"TSAN_OPTIONS": "halt_on_error=1:exitcode=66:history_size=4"}
    done = subprocess.run([folder / "racing"], capture_output=True, text=True, timeout=120, env=environment)
    assert done.returncode in (0, 66), done.stderr
    assert (done.returncode == 66) == ("data race" in done.stderr), done.stderr
    return done.returncode == 66
