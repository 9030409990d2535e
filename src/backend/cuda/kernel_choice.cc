#include "backend/cuda/kernel_choice.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <vector>

#include "base/error.h"

namespace salient::cuda {
namespace {

struct NamedKernel {
  std::string_view name;
  std::optional<ProductFamily> family;
  std::string_view why;
};

constexpr std::string_view kGemm =
    "gemm: tiles of 16 to 64 rows by mma, copies pipelined, for any number of rows";
constexpr std::string_view kGemv = "gemv: weights streamed once for up to 8 rows; more rows as with auto";
constexpr std::string_view kByRows =
    "by the number of rows: gemv up to 8, for more gemm or cuBLASLt on dequantized weights, whichever was "
    "faster when it was measured here";

constexpr std::array<NamedKernel, 13> kKernels{
    {{"auto", {}, kByRows},
     {"gemm", ProductFamily::gemm, kGemm},
     {"marlin", ProductFamily::gemm, kGemm},
     {"awq_marlin", ProductFamily::gemm, kGemm},
     {"machete", ProductFamily::gemm, kGemm},
     {"gemv", ProductFamily::gemv, kGemv},
     {"gemv_fast", ProductFamily::gemv, kGemv},
     {"llm-awq", ProductFamily::gemv, kGemv},
     {"exllama", {}, kByRows},
     {"exllamav2", {}, kByRows},
     {"exllama_v1", {}, kByRows},
     {"exllama_v2", {}, kByRows},
     {"library", ProductFamily::library, "library: cuBLASLt on dequantized weights"}}};

std::string lower(std::string_view name) {
  std::string result(name);
  std::ranges::transform(result, result.begin(),
                         [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return result;
}

}  // namespace

KernelChoice kernel_by_name(std::string_view name) {
  const std::string asked = lower(name);
  const auto found = std::ranges::find(kKernels, asked, &NamedKernel::name);
  if (found == kKernels.end()) {
    std::vector<std::string_view> names;
    for (const NamedKernel& kernel : kKernels) names.push_back(kernel.name);
    fail(ErrorKind::invalid_argument, "kernel \"{}\" is not known ({})", name, fmt::join(names, ", "));
  }
  return {.family = found->family, .note = fmt::format("kernel {} -> {}", asked, found->why)};
}

}  // namespace salient::cuda
