#pragma once

#include <optional>
#include <string_view>

namespace salient {

/// Elementwise functions of MLPs, by what they compute. Models name them, back ends run them.
enum class Activation { silu, gelu, gelu_tanh, relu, sigmoid };

/// config.json's `hidden_act`: "silu"/"swish", "gelu", "gelu_new"/"gelu_pytorch_tanh"/"gelu_fast", "relu",
/// "sigmoid".
std::optional<Activation> activation_from_name(std::string_view name);

}  // namespace salient
