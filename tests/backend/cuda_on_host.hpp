// Runs CUDA kernels on the CPU, so that the very text and index arithmetic of the GPU is tested without one.
// Each thread of a block is a fiber; a barrier, a shuffle or a tensor-core product lets the others run until all who
// take part have come. Barriers of which some thread never comes end the program with a word.
#pragma once
#undef _FORTIFY_SOURCE  // its longjmp refuses to change stacks
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <ucontext.h>

#include <vector>

struct Index3 {
  unsigned x;
};
static Index3 threadIdx, blockIdx, blockDim, gridDim;
#define __shared__ static

struct Meeting {  // of a fixed number of fibers, again and again
  unsigned come = 0, past = 0;
};

struct Fiber {
  ucontext_t start;
  jmp_buf at;
  bool started, ended;
};

static ucontext_t scheduler_start;
static jmp_buf scheduler;
static std::vector<Fiber> fibers;
static Meeting block_meeting, warp_meetings[64], named_meetings[16];
static unsigned long events;  // arrivals and ends: a round of all fibers without one is a deadlock
static void (*body)();

static void pause_fiber() {
  if (!_setjmp(fibers[threadIdx.x].at)) _longjmp(scheduler, 1);
}

static void meet(Meeting& meeting, unsigned threads) {
  const unsigned past = meeting.past;
  ++events;
  if (++meeting.come == threads) {
    meeting.come = 0;
    ++meeting.past;
  } else {
    while (meeting.past == past) pause_fiber();
  }
}

static void __syncthreads() { meet(block_meeting, blockDim.x); }
static void named_barrier(int which, int threads) { meet(named_meetings[which], threads); }
static void meet_warp() {
  const unsigned first = threadIdx.x & ~31u, rest = blockDim.x - first;
  meet(warp_meetings[threadIdx.x / 32], rest < 32 ? rest : 32);
}
static void __syncwarp() { meet_warp(); }

static void meet_lanes() { meet_warp(); }
static void copying(unsigned*) {}
static void copied() {}
#define UNSEEN
#include "warp_on_host.hpp"

static void start_fiber() {
  body();
  await_copies();
  fibers[threadIdx.x].ended = true;
  ++events;
  _longjmp(scheduler, 1);
}

static void resume(Fiber& fiber) {
  if (_setjmp(scheduler)) return;
  if (fiber.started) _longjmp(fiber.at, 1);
  fiber.started = true;
  setcontext(&fiber.start);
}

// All blocks one after the other, in falling order: nothing may depend on the order of blocks.
static void launch(unsigned blocks, unsigned threads, void (*kernel)()) {
  static std::vector<std::vector<char>> stacks;
  stacks.resize(threads, std::vector<char>(1 << 16));
  fibers.resize(threads);
  body = kernel;
  gridDim.x = blocks;
  blockDim.x = threads;
  for (unsigned block = blocks; block-- > 0;) {
    blockIdx.x = block;
    for (unsigned t = 0; t < threads; ++t) {
      getcontext(&fibers[t].start);
      fibers[t].start.uc_stack.ss_sp = stacks[t].data();
      fibers[t].start.uc_stack.ss_size = stacks[t].size();
      fibers[t].start.uc_link = &scheduler_start;
      makecontext(&fibers[t].start, start_fiber, 0);
      fibers[t].started = fibers[t].ended = false;
    }
    for (volatile unsigned alive = threads; alive > 0;) {
      const unsigned long before = events;
      alive = 0;
      for (volatile unsigned t = 0; t < threads; ++t) {
        if (fibers[t].ended) continue;
        threadIdx.x = t;
        resume(fibers[t]);
        if (!fibers[t].ended) ++alive;
      }
      if (events == before) {
        fprintf(stderr, "deadlock: a barrier at which some threads never arrive\n");
        abort();
      }
    }
  }
}

static void** pointers;
static long long* numbers;
