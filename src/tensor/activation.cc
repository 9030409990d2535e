#include "tensor/activation.h"

#include <array>
#include <utility>

namespace salient {

std::optional<Activation> activation_from_name(std::string_view name) {
  static constexpr std::array<std::pair<std::string_view, Activation>, 8> kNames{{
      {"silu", Activation::silu},
      {"swish", Activation::silu},
      {"gelu", Activation::gelu},
      {"gelu_new", Activation::gelu_tanh},
      {"gelu_pytorch_tanh", Activation::gelu_tanh},
      {"gelu_fast", Activation::gelu_tanh},
      {"relu", Activation::relu},
      {"sigmoid", Activation::sigmoid},
  }};
  for (const auto& [known, activation] : kNames) {
    if (known == name) return activation;
  }
  return std::nullopt;
}

}  // namespace salient
