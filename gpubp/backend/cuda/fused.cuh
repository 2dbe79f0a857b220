// A whole narrow network in one read of X. The generator (fused.py) puts before this text:
//   T (float), Stored, Label; formulas as functions: converted, target, activated, sloped, scored, cell_cost, output, error
//   PRECISION, WARPS, THREADS, TILE, BANDS, GROUPS, FEATURES, OUTPUTS and the like.
//
// A tile of TILE rows is cut into strips of STRIP = 16·BANDS rows. GROUPS warps own a strip: they convert its rows, take
// them forward, through the output and backward; the warps of a strip share the columns. Only the gradient, a sum over
// rows, needs the strips of others: there each warp owns a rectangle of Δ^(l), and keeps it in registers over many tiles.
//
// Rows of operands lie in shared memory with a stride of 8k + 4 words, so that 8 rows of 4 words meet all 32 banks. In
// tf32 column c of each 8 lies at place (c & 1)·4 + c / 2: a lane's two neighbouring results (2t, 2t + 1) go to places
// t and t + 4, so stores meet all banks as well, and the rows 2t and 2t + 1 of a transposed operand do so too. The order
// of the terms of a product is free, so nobody else has to know.
enum { TF32 = 1, TF32X3 = 3, BF16 = 2 };

constexpr int PER_WORD = PRECISION == BF16 ? 2 : 1;  // columns
constexpr int STEP = 8 * PER_WORD;                   // terms of one product instruction
constexpr int STRIP = 16 * BANDS;
constexpr int STRIPS = TILE / STRIP;
constexpr int CREW = 32 * GROUPS;  // threads of a strip
constexpr int PROMOTE = 8;         // steps of a product after which tf32x3 rounds to nearest

template <int N>
struct Count {
  static constexpr int value = N;
};

struct Lane {  // where a thread stands
  int lane, g, t, warp, strip, group, member;  // member: of the strip's crew
  __device__ __forceinline__ Lane(int thread)
      : lane(thread & 31), g(lane >> 2), t(lane & 3), warp(thread >> 5), strip(warp / GROUPS), group(warp % GROUPS),
        member(thread % CREW) {}
};

// Asked for anew in each phase: what follows from it is then computed there, where otherwise every address of every
// phase would be computed once and kept in registers through the loop over tiles.
__device__ __forceinline__ Lane here() { return Lane(this_thread()); }

__device__ __forceinline__ void meet_crew(const Lane& me) {
  if constexpr (GROUPS == 1) __syncwarp();
  else if constexpr (STRIPS == 1) __syncthreads();
  else named_barrier(1 + me.strip, CREW);
}

__device__ __forceinline__ constexpr int place(int column) {  // in words, of tf32
  return (column & ~7) | (column & 1) << 2 | (column & 7) >> 1;
}

__device__ __forceinline__ Word operand(float value) {
  if constexpr (PRECISION == TF32) return rounded_to_tf32(value);
  return as_word(value);
}

// Columns `column` and `column + 1` of a row; `column` is even.
__device__ __forceinline__ void store_pair(Word* row, int column, float first, float second) {
  if constexpr (PRECISION == BF16) {
    row[column >> 1] = rounded_to_bf16(first, second);
  } else {
    row[place(column)] = operand(first);
    row[place(column) + 4] = operand(second);
  }
}

__device__ __forceinline__ void load_pair(const Word* row, int column, float (&pair)[2]) {
  if constexpr (PRECISION == BF16) {
    const Word both = row[column >> 1];
    pair[0] = as_float(both << 16), pair[1] = as_float(both & 0xffff0000u);
  } else {
    pair[0] = as_float(row[place(column)]), pair[1] = as_float(row[place(column) + 4]);
  }
}

