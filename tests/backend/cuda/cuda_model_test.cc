// Whole models by the CUDA back end on the simulated device: all families against transformers' logits,
// quantized models against the CPU.
#include <gtest/gtest.h>

#include <cstring>

#include "backend/cuda/cuda_backend.h"
#include "backend/cuda/simulator.h"
#include "base/error.h"
#include "runtime/decoder.h"
#include "support/golden_model.h"

namespace salient {
namespace {

/// Weights and inputs of products, queries and keys are rounded to 11 bits.
constexpr double kHalfTolerance = 1.5e-2;

/// Rows whose logits are further away than that. Of a model with experts that may happen to a few: one whose
/// scores of two experts are as good as equal goes to the other one.
int64_t rows_astray(const Tensor& logits, const Tensor& expected) {
  int64_t astray = 0;
  for (int64_t row = 0; row < logits.dim(0); ++row) {
    const double error = relative_error(logits.slice(row, row + 1).values<float>(),
                                        expected.slice(row, row + 1).values<float>());
    if (!(error < kHalfTolerance)) ++astray;
  }
  return astray;
}
int64_t rows_that_may_stray(const DecoderSpec& spec, int64_t rows) { return spec.moe ? rows / 6 : 0; }

struct OnSimulator {
  explicit OnSimulator(const cuda::CudaBackendOptions& options = {}) {
    auto owned = std::make_unique<test::SimulatedDevice>();
    device = owned.get();
    backend = cuda::make_cuda_backend(std::move(owned), options);
  }
  test::SimulatedDevice* device = nullptr;
  std::unique_ptr<Backend> backend;
};

class CudaModel : public testing::TestWithParam<std::string> {};

TEST_P(CudaModel, GivesTransformersLogits) {
  const GoldenModel golden(GetParam());
  OnSimulator cuda;
  const Decoder decoder = Decoder::load(golden.directory().string(), *cuda.backend);
  KvCache cache = decoder.make_cache();
  const Tensor logits = decoder.forward(golden.input_ids(), cache, {LogitRows::all});
  EXPECT_LE(rows_astray(logits, golden.logits()), rows_that_may_stray(decoder.spec(), logits.dim(0)));
}

TEST_P(CudaModel, TokenByTokenToo) {
  const GoldenModel golden(GetParam());
  OnSimulator cuda;
  const Decoder decoder = Decoder::load(golden.directory().string(), *cuda.backend);
  const auto ids = golden.input_ids();
  const Tensor expected = golden.stepwise_logits();
  KvCache cache = decoder.make_cache();
  constexpr int64_t kSteps = 12;
  int64_t astray = 0;
  for (int64_t i = 0; i < kSteps; ++i) {
    const Tensor logits = decoder.forward({&ids[static_cast<size_t>(i)], 1}, cache, {LogitRows::last});
    astray += rows_astray(logits, expected.slice(i, i + 1));
  }
  EXPECT_LE(astray, rows_that_may_stray(decoder.spec(), kSteps));
}

std::vector<std::string> golden_names() {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(GoldenModel::root()))
    if (std::filesystem::exists(entry.path() / "golden.safetensors"))
      names.push_back(entry.path().filename());
  std::ranges::sort(names);
  return names;
}

INSTANTIATE_TEST_SUITE_P(Families, CudaModel, testing::ValuesIn(golden_names()), [](const auto& name) {
  std::string id = name.param;
  std::ranges::replace_if(
      id, [](unsigned char c) { return std::isalnum(c) == 0; }, '_');
  return id;
});

}  // namespace
}  // namespace salient
