#include <fmt/format.h>

#include "backend/kv_pages.h"
#include "base/error.h"
#include "cli/commands.h"

namespace salient::cli {

std::string not_empty(const std::string& value) { return value.empty() ? "the value is empty" : ""; }

void add_activations_option(CLI::App& command, std::string& activations) {
  command
      .add_option(
          "--activations", activations,
          fmt::format(
              "What quantized linears make of their inputs: fp32, exact products; int16 or int8, "
              "integers with a scale for each group of weights, several times faster on prompts; a GPU "
              "multiplies fp16, whichever of these is named, or bf16 (default {})",
              activations))
      ->check(CLI::IsMember({"fp32", "int16", "int8", "fp16", "bf16"}));
}

void add_device_options(CLI::App& command, DeviceOptions& options) {
  command
      .add_option(
          "--device", options.device,
          "What computes: cpu, cuda (the first GPU), cuda:N, or auto (the default): the first GPU that "
          "works, else the CPU; see salient devices")
      ->check(not_empty);
  command
      .add_option(
          "--kernel", options.kernel,
          "Kernels of quantized weights on a GPU: auto (by the number of rows, the default; exllama and "
          "exllamav2 mean the same), gemm (marlin, awq_marlin, machete), gemv (gemv_fast, llm-awq) or "
          "library (cuBLASLt)")
      ->check(not_empty);
}

void print_note(const std::string& note) { fmt::print(stderr, "{}\n", note); }

void add_kv_cache_option(CLI::App& command, std::string& type) {
  command
      .add_option(
          "--kv-cache-dtype", type,
          fmt::format("How keys and values of attention are kept: fp32; fp16; bf16, coarser, with the "
                      "range of fp32; or int8, integers with a scale for each head and position "
                      "(auto, the default: {})",
                      type))
      ->transform([usual = kv_type_by_name(type)](const std::string& name) {
        return with_context("--kv-cache-dtype",
                            [&] { return std::string(to_string(kv_type_asked_for(name, usual))); });
      });
}

void add_lm_head_option(CLI::App& command, std::string& lm_head) {
  command
      .add_option("--lm-head", lm_head,
                  "What becomes of a projection to the vocabulary in floating point: int8, rounded at load; "
                  "stored, as it is; auto (the default), int8 in quantized models with --activations int8")
      ->check(CLI::IsMember({"auto", "int8", "stored"}));
}

void add_packed_weights_option(CLI::App& command, std::string& folder) {
  command
      .add_option(
          "--packed-weights", folder,
          "Folder that keeps the weights of quantized models as they are packed for this program: made "
          "by the first load, mapped by those that follow")
      ->check(not_empty);
}

}  // namespace salient::cli
