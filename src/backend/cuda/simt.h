#pragma once

#include <cstddef>
#include <cstdint>

/// What kernels are written in: the CUDA features that they use, as functions. nvcc gets instructions,
/// inline; any other compiler gets declarations that the simulator of the tests defines, so that the very
/// same kernel runs on a CPU. Kernels include nothing else of CUDA.

#if defined(__CUDACC__)
#define SALIENT_DEVICE __device__ __forceinline__
#define SALIENT_HOST_DEVICE __host__ __device__ __forceinline__
#define SALIENT_PRAGMA(text) _Pragma(#text)
#define SALIENT_UNROLL _Pragma("unroll")
#define SALIENT_UNROLL_BY(times) SALIENT_PRAGMA(unroll times)
/// A kernel that others launch by its name: X(name, type of its arguments, threads of a block, blocks that a
/// multiprocessor must have room for, function).
#define SALIENT_GLOBAL(name, Args, threads, blocks, ...)                                                  \
  extern "C" __global__ void __launch_bounds__(threads, blocks) name(const __grid_constant__ Args args) { \
    __VA_ARGS__(args);                                                                                    \
  }
#else
#define SALIENT_DEVICE inline
#define SALIENT_HOST_DEVICE inline
#define SALIENT_UNROLL
#define SALIENT_UNROLL_BY(times)
#endif

namespace salient::simt {

inline constexpr int kWarp = 32;
inline constexpr unsigned kAllLanes = 0xffffffffu;

/// 16 bytes, what one lane moves at most at a time.
struct alignas(16) Words4 {
  uint32_t word[4];
};
struct alignas(8) Words2 {
  uint32_t word[2];
};

#if defined(__CUDACC__)

SALIENT_DEVICE int thread() { return static_cast<int>(threadIdx.x); }
SALIENT_DEVICE int block_threads() { return static_cast<int>(blockDim.x); }
SALIENT_DEVICE int block_x() { return static_cast<int>(blockIdx.x); }
SALIENT_DEVICE int block_y() { return static_cast<int>(blockIdx.y); }
SALIENT_DEVICE int block_z() { return static_cast<int>(blockIdx.z); }
SALIENT_DEVICE int grid_x() { return static_cast<int>(gridDim.x); }
SALIENT_DEVICE int grid_y() { return static_cast<int>(gridDim.y); }

/// The block's shared memory, as much of it as the launch asked for.
template <typename T>
SALIENT_DEVICE T* shared_memory() {
  extern __shared__ __align__(128) unsigned char salient_shared[];
  return reinterpret_cast<T*>(salient_shared);
}

SALIENT_DEVICE void sync_block() { __syncthreads(); }
SALIENT_DEVICE void sync_warp() { __syncwarp(); }

SALIENT_DEVICE uint32_t shuffle(uint32_t value, int lane) { return __shfl_sync(kAllLanes, value, lane); }
SALIENT_DEVICE float shuffle(float value, int lane) { return __shfl_sync(kAllLanes, value, lane); }
SALIENT_DEVICE uint32_t shuffle_xor(uint32_t value, int mask) {
  return __shfl_xor_sync(kAllLanes, value, mask);
}
SALIENT_DEVICE float shuffle_xor(float value, int mask) { return __shfl_xor_sync(kAllLanes, value, mask); }

/// Reads what is read once and never written while the kernel runs: it stays out of the first-level cache.
SALIENT_DEVICE Words4 load_stream(const Words4* from) {
  Words4 result;
  asm("ld.global.nc.L1::no_allocate.L2::256B.v4.u32 {%0, %1, %2, %3}, [%4];"
      : "=r"(result.word[0]), "=r"(result.word[1]), "=r"(result.word[2]), "=r"(result.word[3])
      : "l"(__cvta_generic_to_global(from)));
  return result;
}
/// The same for what others of the block read too.
SALIENT_DEVICE Words4 load_shared_by_many(const Words4* from) {
  Words4 result;
  asm("ld.global.nc.v4.u32 {%0, %1, %2, %3}, [%4];"
      : "=r"(result.word[0]), "=r"(result.word[1]), "=r"(result.word[2]), "=r"(result.word[3])
      : "l"(__cvta_generic_to_global(from)));
  return result;
}
/// What another block of the same launch has written.
SALIENT_DEVICE float load_fresh(const float* from) {
  float result;
  asm volatile("ld.global.cg.f32 %0, [%1];" : "=f"(result) : "l"(__cvta_generic_to_global(from)) : "memory");
  return result;
}
/// 16 bytes of shared memory.
SALIENT_DEVICE Words4 load_shared(const Words4* from) {
  Words4 result;
  asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(result.word[0]), "=r"(result.word[1]), "=r"(result.word[2]), "=r"(result.word[3])
               : "r"(static_cast<uint32_t>(__cvta_generic_to_shared(from)))
               : "memory");
  return result;
}

