#pragma once

#include <CLI/CLI.hpp>
#include <string>

namespace salient::cli {

/// What running a model defaults to: measured, perplexity stays within 0.02 % of that of exact products.
inline constexpr const char* kActivationsToRun = "int16";
/// --activations of commands that run a model; what `activations` holds is the default.
void add_activations_option(CLI::App& command, std::string& activations);
/// What computes, see BackendChoice.
struct DeviceOptions {
  std::string device = "auto";
  std::string kernel = "auto";
};
/// --device and --kernel of commands that run a model.
void add_device_options(CLI::App& command, DeviceOptions& options);
/// Onto standard error.
void print_note(const std::string& note);
/// --lm-head of such commands, likewise.
void add_lm_head_option(CLI::App& command, std::string& lm_head);
/// For CLI::Option::check: a value such as "$UNSET" is a mistake.
std::string not_empty(const std::string& value);
/// What running a model defaults to: measured, perplexity stays where fp32 has it.
inline constexpr const char* kKvTypeToRun = "fp16";
/// --kv-cache-dtype of commands that run a model; what `type` holds is the default.
void add_kv_cache_option(CLI::App& command, std::string& type);
/// The folder of packed weights.
void add_packed_weights_option(CLI::App& command, std::string& folder);

/// Each adds one subcommand whose callback does the work.
void add_quantize_command(CLI::App& app);
void add_eval_command(CLI::App& app);
void add_generate_command(CLI::App& app);
void add_bench_command(CLI::App& app);
void add_inspect_command(CLI::App& app);
void add_devices_command(CLI::App& app);

}  // namespace salient::cli
