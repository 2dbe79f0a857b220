// Runs CUDA kernels on the CPU, so that the very text and index arithmetic of the GPU is tested without one.
// Each thread of a block is a fiber; a barrier or a shuffle lets all others run up to the same point.
#pragma once
#include <math.h>
#include <string.h>
#include <ucontext.h>

#include <vector>

#define __global__
#define __device__
#define __shared__ static
#define __launch_bounds__(threads)

struct Index3 {
  unsigned x;
};
static Index3 threadIdx, blockIdx, blockDim, gridDim;

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

static ucontext_t scheduler;
static std::vector<ucontext_t> fibers;
static std::vector<char> ended;
static double lanes[1024];
static void (*body)();

static void pause_fiber() {
  const unsigned thread = threadIdx.x;
  swapcontext(&fibers[thread], &scheduler);
}

static void __syncthreads() { pause_fiber(); }

static double __shfl_xor_sync(unsigned, double value, int other) {
  const unsigned thread = threadIdx.x;
  lanes[thread] = value;
  pause_fiber();
  const double theirs = lanes[thread ^ other];
  pause_fiber();
  return theirs;
}

static void start_fiber() {
  body();
  ended[threadIdx.x] = 1;
}

// All blocks one after the other, in falling order: nothing may depend on the order of blocks.
static void launch(unsigned blocks, unsigned threads, void (*kernel)()) {
  static std::vector<std::vector<char>> stacks;
  stacks.resize(threads, std::vector<char>(1 << 15));
  fibers.resize(threads);
  body = kernel;
  gridDim.x = blocks;
  blockDim.x = threads;
  for (unsigned block = blocks; block-- > 0;) {
    blockIdx.x = block;
    ended.assign(threads, 0);
    for (unsigned t = 0; t < threads; ++t) {
      getcontext(&fibers[t]);
      fibers[t].uc_stack.ss_sp = stacks[t].data();
      fibers[t].uc_stack.ss_size = stacks[t].size();
      fibers[t].uc_link = &scheduler;
      makecontext(&fibers[t], start_fiber, 0);
    }
    for (unsigned alive = threads; alive > 0;) {
      alive = 0;
      for (unsigned t = 0; t < threads; ++t) {
        if (ended[t]) continue;
        threadIdx.x = t;
        swapcontext(&scheduler, &fibers[t]);
        alive += !ended[t];
      }
    }
  }
}

static void** pointers;
static long long* numbers;
static unsigned char* shared_;  // dynamic shared memory
