// Runs CUDA kernels on the CPU with a real thread for each of a block's, so that ThreadSanitizer sees what the GPU's
// barriers order and what they do not. Only barriers order: a product, a shuffle or a matrix load makes the lanes of a
// warp wait for each other as well, but in a way the sanitizer cannot see, because no memory of others' is promised
// to be visible after it on a GPU either.
#pragma once
#include <linux/futex.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <barrier>
#include <memory>
#include <thread>
#include <vector>

struct Index3 {
  unsigned x;
};
static thread_local Index3 threadIdx, blockIdx;
static Index3 blockDim, gridDim;
#define __shared__ static
#define UNSEEN __attribute__((no_sanitize("thread"), noinline))

typedef std::unique_ptr<std::barrier<>> Barrier;
static Barrier block_barrier, warp_barriers[32], named_barriers[16];
static int named_threads;  // of a named barrier: all have as many

static void __syncthreads() { block_barrier->arrive_and_wait(); }
static void __syncwarp() { warp_barriers[threadIdx.x / 32]->arrive_and_wait(); }
static void named_barrier(int which, int) { named_barriers[which]->arrive_and_wait(); }

static int come[32], past[32];  // lanes of a warp that have come; meetings that are over

UNSEEN static void meet_lanes() {
  const unsigned warp = threadIdx.x / 32;
  const int before = __atomic_load_n(&past[warp], __ATOMIC_SEQ_CST);
  if (__atomic_add_fetch(&come[warp], 1, __ATOMIC_SEQ_CST) == 32) {
    __atomic_store_n(&come[warp], 0, __ATOMIC_SEQ_CST);
    __atomic_add_fetch(&past[warp], 1, __ATOMIC_SEQ_CST);
    syscall(SYS_futex, &past[warp], FUTEX_WAKE_PRIVATE, 64, nullptr, nullptr, 0);
  } else {
    while (__atomic_load_n(&past[warp], __ATOMIC_SEQ_CST) == before)
      syscall(SYS_futex, &past[warp], FUTEX_WAIT_PRIVATE, before, nullptr, nullptr, 0);
  }
}

// To the sanitizer a copy is written by somebody else: after it was asked for, and at no known time until it is waited for.
extern "C" void* __tsan_get_current_fiber();
extern "C" void* __tsan_create_fiber(unsigned);
extern "C" void __tsan_switch_to_fiber(void*, unsigned);
static thread_local void* copier = nullptr;
static std::atomic<int> all_copied[1024];

static void copying(unsigned* to) {
  void* const self = __tsan_get_current_fiber();
  if (!copier) copier = __tsan_create_fiber(0);
  __tsan_switch_to_fiber(copier, 0);  // what came before is seen by the copier
  for (int i = 0; i < 4; ++i) ((volatile unsigned*)to)[i] = 0xffffffffu;
  all_copied[threadIdx.x].store(1, std::memory_order_release);
  __tsan_switch_to_fiber(self, 1);  // but not the other way round
}

static void copied() { (void)all_copied[threadIdx.x].load(std::memory_order_acquire); }

#include "warp_on_host.hpp"

template <class F>
static void launch(unsigned blocks, unsigned threads, F kernel) {
  gridDim.x = blocks;
  blockDim.x = threads;
  for (unsigned block = 0; block < blocks; ++block) {
    block_barrier = std::make_unique<std::barrier<>>(threads);
    for (Barrier& barrier : warp_barriers) barrier = std::make_unique<std::barrier<>>(32);
    for (Barrier& barrier : named_barriers) barrier = std::make_unique<std::barrier<>>(named_threads);
    std::vector<std::thread> running;
    for (unsigned t = 0; t < threads; ++t)
      running.emplace_back([=] {
        threadIdx.x = t;
        blockIdx.x = block;
        kernel();
      });
    for (std::thread& thread : running) thread.join();
  }
}