// sum[i][FROM + j] += left[i] · right[j], j < N
template <int FROM, int I, int J, int N>
__device__ __forceinline__ void multiply(float (&sum)[I][J][4], const Word (&left)[I][4], const Word (&right)[N][2]) {
  if constexpr (PRECISION == TF32X3) {
    // x = high + low, both tf32: low·low is below what float32 can hold. The small products go first, and products of
    // the same sum are far apart, for each waits for the one before it.
    Word high_left[I][4], low_left[I][4], high_right[N][2], low_right[N][2];
#pragma unroll
    for (int i = 0; i < I; ++i)
#pragma unroll
      for (int q = 0; q < 4; ++q) {
        high_left[i][q] = rounded_to_tf32(as_float(left[i][q]));
        low_left[i][q] = rounded_to_tf32(as_float(left[i][q]) - as_float(high_left[i][q]));
      }
#pragma unroll
    for (int j = 0; j < N; ++j)
#pragma unroll
      for (int q = 0; q < 2; ++q) {
        high_right[j][q] = rounded_to_tf32(as_float(right[j][q]));
        low_right[j][q] = rounded_to_tf32(as_float(right[j][q]) - as_float(high_right[j][q]));
      }
#pragma unroll
    for (int i = 0; i < I; ++i)
#pragma unroll
      for (int j = 0; j < N; ++j) multiply_tf32(sum[i][FROM + j], low_left[i], high_right[j]);
#pragma unroll
    for (int i = 0; i < I; ++i)
#pragma unroll
      for (int j = 0; j < N; ++j) multiply_tf32(sum[i][FROM + j], high_left[i], low_right[j]);
#pragma unroll
    for (int i = 0; i < I; ++i)
#pragma unroll
      for (int j = 0; j < N; ++j) multiply_tf32(sum[i][FROM + j], high_left[i], high_right[j]);
  } else {
#pragma unroll
    for (int i = 0; i < I; ++i)
#pragma unroll
      for (int j = 0; j < N; ++j) {
        if constexpr (PRECISION == BF16) multiply_bf16(sum[i][FROM + j], left[i], right[j]);
        else multiply_tf32(sum[i][FROM + j], left[i], right[j]);
      }
  }
}

template <int I, int J>
__device__ __forceinline__ void clear(float (&sum)[I][J][4]) {
#pragma unroll
  for (int i = 0; i < I; ++i)
#pragma unroll
    for (int j = 0; j < J; ++j)
#pragma unroll
      for (int q = 0; q < 4; ++q) sum[i][j][q] = 0;
}

// Right fragments of J times 8 rows (of `stride` words) from `rows`, 8 words at `word`.
template <int J, int STRIDE>
__device__ __forceinline__ void load_right(Word (&right)[J][2], const Word* rows, int word, const Lane& me) {
  const Word* row = rows + ((me.lane & 7) + (me.lane >> 4) * 8) * STRIDE + word + (me.lane >> 3 & 1) * 4;
#pragma unroll
  for (int j = 0; j + 1 < J; j += 2) {
    Word four[4];
    load_four(four, row + j * 8 * STRIDE);
    right[j][0] = four[0], right[j][1] = four[1], right[j + 1][0] = four[2], right[j + 1][1] = four[3];
  }
  if constexpr (J % 2) load_two(right[J - 1], rows + ((me.lane & 7) + (J - 1) * 8) * STRIDE + word + (me.lane >> 3 & 1) * 4);
}

// Right fragments of a matrix that lies the other way: STEP rows from `rows` are the terms, J times 8 columns from the
// multiple `column` of 8 are what a product's columns are.
template <int J, int STRIDE>
__device__ __forceinline__ void load_right_transposed(Word (&right)[J][2], const Word* rows, int column, const Lane& me) {
  if constexpr (PRECISION == BF16) {
    const Word* row = rows + (me.lane & 15) * STRIDE + column / 2;
#pragma unroll
    for (int j = 0; j + 1 < J; j += 2) {
      Word four[4];
      load_four_transposed(four, row + j * 4 + (me.lane >> 4) * 4);
      right[j][0] = four[0], right[j][1] = four[1], right[j + 1][0] = four[2], right[j + 1][1] = four[3];
    }
    if constexpr (J % 2) load_two_transposed(right[J - 1], row + (J - 1) * 4);
  } else {
    const Word* at = rows + 2 * me.t * STRIDE + column + place(me.g);
#pragma unroll
    for (int j = 0; j < J; ++j) right[j][0] = at[j * 8], right[j][1] = at[j * 8 + STRIDE];
  }
}

