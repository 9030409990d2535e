#include "backend/backend.h"

namespace salient {
namespace {

template <typename Loss>
void one_after_the_other(std::span<const RoundingLossProblem> problems, std::span<double> result,
                         const Loss& loss) {
  for (size_t i = 0; i < problems.size(); ++i) {
    const size_t own = result.size() / problems.size();
    loss(problems[i], result.subspan(i * own, own));
  }
}

}  // namespace

void Backend::rounding_losses(std::span<const RoundingLossProblem> problems, std::span<double> result) {
  one_after_the_other(problems, result,
                      [this](const auto& problem, std::span<double> own) { rounding_loss(problem, own); });
}

void Backend::rounding_losses_by_group(std::span<const RoundingLossProblem> problems,
                                       std::span<double> result) {
  one_after_the_other(problems, result, [this](const auto& problem, std::span<double> own) {
    rounding_loss_by_group(problem, own);
  });
}

}  // namespace salient
