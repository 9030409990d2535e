// Losses of many ways to round one weight, asked for at once.
#include "backend/backend_fixture.h"
#include "backend/cuda/cuda_backend.h"
#include "backend/cuda/simulator.h"
#include "quant/group_quantize.h"

namespace salient::test {
namespace {

class CudaRoundingLosses : public testing::Test {
 protected:
  void use_device(size_t bytes) {
    auto simulated = std::make_unique<SimulatedDevice>();
    simulated->set_total_bytes(bytes);
    device_ = simulated.get();
    cuda_ = cuda::make_cuda_backend(std::move(simulated), {});
  }
  Tensor positive(Shape shape) {
    Tensor result = random_tensor(generator_, std::move(shape), 0.5f);
    for (float& value : result.mutable_values<float>()) value = std::exp(value);
    return result;
  }
  /// Candidates with scales, with clips, and with neither.
  void make_problems(const QuantizationScheme& scheme, int64_t row_step, int count) {
    rules_.clear();
    scales_.clear();
    problems_.clear();
    const bool whole = scheme.group_size == QuantizationScheme::kWholeMatrix;
    for (int i = 0; i < count; ++i) {
      scales_.push_back(positive({weight_.dim(1)}));
      const auto scales = i % 3 == 0 ? std::span<const float>() : scales_.back().values<float>();
      rules_.push_back(rule_for_matrix({.scheme = scheme}, weight_, scales));
    }
    for (size_t i = 0; i < rules_.size(); ++i) {
      const auto scales = i % 3 == 0 ? std::span<const float>() : scales_[i].values<float>();
      const Shape groups{weight_.dim(0), group_count(scheme, weight_.dim(1))};
      problems_.push_back({.rule = rules_[i],
                           .weight = weight_,
                           .column_scales = scales,
                           .clip = whole || i % 2 == 0 ? Tensor() : positive(groups),
                           .gram = gram_,
                           .row_step = row_step});
    }
  }
  size_t results(bool by_group) const {
    const RoundingLossProblem& first = problems_.front();
    const int64_t per_row = by_group ? group_count(first.rule.scheme, weight_.dim(1)) : 1;
    return problems_.size() * static_cast<size_t>(rows_that_count(first) * per_row);
  }
  std::vector<double> together(Backend& backend, bool by_group) const {
    std::vector<double> result(results(by_group));
    if (by_group) {
      backend.rounding_losses_by_group(problems_, result);
    } else {
      backend.rounding_losses(problems_, result);
    }
    return result;
  }
  std::vector<double> one_by_one(Backend& backend, bool by_group) const {
    std::vector<double> result;
    for (const RoundingLossProblem& problem : problems_) {
      std::vector<double> own(results(by_group) / problems_.size());
      if (by_group) {
        backend.rounding_loss_by_group(problem, own);
      } else {
        backend.rounding_loss(problem, own);
      }
      result.insert(result.end(), own.begin(), own.end());
    }
    return result;
  }

  /// The same bytes where so little memory, tensors included, makes so many launches of it.
  void expect_cut(const QuantizationScheme& scheme, int count, size_t bytes, int launches) {
    use_device(size_t{1} << 30);
    make_problems(scheme, weight_.dim(0) > 100 ? 1 : 2, count);
    const auto expected = together(*cuda_, true);
    use_device(bytes);
    EXPECT_EQ(together(*cuda_, true), expected);
    EXPECT_EQ(device_->launches().at("errors_of_groups"), launches);
  }

  std::mt19937 generator_{42};
  std::unique_ptr<Backend> cpu_ = make_cpu_backend();
  std::unique_ptr<Backend> cuda_;
  SimulatedDevice* device_ = nullptr;
  Tensor weight_ = random_tensor(generator_, {7, 96});
  Tensor gram_ = [this] {
    Tensor gram = Tensor::zeros(DType::f32, {96, 96});
    cpu_->accumulate_gram(random_tensor(generator_, {200, 96}), MatmulPrecision::f32, gram);
    return gram;
  }();
  std::vector<RoundingRule> rules_;
  std::vector<Tensor> scales_;
  std::vector<RoundingLossProblem> problems_;
};

const std::vector<QuantizationScheme> kSchemes{
    {4, false, 32}, {3, true, QuantizationScheme::kWholeRow}, {4, false, QuantizationScheme::kWholeMatrix}};

TEST_F(CudaRoundingLosses, AreThoseOfEachProblem) {
  use_device(size_t{1} << 30);
  for (const QuantizationScheme& scheme : kSchemes) {
    for (const int64_t step : {1, 3}) {
      make_problems(scheme, step, 5);
      for (const bool by_group : {false, true}) {
        const auto found = together(*cuda_, by_group);
        EXPECT_EQ(found, one_by_one(*cuda_, by_group)) << describe(scheme);
        const auto expected = one_by_one(*cpu_, by_group);
        EXPECT_EQ(together(*cpu_, by_group), expected);
        for (size_t i = 0; i < expected.size(); ++i)
          ASSERT_NEAR(found[i], expected[i], 1e-4 * expected[i]) << i;
      }
    }
  }
}

TEST_F(CudaRoundingLosses, WaitForTheDeviceOnce) {
  use_device(size_t{1} << 30);
  make_problems({4, false, 32}, 1, 20);
  const auto found = together(*cuda_, false);
  EXPECT_EQ(device_->waits(), 1);
  EXPECT_EQ(device_->launches().at("errors_of_groups"), 1);
  EXPECT_EQ(found, one_by_one(*cuda_, false));
}

/// More candidates than a launch takes, and rows or candidates in parts for want of memory.
TEST_F(CudaRoundingLosses, DoNotDependOnHowTheyAreCut) {
  use_device(size_t{1} << 30);
  make_problems({4, false, 32}, 1, 35);
  const auto expected = together(*cuda_, false);
  EXPECT_EQ(device_->launches().at("errors_of_groups"), 2);
  EXPECT_EQ(expected, one_by_one(*cuda_, false));
  expect_cut({4, false, 32}, 5, 95552, 2);
  weight_ = random_tensor(generator_, {200, 96});
  expect_cut({4, false, 32}, 2, 296000, 8);
}

TEST_F(CudaRoundingLosses, ProblemsThatShareTooLittleAreInternalErrors) {
  use_device(size_t{1} << 30);
  make_problems({4, false, 32}, 1, 2);
  std::vector<double> result(2 * 7);
  const Tensor other = weight_.duplicate();
  const auto refused = [&](const RoundingLossProblem& second) {
    const RoundingLossProblem both[] = {problems_.front(), second};
    error_of([&] { cuda_->rounding_losses(both, result); }, ErrorKind::internal);
  };
  refused({.rule = rules_[0], .weight = other, .clip = {}, .gram = gram_});
  refused({.rule = rules_[0], .weight = weight_, .clip = {}, .gram = gram_, .row_step = 2});
  refused(
      {.rule = rules_[0], .weight = weight_, .clip = {}, .gram = gram_, .precision = MatmulPrecision::bf16});
  const RoundingRule wider{.scheme = {8, false, 32}};
  refused({.rule = wider, .weight = weight_, .clip = {}, .gram = gram_});
}

}  // namespace
}  // namespace salient::test
