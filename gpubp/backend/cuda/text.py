"""The fused kernel's text: constants and formulas, which come before the `.cuh` files, and a tile's steps, after."""

from __future__ import annotations

from ... import formula
from ...formula import Formula
from .shape import Shape, scores_stride, staged, stride
from .task import Task, c_type


def constants(task: Task, cut: Shape) -> str:
    """What the device text must know of the task and the cut, and the types."""
    integers = {
        "PRECISION": {"tf32": 1, "tf32x3": 3, "bf16": 2}[task.precision],
        "WARPS": cut.warps, "THREADS": 32 * cut.warps, "TILE": cut.tile, "BANDS": cut.bands, "GROUPS": cut.groups,
        "FEATURES": task.sizes[0], "OUTPUTS": task.K, "SCORES": scores_stride(task.K),
        "SHARERS": 1 << max(0, (2 * cut.groups // cut.bands).bit_length() - 1), "LABELS": task.labels_per_row,
    }  # fmt: skip
    flags = {
        "KEEPS_Z": not task.g.slope_from_a, "ROWWISE": task.J.score.shape == "rowwise", "ONE_HOT": task.one_hot,
        "WEIGHTED": task.weighted, "HELD": task.held,
    }  # fmt: skip
    lines = [f"constexpr int {name} = {value};" for name, value in integers.items()]
    lines += [f"constexpr bool {name} = {str(value).lower()};" for name, value in flags.items()]
    types = {"T": "float", "Stored": c_type(task.stored), "Label": c_type(task.labels),
             "Target": "int" if task.one_hot else "float"}  # fmt: skip
    lines += [f"typedef {text} {name};" for name, text in types.items()]
    return "\n".join(lines) + "\n"


def formulas(task: Task) -> str:
    """The formulas as functions, each in its own words; with stand-ins for those that this task does not use."""
    g, J = task.g, task.J
    x = "stored, mean[column], scale[column]" if task.conversion == "standardise" else "stored"
    lines = [
        _function("activated", g.g), _function("sloped", g.slope), _function("cell_cost", J.cell),
        _function("output_of", J.h), _function("output_error", J.delta),
        _function("convert_one", {"cast": formula.cast, "standardise": formula.standardise}[task.conversion], "Stored"),
        "__device__ __forceinline__ float converted(\n"
        f"    Stored stored, const double* mean, const double* scale, int column) {{ return convert_one({x}); }}\n",
    ]  # fmt: skip
    other = "float, float" if not g.slope_from_a else "float, float, float"
    lines.append(f"__device__ __forceinline__ float sloped({other}) {{ return 0; }}\n")
    if task.one_hot:
        lines.append(_function("target", formula.one_hot, "int"))
        lines.append("__device__ __forceinline__ int read_label(Label label) { return int(label); }\n")
    else:
        lines.append(_function("read_label", formula.cast, "Label"))
        lines.append("__device__ __forceinline__ float target(float y, int) { return y; }\n")
    if J.score.shape == "rowwise":
        lines.append("__device__ __forceinline__ float scored(float z, float) { return z; }\n")
        lines.append(_ROWWISE.replace("SCORE_TEXT", J.score.cuda))
    else:
        lines.append(_function("scored", J.score))
        lines.append("__device__ __forceinline__ void score_row(float*, const float*, int, int) {}\n")
    return "".join(lines)


def _function(name: str, f: Formula, S: str = "float") -> str:
    arguments = ", ".join(f"{S if a.type == 'S' else a.type} {a.name}" for a in f.inputs)
    out = f.output
    return (
        f"__device__ __forceinline__ {out.type} {name}({arguments}) "
        f"{{ {out.type} {out.name}; {{ {f.cuda}; }} return {out.name}; }}\n"
    )


# SHARERS neighbouring lanes take a row's columns in turns, and each ends with the same sum. Threads beyond the last row
# come along, for a shuffle is of the whole warp: their `outputs_` is 0.
_ROWWISE = """\
__device__ __forceinline__ void score_row(float* row_, const float* bias_, int sharer_, int outputs_) {
  const auto z = [&](int j) -> float { return row_[j]; };
  const auto b = [&](int j) -> float { return bias_[j]; };
  const auto s = [&](int j) -> float& { return row_[j]; };
  const auto each = [&](auto f_) { for (int j_ = sharer_; j_ < outputs_; j_ += SHARERS) f_(j_); };
  const auto row_max = [&](auto f_) {
    double top_ = __longlong_as_double(0xfff0000000000000ll);  // −∞
    each([&](int j_) { top_ = fmax(top_, f_(j_)); });
    for (int other_ = SHARERS / 2; other_ > 0; other_ >>= 1)
      top_ = fmax(top_, __shfl_xor_sync(0xffffffffu, top_, other_));
    return top_;
  };
  const auto row_sum = [&](auto f_) {
    double sum_ = 0;
    each([&](int j_) { sum_ += f_(j_); });
    for (int other_ = SHARERS / 2; other_ > 0; other_ >>= 1) sum_ += __shfl_xor_sync(0xffffffffu, sum_, other_);
    return sum_;
  };
  { SCORE_TEXT; }
}
"""


def steps(task: Task, cut: Shape, part_rows: int) -> str:
    """The kernel's own text: the loop over tiles, layer by layer."""
    lines = [*_declarations(task, cut), *_rows(task, cut), *_beginning(task, cut), *_loop(task, cut, part_rows)]
    return "".join(line + "\n" if line.startswith("#") else f"  {line}\n" for line in lines)


def _strides(task: Task, cut: Shape) -> list[int]:
    """By Ng's l: words from one row of layer l to the next."""
    return [0, *(stride(width, task.layout.per_word) for width in cut.widths[1:])]


def _operand(task: Task, l: int) -> str:
    """What holds δ^(l) when it is needed."""
    return "delta" if l == len(task.sizes) else f"a{l}"


def _strip(name: str, row: int) -> str:
    """A strip's part of something that has `row` elements for each row."""
    return f"{name} + strip * {row}"


def _declarations(task: Task, cut: Shape) -> list[str]:
    """Names for the places in shared memory, and the gradient's sums."""
    L, words = len(task.sizes), _strides(task, cut)

    def place(type: str, name: str, where: str) -> str:
        return f"{type}* const {name} = ({type}*)(shared_ + {cut.places[where]});"

    lines = ["#ifdef __CUDACC__", "extern __shared__ __align__(16) unsigned char shared_[];", "#endif"]
    for l in range(1, L):
        lines += [place("Word", f"a{l}", f"a{l}"), place("Word", f"W{l}", f"W{l}"), place("float", f"b{l}", f"b{l}")]
        if l > 1:
            lines.append(place("float", f"z{l}", f"z{l}") if f"z{l}" in cut.places else f"float* const z{l} = nullptr;")
        r = cut.rectangles[l]
        assert r is not None
        half = str(cut.widths[l + 1] == 8).lower()
        size = f"{r.down}, {r.across}, {-(-cut.widths[l + 1] // 16)}, {cut.widths[l] // 8}"
        lines.append(f"Rectangle<{size}, {words[l + 1]}, {words[l]}, {half}> Delta{l};")
    lines += [
        place("Word", "delta", "delta"), place("float", "scores", "scores"), place("Target", "y", "y"),
        place("float", "w_tile", "w"), place("float", "v_tile", "v"), place("int", "numbers_tile", "numbers"),
        place("double", "cost_sums", "cost_sums"),
    ]  # fmt: skip
    return lines


def _rows(task: Task, cut: Shape) -> list[str]:
    """Where rows are, and how a strip's come: open, live_rows, fetch_rows."""
    strip = 16 * cut.bands
    # what is fetched: its pointer, elements of a row, bytes of a row, and what its first row is
    fetched = [("x", "x", task.sizes[0], task.layout.stored, " - x_row")]
    fetched += [("label", "labels", task.labels_per_row, task.layout.label, "")]
    fetched += [("w", "w", 1, 4, "")] * task.weighted + [("v", "v", 1, 4, "")] * task.held
    lines = [
        f"unsigned char* const staged_{name} = shared_ + {cut.places[f'staged_{name}']}"
        f" + Lane(threadIdx.x).strip * {staged(strip, size)};"
        for name, _, _, size, _ in fetched
    ]
    lines += """\
const auto open = [&](long long leaf) {
  const long long first = leaf * m / leaves, end = (leaf + 1) * m / leaves, rows = end - first;
  return Cursor{leaf, first, first + (from < rows ? from : rows), first + (to < rows ? to : rows)};
};
const auto live_rows = [&](const Cursor& at) {  // of this thread's strip
  const long long rest = at.stop - at.row - here().strip * STRIP;
  return rest < 0 ? 0 : rest < STRIP ? (int)rest : STRIP;
};
const auto fetch_rows = [&](const Cursor& at) {
  const long long row = at.row + here().strip * STRIP, live = live_rows(at);""".splitlines()
    for name, pointer, elements, size, off in fetched:
        lines.append(f"  fetch(staged_{name}, {pointer} + (row{off}) * {elements}, live * {size});")
    return [*lines, "};"]


def _beginning(task: Task, cut: Shape) -> list[str]:
    """What is done once: the first rows are asked for, then weights are loaded while they travel."""
    words, w = _strides(task, cut), cut.widths
    lines = ["Cursor now = open((long long)first_leaf + blockIdx.x);", "if (now.leaf < last_leaf) fetch_rows(now);"]
    for l, (W, b) in enumerate(task.offsets, start=1):
        units = f"{task.sizes[l]}, {task.sizes[l - 1]}"
        lines.append(f"load_weights<{units}, {w[l + 1]}, {w[l]}, {words[l]}>(Theta + {W}, W{l}, threadIdx.x);")
        lines.append(f"load_bias<{task.sizes[l]}, {w[l + 1]}>(Theta + {b}, b{l}, threadIdx.x);")
    lines += [
        f"for (int i = threadIdx.x; i < TILE * {words[-1]}; i += THREADS) delta[i] = 0;  // columns beyond K stay so",
        "for (int i = threadIdx.x; i < OUTPUTS; i += THREADS) numbers_tile[i] = ONE_HOT ? numbers[i] : 0;",
    ]
    return lines


def _loop(task: Task, cut: Shape, part_rows: int) -> list[str]:
    """The loop over tiles: convert, forward, output, gradient and backward, and every so often the sums."""
    lines = """\
Costs sums;
bool adds = keep;
while (now.leaf < last_leaf) {
  Cursor next = now;
  next.row += TILE;
  const bool ends = next.row >= now.stop;
  if (ends) next = open(now.leaf + gridDim.x);
  const int live = live_rows(now);
  await_copies();
  __syncthreads();  // rows have come; nobody needs the last tile's any more
  const int strip = here().strip * STRIP;""".splitlines()
    lines += _conversion(task, cut)
    lines += ["  meet_crew();", "  if (next.leaf < last_leaf) fetch_rows(next);"]
    lines += _forward(task, cut)
    lines += _backward(task, cut)
    lines += f"""\
  if (ends ? now.stop > now.first + from || !keep : (next.row - now.first) % {part_rows} == 0) {{
    if (with_gradient) {{
      float* const leaf_sums = partials + (now.leaf - base) * {task.P};""".splitlines()
    for l, (W, b) in enumerate(task.offsets, start=1):
        units = f"{task.sizes[l]}, {task.sizes[l - 1]}"
        lines.append(f"      Delta{l}.template flush<{units}>(leaf_sums + {W}, leaf_sums + {b}, adds);")
    for u, v in task.gaps:
        lines.append(f"      if (!adds) for (int i = {u} + threadIdx.x; i < {v}; i += THREADS) leaf_sums[i] = 0;")
    lines += """\
    }
    flush_costs(sums, cost_sums, costs + 2 * (now.leaf - base), adds);
    adds = true;
  }
  if (ends) adds = keep;
  now = next;
}""".splitlines()
    return lines


def _conversion(task: Task, cut: Shape) -> list[str]:
    """A strip's rows, labels and weights from staging to where they are used."""
    words = _strides(task, cut)[1]
    lines = f"""\
  {{
    const int member = here().member;
    const long long row = now.row + strip;
    const auto stored_x = (const Stored*)(staged_x + head(x + (row - x_row) * FEATURES));
    convert<{cut.widths[1]}, {words}>(stored_x, {_strip("a1", words)}, mean, scale, live);
    const auto stored_label = (const Label*)(staged_label + head(labels + row * LABELS));
    for (int i = member; i < live * LABELS; i += CREW)
      y[strip * LABELS + i] = read_label(stored_label[i]);""".splitlines()
    for name in ("w",) * task.weighted + ("v",) * task.held:
        lines.append(f"    const auto stored_{name} = (const float*)(staged_{name} + head({name} + row));")
        lines.append(f"    for (int i = member; i < live; i += CREW) {name}_tile[strip + i] = stored_{name}[i];")
    return [*lines, "  }"]


def _forward(task: Task, cut: Shape) -> list[str]:
    """All layers of a strip, and its costs and δ^(L)."""
    L, words, w = len(task.sizes), _strides(task, cut), cut.widths
    lines = []

    def product(l: int) -> str:
        """Template arguments of the product that makes layer l + 1."""
        terms = w[l] // (8 * task.layout.per_word)
        return f"{w[l + 1]}, {cut.columns[l + 1]}, {terms}, {words[l]}, {words[l]}"

    for l in range(1, L - 1):
        into, z = _strip(f"a{l + 1}", words[l + 1]), _strip(f"z{l + 1}", w[l + 1] + 4)
        lines.append(f"  forward<{product(l)}, {words[l + 1]}>({_strip(f'a{l}', words[l])}, W{l}, b{l}, {into}, {z});")
        lines.append("  meet_crew();")
    scores = _strip("scores", scores_stride(task.K))
    lines.append(f"  last_forward<{product(L - 1)}>({_strip(f'a{L - 1}', words[L - 1])}, W{L - 1}, {scores});")
    lines.append("  meet_crew();")
    lines.append(f"  output<{words[L]}>({scores}, b{L - 1}, {_strip('y', task.labels_per_row)}, numbers_tile,")
    lines.append(f"      w_tile + strip, v_tile + strip, {_strip('delta', words[L])}, with_gradient, live, sums);")
    return lines


def _backward(task: Task, cut: Shape) -> list[str]:
    """Δ^(l), a sum over the rows of all strips, and δ^(l) of a strip, from right to left."""
    L, words, w = len(task.sizes), _strides(task, cut), cut.widths
    lines = ["  if (with_gradient) {"]
    for l in range(L - 1, 0, -1):
        delta = _operand(task, l + 1)
        lines.append(f"    __syncthreads();  // δ^({l + 1}) is there")
        lines.append(f"    Delta{l}.add({delta}, a{l});")
        if l > 1:
            terms = w[l + 1] // (8 * task.layout.per_word)
            product = f"{w[l]}, {cut.columns[l]}, {terms}, {words[l + 1]}, {words[l]}, {words[l]}"
            into, z = _strip(f"a{l}", words[l]), _strip(f"z{l}", w[l] + 4)
            lines.append(f"    __syncthreads();  // nobody needs a^({l}) any more")
            lines.append(f"    backward<{product}>({_strip(delta, words[l + 1])}, W{l}, b{l - 1}, {into}, {z});")
    return [*lines, "  }"]
