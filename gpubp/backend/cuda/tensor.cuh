// Tensor-core products, matrix loads, asynchronous copies and barriers: one name for each, as the device has them.
// No #include and no intrinsics header: inline PTX alone. On the CPU the tests give the same names another body.
//
// A Word is 32 bits of shared memory: one float (tf32, tf32x3) or two neighbouring columns in bf16. In words the two
// fragment layouts are the same: with g = lane / 4 and t = lane % 4,
//   left  (16 rows, 8 words):  a[0] (g, t)   a[1] (g + 8, t)   a[2] (g, t + 4)   a[3] (g + 8, t + 4)
//   right (8 rows, 8 words):   b[0] (g, t)   b[1] (g, t + 4)
//   sum   (16 rows, 8 columns): c[0] (g, 2t)  c[1] (g, 2t + 1)  c[2] (g + 8, 2t)  c[3] (g + 8, 2t + 1)
#ifdef __CUDACC__
typedef unsigned Word;

__device__ __forceinline__ int this_thread() {  // a value that the compiler does not know to be always the same
  int x;
  asm volatile("mov.u32 %0, %%tid.x;" : "=r"(x));
  return x;
}

__device__ __forceinline__ float as_float(Word bits) { return __uint_as_float(bits); }
__device__ __forceinline__ Word as_word(float value) { return __float_as_uint(value); }

__device__ __forceinline__ Word rounded_to_tf32(float value) {  // to nearest, ties away from zero
  Word bits;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(value));
  return bits;
}

__device__ __forceinline__ Word rounded_to_bf16(float low, float high) {  // to nearest even; low in the low half
  Word bits;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(bits) : "f"(high), "f"(low));
  return bits;
}

// volatile, though they have no effect but their sum: the compiler might otherwise move one to where only some lanes of
// the warp want its results, and all lanes must take part.
__device__ __forceinline__ void multiply_tf32(float (&c)[4], const Word (&a)[4], const Word (&b)[2]) {
  asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

__device__ __forceinline__ void multiply_bf16(float (&c)[4], const Word (&a)[4], const Word (&b)[2]) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

__device__ __forceinline__ unsigned shared_address(const void* place) {
  return (unsigned)__cvta_generic_to_shared(place);
}

// Matrices of 8 rows of 4 words: lane i names row i % 8 of matrix i / 8, and gets word (g, t) of each.
__device__ __forceinline__ void load_four(Word (&r)[4], const Word* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(shared_address(row)) : "memory");
}

__device__ __forceinline__ void load_two(Word (&r)[2], const Word* row) {  // of lanes 0 to 15
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0,%1}, [%2];"
               : "=r"(r[0]), "=r"(r[1]) : "r"(shared_address(row)) : "memory");
}

// The same of matrices of 8 rows of 8 bf16, transposed: a lane gets column g of rows 2t and 2t + 1 of each.
__device__ __forceinline__ void load_four_transposed(Word (&r)[4], const Word* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(shared_address(row)) : "memory");
}

__device__ __forceinline__ void load_two_transposed(Word (&r)[2], const Word* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0,%1}, [%2];"
               : "=r"(r[0]), "=r"(r[1]) : "r"(shared_address(row)) : "memory");
}

// After text in which lanes may part (a formula's branches): products and matrix loads want them together. It promises
// nothing about memory.
__device__ __forceinline__ void reconverge() { __syncwarp(); }

__device__ __forceinline__ void copy_16_bytes(void* to_shared, const void* from_global) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;"
               :: "r"(shared_address(to_shared)), "l"(__cvta_generic_to_global(from_global)) : "memory");
}

__device__ __forceinline__ void await_copies() { asm volatile("cp.async.wait_all;" ::: "memory"); }

__device__ __forceinline__ void named_barrier(int which, int threads) {  // of whole warps; 0 is __syncthreads
  asm volatile("bar.sync %0, %1;" :: "r"(which), "r"(threads) : "memory");
}
#endif
