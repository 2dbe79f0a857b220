// A whole narrow network in one read of X: what happens to a tile of TILE rows. The generator (text.py) puts before it
//   T (float), Stored, Label, Target; formulas as functions: converted, read_label, target, activated, sloped, scored,
//   score_row, cell_cost, output_of, output_error; constants: PRECISION, WARPS, TILE, BANDS, GROUPS and the like.
//
// A tile is cut into strips of STRIP = 16·BANDS rows. GROUPS warps own a strip: they convert its rows, take them forward,
// through the output and backward, and share the columns. Only the gradient, a sum over rows, needs the strips of
// others: there each warp owns a rectangle of Δ^(l). So the block meets twice a layer, and a strip's crew in between.

// The warps of a crew take the columns of a layer's WIDTH (a multiple of 8·J) in turns, J·8 at a time.
#define EACH_SHARE(first) for (int first = me.group * 8 * J; first < WIDTH; first += GROUPS * 8 * J)

// a^(l+1) = g(a^(l) W^(l)ᵀ + b^(l)) of a strip. z^(l+1) is kept where g′ needs it.
template <int WIDTH, int J, int STEPS, int LEFT, int RIGHT, int OUT>
__device__ __forceinline__ void forward(
    const Word* a, const Word* W, const float* b, Word* out, float* z) {
  const Lane me = here();
  EACH_SHARE(first) {
    reconverge();
    float sum[BANDS][J][4];
    product<J, STEPS, LEFT, RIGHT, false>(sum, a, W, first, me);
#pragma unroll
    for (int j = 0; j < J; ++j) {
      const int column = first + 8 * j + 2 * me.t;
      const float b0 = b[column], b1 = b[column + 1];
#pragma unroll
      for (int i = 0; i < BANDS; ++i)
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const int row = 16 * i + 8 * half + me.g;
          const float z0 = sum[i][j][2 * half], z1 = sum[i][j][2 * half + 1];
          if constexpr (KEEPS_Z) {
            float* kept = z + row * (WIDTH + 4) + place(column);
            kept[0] = z0, kept[4] = z1;
          }
          store_pair(out + row * OUT, column, activated(z0, b0), activated(z1, b1));
        }
    }
  }
}

// z^(L) of a strip, without its bias.
template <int WIDTH, int J, int STEPS, int LEFT, int RIGHT>
__device__ __forceinline__ void last_forward(const Word* a, const Word* W, float* scores) {
  const Lane me = here();
  EACH_SHARE(first) {
    reconverge();
    float sum[BANDS][J][4];
    product<J, STEPS, LEFT, RIGHT, false>(sum, a, W, first, me);
#pragma unroll
    for (int i = 0; i < BANDS; ++i)
#pragma unroll
      for (int j = 0; j < J; ++j)
#pragma unroll
        for (int q = 0; q < 4; ++q) {
          const int row = 16 * i + 8 * (q >> 1) + me.g, column = first + 8 * j + 2 * me.t + (q & 1);
          if (column < OUTPUTS) scores[row * SCORES + column] = sum[i][j][q];
        }
  }
}

// δ^(l) = (δ^(l+1) W^(l)) ∘ g′ of a strip, written over a^(l).
template <int WIDTH, int J, int STEPS, int LEFT, int RIGHT, int OUT>
__device__ __forceinline__ void backward(
    const Word* delta, const Word* W, const float* b, Word* a, const float* z) {
  const Lane me = here();
  EACH_SHARE(first) {
    reconverge();
    float sum[BANDS][J][4];
    product<J, STEPS, LEFT, RIGHT, true>(sum, delta, W, first, me);
#pragma unroll
    for (int j = 0; j < J; ++j)
#pragma unroll
      for (int i = 0; i < BANDS; ++i)
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const int row = 16 * i + 8 * half + me.g, column = first + 8 * j + 2 * me.t;
          const float e0 = sum[i][j][2 * half], e1 = sum[i][j][2 * half + 1];
          float d0, d1;
          if constexpr (KEEPS_Z) {
            const float* kept = z + row * (WIDTH + 4) + place(column);
            d0 = sloped(e0, kept[0], b[column]), d1 = sloped(e1, kept[4], b[column + 1]);
          } else {
            float at[2];
            load_pair(a + row * OUT, column, at);
            d0 = sloped(e0, at[0]), d1 = sloped(e1, at[1]);
          }
          store_pair(a + row * OUT, column, d0, d1);
        }
  }
}

// Bytes [from, from + bytes) of global memory to a strip's place in staging, in pieces of 16 aligned bytes: the first
// byte comes to lie at `head`. Nothing is read but 16-byte pieces that hold a byte that was asked for.
__device__ __forceinline__ unsigned head(const void* from) { return (unsigned)((unsigned long long)from & 15); }

