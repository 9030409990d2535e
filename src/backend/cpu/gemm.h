#pragma once

#include <cstdint>
#include <memory>

namespace salient {

enum class Transposed { no, yes };
enum class Accumulate { no, yes };

/// An operand of a product: row-major [rows, columns] with rows `stride` elements apart, read transposed if
/// so marked.
template <typename Element>
struct GemmOperand {
  const Element* data;
  int64_t stride;
  Transposed transposed = Transposed::no;
};

/// c [m, n] = a [m, k] b [k, n], or c += for Accumulate::yes. bf16 elements are passed as their bits.
template <typename Element>
struct GemmProblem {
  int64_t m;
  int64_t n;
  int64_t k;
  GemmOperand<Element> a;
  GemmOperand<Element> b;
  float* c;
  int64_t c_stride;
  Accumulate accumulate = Accumulate::no;
};

/// Dense products of one block through oneDNN (gemm_plain.cc does without it), always inside the calling
/// thread: callers split the work themselves, so that the blocks, and with them the results, are the same for
/// any number of threads. Safe to share between threads.
class Gemm {
 public:
  Gemm();
  ~Gemm();
  Gemm(const Gemm&) = delete;
  Gemm& operator=(const Gemm&) = delete;

  void operator()(const GemmProblem<float>& problem);
  void operator()(const GemmProblem<uint16_t>& problem);

 private:
  struct Primitives;
  std::unique_ptr<Primitives> primitives_;
};

/// Whether oneDNN multiplies bf16 with instructions made for it (AMX-BF16 or AVX512-BF16) on this processor.
bool gemm_has_fast_bf16();

/// Keeps oneDNN's code below AMX, AVX-512 or AVX2 as well. Only the first user of oneDNN in a process can
/// decide this; returns whether the limit holds.
enum class GemmLimit { sse41, avx2, avx512_bf16 };
bool limit_gemm(GemmLimit limit);

}  // namespace salient