/// Begins to copy 16 bytes into shared memory; zeros if not `inside`, and then `from` is not read. What is
/// there until a wait for its group is undefined.
SALIENT_DEVICE void copy_async(void* shared, const void* from, bool inside = true) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(
                   static_cast<uint32_t>(__cvta_generic_to_shared(shared))),
               "l"(__cvta_generic_to_global(from)), "r"(inside ? 16 : 0)
               : "memory");
}
/// The same of what is read once, beginning to end: the second-level cache brings what is beside it too.
SALIENT_DEVICE void copy_stream(void* shared, const void* from) {
  asm volatile("cp.async.cg.shared.global.L2::256B [%0], [%1], 16;" ::"r"(
                   static_cast<uint32_t>(__cvta_generic_to_shared(shared))),
               "l"(__cvta_generic_to_global(from))
               : "memory");
}
/// The copies begun by this thread since the last commit are a group.
SALIENT_DEVICE void copy_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
/// Until all but the last kPending groups of this thread have arrived. Other threads see them behind a
/// sync_block.
template <int kPending>
SALIENT_DEVICE void copy_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

/// Four 8x8 matrices of 16-bit elements from shared memory: lane l names row l % 8 of matrix l / 8 (16
/// bytes); result[m] holds elements 2 (l % 4) and 2 (l % 4) + 1 of row l / 4 of matrix m.
SALIENT_DEVICE void load_matrices(uint32_t (&result)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(result[0]), "=r"(result[1]), "=r"(result[2]), "=r"(result[3])
               : "r"(static_cast<uint32_t>(__cvta_generic_to_shared(row)))
               : "memory");
}
/// The same of their transposes: elements (2 (l % 4), l / 4) and (2 (l % 4) + 1, l / 4) of matrix m.
SALIENT_DEVICE void load_matrices_transposed(uint32_t (&result)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(result[0]), "=r"(result[1]), "=r"(result[2]), "=r"(result[3])
               : "r"(static_cast<uint32_t>(__cvta_generic_to_shared(row)))
               : "memory");
}

/// c [16, 8] += a [16, 16] b [16, 8], products of half precision summed in f32. Of lane l, with g = l / 4 and
/// t = l % 4: a[0] rows g, columns 2t, 2t + 1; a[1] rows g + 8; a[2] columns 2t + 8, 2t + 9; a[3] both;
/// b[0] rows 2t, 2t + 1 of column g, b[1] rows 2t + 8, 2t + 9; c[0], c[1] row g, columns 2t, 2t + 1, c[2],
/// c[3] row g + 8.
SALIENT_DEVICE void mma_f16(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
SALIENT_DEVICE void mma_bf16(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/// (a & mask) | bits, in one instruction.
template <uint32_t mask, uint32_t bits>
SALIENT_DEVICE uint32_t masked_or(uint32_t a) {
  uint32_t result;
  asm("lop3.b32 %0, %1, %2, %3, 0xea;" : "=r"(result) : "r"(a), "n"(mask), "n"(bits));
  return result;
}

/// Two halves, `low` in the lower bits, each rounded to nearest, ties to even.
SALIENT_DEVICE uint32_t pack_f16(float low, float high) {
  uint32_t result;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(result) : "f"(high), "f"(low));
  return result;
}
SALIENT_DEVICE uint32_t pack_bf16(float low, float high) {
  uint32_t result;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(result) : "f"(high), "f"(low));
  return result;
}
SALIENT_DEVICE float float_of_f16(uint16_t bits) {
  float result;
  asm("cvt.f32.f16 %0, %1;" : "=f"(result) : "h"(bits));
  return result;
}
/// a - b, and a b + c with one rounding, of pairs.
SALIENT_DEVICE uint32_t subtract_f16(uint32_t a, uint32_t b) {
  uint32_t result;
  asm("sub.f16x2 %0, %1, %2;" : "=r"(result) : "r"(a), "r"(b));
  return result;
}
SALIENT_DEVICE uint32_t fma_f16(uint32_t a, uint32_t b, uint32_t c) {
  uint32_t result;
  asm("fma.rn.f16x2 %0, %1, %2, %3;" : "=r"(result) : "r"(a), "r"(b), "r"(c));
  return result;
}
SALIENT_DEVICE uint32_t fma_bf16(uint32_t a, uint32_t b, uint32_t c) {
  uint32_t result;
  asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(result) : "r"(a), "r"(b), "r"(c));
  return result;
}

SALIENT_DEVICE float float_of_bits(uint32_t bits) { return __uint_as_float(bits); }
SALIENT_DEVICE uint32_t bits_of_float(float value) { return __float_as_uint(value); }

