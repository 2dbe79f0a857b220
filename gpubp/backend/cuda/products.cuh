// Operands in shared memory and the three products of backpropagation on tensor cores: rows times rows (forward), rows
// times columns (backward), columns times columns (the gradient, whose sums stay in a warp's registers over many tiles).
//
// Rows of operands lie with a stride of 8k + 4 words, so that 8 rows of 4 words meet all 32 banks. In tf32 column c of
// each 8 lies at place (c & 1)·4 + c / 2: a lane's two neighbouring results (2t, 2t + 1) go to places t and t + 4, so
// stores meet all banks as well, and the rows 2t and 2t + 1 of a transposed operand do so too. The order of the terms of
// a product is free, so nobody else has to know.
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

__device__ __forceinline__ void meet_crew() {
  if constexpr (GROUPS == 1) __syncwarp();
  else if constexpr (STRIPS == 1) __syncthreads();
  else named_barrier(1 + here().strip, CREW);
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
