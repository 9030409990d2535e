#include "cli/commands.h"

namespace salient::cli {

void add_activations_option(CLI::App& command, std::string& activations) {
  command
      .add_option(
          "--activations", activations,
          "What linears of up to 4 bits make of their inputs: fp32, exact products (default); int16 or "
          "int8, integers with a scale for each group of weights, several times faster on prompts")
      ->check(CLI::IsMember({"fp32", "int16", "int8"}));
}

}  // namespace salient::cli