// sum = BANDS·16 rows from `left`, times J·8 columns of the product with `right`: its rows from `first` (a row for each
// column of the product) or, TRANSPOSED, its columns from `first`.
template <int J, int STEPS, int LEFT, int RIGHT, bool TRANSPOSED>
__device__ __forceinline__ void product(
    float (&sum)[BANDS][J][4], const Word* left, const Word* right, int first, const Lane& me) {
  clear(sum);
  const Word* row = left + (me.lane & 15) * LEFT + (me.lane >> 4) * 4;
  const auto add_steps = [&](float (&to)[BANDS][J][4], int from, auto count) {
    constexpr int COUNT = decltype(count)::value, AT_ONCE = PRECISION == TF32X3 ? 1 : 2;
#pragma unroll AT_ONCE
    for (int step = from; step < from + COUNT; ++step) {
      Word l[BANDS][4], r[J][2];
#pragma unroll
      for (int i = 0; i < BANDS; ++i) load_four(l[i], row + i * 16 * LEFT + step * 8);
      if constexpr (TRANSPOSED) load_right_transposed<J, RIGHT>(r, right + step * STEP * RIGHT, first, me);
      else load_right<J, RIGHT>(r, right + first * RIGHT, step * 8, me);
      multiply<0>(to, l, r);
    }
  };
  if constexpr (PRECISION == TF32X3 && STEPS > PROMOTE) {
    // a long sum that is rounded toward zero at each step would be the largest error of this precision
    const auto promote = [&](int from, auto count) {
      float part[BANDS][J][4];
      clear(part);
      add_steps(part, from, count);
#pragma unroll
      for (int i = 0; i < BANDS; ++i)
#pragma unroll
        for (int j = 0; j < J; ++j)
#pragma unroll
          for (int q = 0; q < 4; ++q) sum[i][j][q] += part[i][j][q];
    };
#pragma unroll 1
    for (int from = 0; from + PROMOTE <= STEPS; from += PROMOTE) promote(from, Count<PROMOTE>());
    if constexpr (STEPS % PROMOTE) promote(STEPS / PROMOTE * PROMOTE, Count<STEPS % PROMOTE>());
  } else {
    add_steps(sum, 0, Count<STEPS>());
  }
}

// The warps of a crew take the columns of a layer's WIDTH (a multiple of 8·J) in turns, J·8 at a time.
#define EACH_SHARE(first) for (int first = me.group * 8 * J; first < WIDTH; first += GROUPS * 8 * J)