/// 2^x to 2 units in the last place; numbers that are not normal become 0.
SALIENT_DEVICE float power_of_two(float x) {
  float result;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
  return result;
}
/// a b, a + b and a / b as they are, where a compiler may not make one instruction of two operations.
SALIENT_DEVICE float multiply_rounded(float a, float b) { return __fmul_rn(a, b); }
SALIENT_DEVICE float add_rounded(float a, float b) { return __fadd_rn(a, b); }
SALIENT_DEVICE float divide_rounded(float a, float b) { return __fdiv_rn(a, b); }

/// What this thread wrote to global memory is seen by all before what it writes from here on.
SALIENT_DEVICE void fence() { __threadfence(); }
/// *counter += 1 as one step; what it was before.
SALIENT_DEVICE uint32_t increment(uint32_t* counter) { return atomicAdd(counter, 1u); }

#else  // the simulator's: tests/backend/cuda/simulator.cc

int thread();
int block_threads();
int block_x();
int block_y();
int block_z();
int grid_x();
int grid_y();
void* shared_bytes();
template <typename T>
T* shared_memory() {
  return static_cast<T*>(shared_bytes());
}
void sync_block();
void sync_warp();
uint32_t shuffle(uint32_t value, int lane);
float shuffle(float value, int lane);
uint32_t shuffle_xor(uint32_t value, int mask);
float shuffle_xor(float value, int mask);
Words4 load_stream(const Words4* from);
Words4 load_shared_by_many(const Words4* from);
inline float load_fresh(const float* from) { return *from; }
Words4 load_shared(const Words4* from);
void copy_async(void* shared, const void* from, bool inside = true);
void copy_stream(void* shared, const void* from);
void copy_commit();
void copy_wait_for(int pending);
template <int kPending>
void copy_wait() {
  copy_wait_for(kPending);
}
void load_matrices(uint32_t (&result)[4], const void* row);
void load_matrices_transposed(uint32_t (&result)[4], const void* row);
void mma_f16(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1);
void mma_bf16(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1);
template <uint32_t mask, uint32_t bits>
uint32_t masked_or(uint32_t a) {
  return (a & mask) | bits;
}
uint32_t pack_f16(float low, float high);
uint32_t pack_bf16(float low, float high);
float float_of_f16(uint16_t bits);
uint32_t subtract_f16(uint32_t a, uint32_t b);
uint32_t fma_f16(uint32_t a, uint32_t b, uint32_t c);
uint32_t fma_bf16(uint32_t a, uint32_t b, uint32_t c);
float float_of_bits(uint32_t bits);
uint32_t bits_of_float(float value);
float power_of_two(float x);
inline float multiply_rounded(float a, float b) { return a * b; }
inline float add_rounded(float a, float b) { return a + b; }
inline float divide_rounded(float a, float b) { return a / b; }
void fence();
uint32_t increment(uint32_t* counter);

#endif

SALIENT_DEVICE int lane() { return thread() % kWarp; }
SALIENT_DEVICE int warp() { return thread() / kWarp; }
SALIENT_DEVICE float float_of_bf16(uint16_t bits) { return float_of_bits(uint32_t{bits} << 16); }

/// The sum, or the largest, over the lanes of a warp, the same in each.
SALIENT_DEVICE float warp_sum(float value) {
  for (int mask = kWarp / 2; mask > 0; mask /= 2) value += shuffle_xor(value, mask);
  return value;
}
SALIENT_DEVICE float warp_max(float value) {
  for (int mask = kWarp / 2; mask > 0; mask /= 2) {
    const float other = shuffle_xor(value, mask);
    value = other > value ? other : value;
  }
  return value;
}

/// Operands of half precision, by their type.
struct F16 {
  static constexpr float kLargest = 65504.0f;
  SALIENT_DEVICE static uint32_t pack(float low, float high) { return pack_f16(low, high); }
  SALIENT_DEVICE static float low(uint32_t pair) { return float_of_f16(static_cast<uint16_t>(pair)); }
  SALIENT_DEVICE static float high(uint32_t pair) { return float_of_f16(static_cast<uint16_t>(pair >> 16)); }
  SALIENT_DEVICE static void mma(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    mma_f16(c, a, b0, b1);
  }
};
struct BF16 {
  static constexpr float kLargest = 3.3895314e38f;
  SALIENT_DEVICE static uint32_t pack(float low, float high) { return pack_bf16(low, high); }
  SALIENT_DEVICE static float low(uint32_t pair) { return float_of_bits(pair << 16); }
  SALIENT_DEVICE static float high(uint32_t pair) { return float_of_bits(pair & 0xffff0000u); }
  SALIENT_DEVICE static void mma(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    mma_bf16(c, a, b0, b1);
  }
};

/// Finite values that the type cannot hold become its largest, NaN stays.
template <typename T>
SALIENT_DEVICE uint32_t pack_clamped(float low, float high) {
  const auto clamped = [](float value) {
    if (value > T::kLargest) return T::kLargest;
    return value < -T::kLargest ? -T::kLargest : value;
  };
  return T::pack(clamped(low), clamped(high));
}

}  // namespace salient::simt
