#include <algorithm>

#include "backend/cpu/gemm.h"
#include "tensor/dtype.h"

// What gemm.h says, without oneDNN: loops that a compiler can turn into vectors. For builds on which the
// library is missing, where products need be right and no more.

namespace salient {
namespace {

float widen(float value) { return value; }
float widen(uint16_t bits) { return to_float(BFloat16{bits}); }

template <typename Element>
float element(const GemmOperand<Element>& operand, int64_t row, int64_t column) {
  const int64_t at =
      operand.transposed == Transposed::yes ? column * operand.stride + row : row * operand.stride + column;
  return widen(operand.data[at]);
}

/// Row by row of b: every sum is taken in the order of k, whatever the size of the block.
template <typename Element>
void multiply(const GemmProblem<Element>& problem) {
  for (int64_t i = 0; i < problem.m; ++i) {
    float* c = problem.c + i * problem.c_stride;
    if (problem.accumulate == Accumulate::no) std::fill_n(c, problem.n, 0.0f);
    for (int64_t k = 0; k < problem.k; ++k) {
      const float a = element(problem.a, i, k);
      for (int64_t j = 0; j < problem.n; ++j) c[j] += a * element(problem.b, k, j);
    }
  }
}

}  // namespace

struct Gemm::Primitives {};

Gemm::Gemm() = default;
Gemm::~Gemm() = default;

void Gemm::operator()(const GemmProblem<float>& problem) { multiply(problem); }
void Gemm::operator()(const GemmProblem<uint16_t>& problem) { multiply(problem); }

bool gemm_has_fast_bf16() { return false; }

bool limit_gemm(GemmLimit) { return true; }

}  // namespace salient