// a^(l+1) = g(a^(l) W^(l)ᵀ + b^(l)) of a strip. z^(l+1) is kept where g′ needs it.
template <int WIDTH, int J, int STEPS, int LEFT, int RIGHT, int OUT>
__device__ __forceinline__ void forward(
    const Word* a, const Word* W, const float* b, Word* out, float* z) {
  const Lane me = here();
  EACH_SHARE(first) {
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

// One warp's part of Δ^(l), summed over tiles: I times 16 rows (units of layer l + 1), J times 8 columns (units of l).
// ROWS and COLUMNS count the 16s and 8s of the whole; the last warp along the columns may have fewer.
template <int I, int J, int ROWS, int COLUMNS, int LEFT, int RIGHT, bool HALF>
struct Rectangle {
  static constexpr int DOWN = ROWS / I, ACROSS = (COLUMNS + J - 1) / J, LAST = COLUMNS - (ACROSS - 1) * J;
  float sum[I][J][4], bias[I][2];

  __device__ __forceinline__ Rectangle() { reset(); }

  __device__ __forceinline__ void reset() {
    clear(sum);
#pragma unroll
    for (int i = 0; i < I; ++i) bias[i][0] = bias[i][1] = 0;
  }

  __device__ __forceinline__ void add(const Word* delta, const Word* a) {
    const Lane me = here();
    const int across = me.warp / DOWN;
    if (LAST == J ? across < ACROSS : across < ACROSS - 1) add_columns<J>(delta, a, me);
    else if (LAST != J && across == ACROSS - 1) add_columns<LAST>(delta, a, me);
  }

  template <int LIVE>
  __device__ __forceinline__ void add_columns(const Word* delta, const Word* a, const Lane& me) {
    const int row = me.warp % DOWN * I * 16, column = me.warp / DOWN * J * 8;
    constexpr int AT_ONCE = I * LIVE <= 8 ? 2 : 1;
#pragma unroll AT_ONCE
    for (int k = 0; k < TILE; k += STEP) {
      Word left[I][4];
#pragma unroll
      for (int i = 0; i < I; ++i) load_left_transposed(left[i], delta + k * LEFT, row + i * 16, me);
      if (column == 0) {
#pragma unroll
        for (int i = 0; i < I; ++i)
#pragma unroll
          for (int q = 0; q < 4; ++q) {
            if constexpr (PRECISION == BF16) {
              bias[i][q & 1] += as_float(left[i][q] << 16) + as_float(left[i][q] & 0xffff0000u);
            } else if (!HALF || q % 2 == 0) {
              bias[i][q & 1] += as_float(left[i][q]);
            }
          }
      }
      add_step<0, LIVE>(left, a + k * RIGHT, column, me);
    }
  }

  // A few columns at a time, so that few right fragments are in registers.
  template <int FROM, int LIVE>
  __device__ __forceinline__ void add_step(const Word (&left)[I][4], const Word* a, int column, const Lane& me) {
    constexpr int N = LIVE - FROM < 4 ? LIVE - FROM : 4;
    Word right[N][2];
    load_right_transposed<N, RIGHT>(right, a, column + 8 * FROM, me);
    multiply<FROM>(sum, left, right);
    if constexpr (FROM + N < LIVE) add_step<FROM + N, LIVE>(left, a, column, me);
  }

  // Left fragments of δᵀ: its columns are the rows of the product, STEP of its rows are the terms.
  __device__ __forceinline__ static void load_left_transposed(
      Word (&left)[4], const Word* rows, int column, const Lane& me) {
    if constexpr (PRECISION == BF16) {
      load_four_transposed(
          left, rows + ((me.lane & 7) + (me.lane >> 4) * 8) * LEFT + column / 2 + (me.lane >> 3 & 1) * 4);
    } else {
      const Word* at = rows + 2 * me.t * LEFT + column + place(me.g);
      left[0] = at[0], left[2] = at[LEFT];
      left[1] = HALF ? 0 : at[8], left[3] = HALF ? 0 : at[LEFT + 8];
    }
  }

  // The sums become part of the leaf's in global memory: added to them, or the first of them. W is (UNITS, INPUTS).
  template <int UNITS, int INPUTS>
  __device__ __forceinline__ void flush(float* W, float* b, bool adds) {
    const Lane me = here();
    const int across = me.warp / DOWN, top = me.warp % DOWN * I * 16 + me.g, left = across * J * 8 + 2 * me.t;
#pragma unroll
    for (int i = 0; i < I; ++i) {
      float before[J][4];  // all are on their way before the first is needed
#pragma unroll
      for (int j = 0; j < J; ++j)
#pragma unroll
        for (int q = 0; q < 4; ++q) {
          const int row = top + 16 * i + 8 * (q >> 1), column = left + 8 * j + (q & 1);
          before[j][q] = 0;
          if (adds && row < UNITS && column < INPUTS) before[j][q] = W[row * INPUTS + column];
        }
#pragma unroll
      for (int j = 0; j < J; ++j)
#pragma unroll
        for (int q = 0; q < 4; ++q) {
          const int row = top + 16 * i + 8 * (q >> 1), column = left + 8 * j + (q & 1);
          if (row < UNITS && column < INPUTS) W[row * INPUTS + column] = before[j][q] + sum[i][j][q];
        }
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        float all = bias[i][half];  // of four lanes, which had every fourth pair of rows
        all += __shfl_xor_sync(0xffffffffu, all, 1);
        all += __shfl_xor_sync(0xffffffffu, all, 2);
        const int row = top + 16 * i + 8 * half;
        if (across == 0 && me.t == 0 && row < UNITS) b[row] = (adds ? b[row] : 0.0f) + all;
      }
    }
    reset();
  }
};

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
#pragma unroll 4
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
    meet_crew(me);
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