__device__ __forceinline__ void fetch(unsigned char* staging, const void* from, long long bytes) {
  const Lane me = here();
  const int pieces = bytes > 0 ? (int)(head(from) + bytes + 15) / 16 : 0;
  const unsigned char* aligned = (const unsigned char*)from - head(from);
  for (int i = me.member; i < pieces; i += CREW) copy_16_bytes(staging + 16 * i, aligned + 16 * i);
}

// A strip's rows from staging to the operand of the first layer; columns up to WIDTH and rows from `live` on are 0. Such
// a row of zeros goes through all layers like any other, but its cost is not counted and its δ^(L) is 0, hence all its δ.
template <int WIDTH, int STRIDE>
__device__ __forceinline__ void convert(
    const Stored* stored, Word* x, const double* mean, const double* scale, int live) {
  const Lane me = here();
  for (int i = me.member; i < STRIP * (WIDTH / 2); i += CREW) {
    const int row = i / (WIDTH / 2), column = i % (WIDTH / 2) * 2;
    float pair[2] = {0, 0};
#pragma unroll
    for (int q = 0; q < 2; ++q)
      if (row < live && column + q < FEATURES)
        pair[q] = converted(stored[row * FEATURES + column + q], mean, scale, column + q);
    store_pair(x + row * STRIDE, column, pair[0], pair[1]);
  }
}

// W (UNITS, INPUTS) from Θ to operand rows of `WIDTH` columns, zero beyond; `ROWS` of them.
template <int UNITS, int INPUTS, int ROWS, int WIDTH, int STRIDE>
__device__ __forceinline__ void load_weights(const float* __restrict__ W, Word* rows, int thread) {
#pragma unroll 8
  for (int i = thread; i < ROWS * (WIDTH / 2); i += THREADS) {
    const int row = i / (WIDTH / 2), column = i % (WIDTH / 2) * 2;
    const bool live = row < UNITS;
    const float first = live && column < INPUTS ? W[row * INPUTS + column] : 0.0f;
    const float second = live && column + 1 < INPUTS ? W[row * INPUTS + column + 1] : 0.0f;
    store_pair(rows + row * STRIDE, column, first, second);
  }
}

template <int UNITS, int ROWS>
__device__ __forceinline__ void load_bias(const float* __restrict__ b, float* padded, int thread) {
  for (int i = thread; i < ROWS; i += THREADS) padded[i] = i < UNITS ? b[i] : 0.0f;
}

// The output of a strip: from z^(L) to the costs and to δ^(L). A crew's threads take the cells (row, output) in turns.
struct Costs {
  double training = 0, validation = 0;
};

template <int STRIDE>
__device__ __forceinline__ void output(
    float* scores, const float* b, const Target* y, const int* numbers, const float* w, const float* v,
    Word* delta, bool with_gradient, int live, Costs& costs) {
  const Lane me = here();
  if constexpr (ROWWISE) {
    const int row = me.member / SHARERS;
    score_row(scores + row * SCORES, b, me.member % SHARERS, row < STRIP ? OUTPUTS : 0);
    meet_crew();
  }
  for (int i = me.member; i < STRIP * OUTPUTS; i += CREW) {
    const int row = i / OUTPUTS, k = i % OUTPUTS;
    float d = 0;
    if (row < live) {
      const float s = ROWWISE ? scores[row * SCORES + k] : scored(scores[row * SCORES + k], b[k]);
      const float y_k = target(y[ONE_HOT ? row : i], numbers[k]);
      const float weight = WEIGHTED ? w[row] : 1.0f;
      costs.training += cell_cost(s, y_k, weight);
      if constexpr (HELD) costs.validation += cell_cost(s, y_k, v[row]);
      if (with_gradient) d = output_error(output_of(s), y_k, weight);
    }
    if (with_gradient) {
      if constexpr (PRECISION == BF16) ((unsigned short*)(delta + row * STRIDE))[k] = (unsigned short)rounded_to_bf16(d, 0);
      else delta[row * STRIDE + place(k)] = operand(d);
    }
  }
}

// A block's costs in a fixed order become part of the leaf's.
__device__ __forceinline__ void flush_costs(Costs& costs, double* sums, double* out, bool adds) {
  const Lane me = here();
  for (int other = 16; other > 0; other >>= 1) {  // a + b = b + a to the bit: every lane gets the same sum
    costs.training += __shfl_xor_sync(0xffffffffu, costs.training, other);
    if constexpr (HELD) costs.validation += __shfl_xor_sync(0xffffffffu, costs.validation, other);
  }
  if (me.lane == 0) sums[2 * me.warp] = costs.training, sums[2 * me.warp + 1] = costs.validation;
  costs = Costs();
  __syncthreads();
  if (threadIdx.x < 2) {
    double sum = adds ? out[threadIdx.x] : 0.0;
    double block = 0;
    for (int warp = 0; warp < WARPS; ++warp) block += sums[2 * warp + threadIdx.x];
    out[threadIdx.x] = adds ? sum + block : block;
  }
}

// Where a block stands: a row of a leaf, and where its rows in this launch end.
struct Cursor {
  long long leaf, first, row, stop;
};
