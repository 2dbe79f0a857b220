// What the threads of a warp do together, and asynchronous copies, as the PTX manual describes them. Included by the two
// ways to run a block on the CPU, which bring threadIdx and `meet_warp()`: all lanes of the warp have come.
//
// Products are exact, their sum is rounded toward zero as tensor cores do; of a tf32 operand 19 bits are looked at. Real
// ones also align the terms of a sum before they add and so lose a little more.
#include <math.h>
#include <string.h>

#include <vector>

#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(...)

static float half_value_(unsigned short bits) {
  _Float16 value;
  memcpy(&value, &bits, 2);
  return value;
}

static double __longlong_as_double(unsigned long long bits) {
  double value;
  memcpy(&value, &bits, 8);
  return value;
}

typedef unsigned Word;

static void reconverge() {}
static int this_thread() { return (int)threadIdx.x; }

static float as_float(Word bits) {
  float value;
  memcpy(&value, &bits, 4);
  return value;
}

static Word as_word(float value) {
  Word bits;
  memcpy(&bits, &value, 4);
  return bits;
}

static Word rounded_to_tf32(float value) {  // ties away from zero
  const Word bits = as_word(value);
  return (bits & 0x7f800000u) == 0x7f800000u ? bits : (bits + 0x1000u) & 0xffffe000u;
}

static Word rounded_to_bf16(float low, float high) {  // ties to even
  Word bits[2] = {as_word(low), as_word(high)};
  for (Word& b : bits) b = (b & 0x7fffffffu) > 0x7f800000u ? 0x7fff : (b + 0x7fff + (b >> 16 & 1)) >> 16;
  return bits[0] | bits[1] << 16;
}

static float toward_zero(double value) {
  const float near = (float)value;
  return fabs((double)near) > fabs(value) ? as_float(as_word(near) - 1) : near;
}

// What the lanes of a warp show each other, in turns of two: nobody is more than one turn ahead.
struct Shown {
  double value;
  Word a[4], b[2];
};
static Shown shown[2][1024];
static unsigned turns[1024];

UNSEEN static void show(const Shown& mine) {
  shown[turns[threadIdx.x] & 1][threadIdx.x] = mine;
  meet_lanes();
}
UNSEEN static Shown see(unsigned lane) { return shown[turns[threadIdx.x] & 1][(threadIdx.x & ~31u) | lane]; }
UNSEEN static void turn() { ++turns[threadIdx.x]; }

static double __shfl_xor_sync(unsigned, double value, int other) {
  Shown mine{};
  mine.value = value;
  show(mine);
  const double theirs = see((threadIdx.x & 31) ^ other).value;
  turn();
  return theirs;
}
static float __shfl_xor_sync(unsigned mask, float value, int other) {
  return (float)__shfl_xor_sync(mask, (double)value, other);
}

// One product: `columns` terms of a left operand's word against those of a right one's, by `term(word, i)`.
template <int PER_WORD, class Term>
static void multiply_on_host(float (&c)[4], const Word (&a)[4], const Word (&b)[2], Term term) {
  Shown mine{};
  memcpy(mine.a, a, sizeof a);
  memcpy(mine.b, b, sizeof b);
  show(mine);
  const unsigned g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
  Shown left[4], right[2][4];
  for (unsigned i = 0; i < 4; ++i) left[i] = see(g * 4 + i);
  for (unsigned i = 0; i < 4; ++i) right[0][i] = see(2 * t * 4 + i), right[1][i] = see((2 * t + 1) * 4 + i);
  for (unsigned q = 0; q < 4; ++q) {
    double sum = c[q];
    for (unsigned word = 0; word < 8; ++word)
      for (int i = 0; i < PER_WORD; ++i)
        sum += term(left[word & 3].a[(word >> 2) * 2 + (q >> 1)], i) * term(right[q & 1][word & 3].b[word >> 2], i);
    c[q] = toward_zero(sum);
  }
  turn();
}

static void multiply_tf32(float (&c)[4], const Word (&a)[4], const Word (&b)[2]) {
  multiply_on_host<1>(c, a, b, [](Word word, int) { return (double)as_float(word & 0xffffe000u); });
}

static void multiply_bf16(float (&c)[4], const Word (&a)[4], const Word (&b)[2]) {
  multiply_on_host<2>(c, a, b, [](Word word, int i) { return (double)as_float(i ? word & 0xffff0000u : word << 16); });
}

// Matrices of 8 rows of 16 bytes: lane i reads row i % 8 of matrix i / 8 and gives it to the others.
static void load_matrices(Word* r, unsigned count, const Word* row, bool transposed) {
  Shown mine{};
  if (threadIdx.x % 32 < 8 * count)
    for (int i = 0; i < 4; ++i) mine.a[i] = row[i];
  show(mine);
  const unsigned g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
  for (unsigned i = 0; i < count; ++i) {
    if (transposed) {
      const auto element = [&](unsigned k) { return see(8 * i + k).a[g / 2] >> 16 * (g % 2) & 0xffff; };
      r[i] = element(2 * t) | element(2 * t + 1) << 16;
    } else {
      r[i] = see(8 * i + g).a[t];
    }
  }
  turn();
}

static void load_four(Word (&r)[4], const Word* row) { load_matrices(r, 4, row, false); }
static void load_two(Word (&r)[2], const Word* row) { load_matrices(r, 2, row, false); }
static void load_four_transposed(Word (&r)[4], const Word* row) { load_matrices(r, 4, row, true); }
static void load_two_transposed(Word (&r)[2], const Word* row) { load_matrices(r, 2, row, true); }

// A copy happens as late as it may: when its thread waits for it, or at the thread's end.
struct Copy {
  unsigned* to;
  const unsigned* from;
};
static std::vector<Copy> copies[1024];

static void copy_16_bytes(void* to, const void* from) {
  if (((size_t)to | (size_t)from) & 15) abort();
  copies[threadIdx.x].push_back({(unsigned*)to, (const unsigned*)from});
  copying(copies[threadIdx.x].back().to);
}

static void await_copies() {
  copied();
  for (const Copy& copy : copies[threadIdx.x])
    for (int i = 0; i < 4; ++i) copy.to[i] = copy.from[i];
  copies[threadIdx.x].clear();
}

static unsigned char* shared_;  // dynamic shared memory
