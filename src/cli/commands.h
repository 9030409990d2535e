#pragma once

#include <CLI/CLI.hpp>
#include <string>

namespace salient::cli {

/// --activations of commands that run a model.
void add_activations_option(CLI::App& command, std::string& activations);
/// The folder of packed weights.
void add_packed_weights_option(CLI::App& command, std::string& folder);

/// Each adds one subcommand whose callback does the work.
void add_quantize_command(CLI::App& app);
void add_eval_command(CLI::App& app);
void add_generate_command(CLI::App& app);
void add_bench_command(CLI::App& app);
void add_inspect_command(CLI::App& app);

}  // namespace salient::cli
