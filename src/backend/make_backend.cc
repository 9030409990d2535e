#include <charconv>

#include "backend/backend.h"
#include "backend/cuda/cuda_backend.h"
#include "backend/cuda/driver.h"
#include "backend/cuda/kernel_choice.h"
#include "backend/cuda/self_check.h"
#include "base/error.h"
#include "base/names.h"

namespace salient {
namespace {

constexpr NameTable<ActivationMode, 5> kActivationModes({{{ActivationMode::fp32, "fp32"},
                                                          {ActivationMode::int16, "int16"},
                                                          {ActivationMode::int8, "int8"},
                                                          {ActivationMode::fp16, "fp16"},
                                                          {ActivationMode::bf16, "bf16"}}});

constexpr std::string_view kCuda = "cuda";

bool is_for_gpu(ActivationMode mode) { return mode == ActivationMode::fp16 || mode == ActivationMode::bf16; }

void note(const BackendChoice& choice, const std::string& text) {
  if (choice.on_note) choice.on_note(text);
}

std::unique_ptr<Backend> make_cpu(const BackendChoice& choice, ActivationMode activations) {
  if (is_for_gpu(activations)) {
    fail(ErrorKind::invalid_argument, "activations \"{}\" are for a GPU; the CPU takes fp32, int16 or int8",
         choice.activations);
  }
  if (choice.kernel != "auto")
    note(choice, "kernel " + choice.kernel + ": of no effect, the CPU has its own");
  return make_cpu_backend({.activations = activations, .fuse_layers = choice.fuse_layers});
}

/// Errors: those of open_cuda_device; internal for a device that computes something else than the CPU.
std::unique_ptr<Backend> make_cuda(const BackendChoice& choice, int ordinal, ActivationMode activations) {
  const cuda::KernelChoice kernel = cuda::kernel_by_name(choice.kernel);
  const auto half = activations == ActivationMode::bf16 ? cuda::HalfType::bf16 : cuda::HalfType::f16;
  auto backend = cuda::make_cuda_backend(
      cuda::open_cuda_device(ordinal),
      {.half = half, .family = kernel.family, .measure = true, .table_file = cuda::default_table_file()});
  if (const std::string wrong = cuda::self_check(*backend); !wrong.empty())
    fail(ErrorKind::internal, "{}: {}", backend->description(), wrong);
  note(choice, backend->description() + ", " + kernel.note);
  return backend;
}

/// The GPU if there is one that works.
std::unique_ptr<Backend> make_best(const BackendChoice& choice, ActivationMode activations) {
  if (const auto status = cuda::query_cuda(); !status.why_not.empty()) return make_cpu(choice, activations);
  try {
    return make_cuda(choice, 0, activations);
  } catch (const Error& error) {
    if (is_for_gpu(activations)) throw;
    note(choice, std::string(error.what()) + ": the CPU computes");
    return make_cpu(choice, activations);
  }
}

/// "cuda" is the first one.
std::optional<int> cuda_ordinal(std::string_view device) {
  if (device == kCuda) return 0;
  if (!device.starts_with("cuda:")) return std::nullopt;
  const std::string_view digits = device.substr(kCuda.size() + 1);
  int ordinal = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), ordinal);
  if (error != std::errc() || end != digits.data() + digits.size() || ordinal < 0) return std::nullopt;
  return ordinal;
}

}  // namespace

std::string_view to_string(ActivationMode mode) { return kActivationModes.name_of(mode); }

ActivationMode activation_mode_by_name(std::string_view name) {
  if (const auto mode = kActivationModes.find(name)) return *mode;
  fail(ErrorKind::invalid_argument, "activations \"{}\" are not known (fp32, int16, int8, fp16, bf16)", name);
}

std::unique_ptr<Backend> make_backend(const BackendChoice& choice) {
  const ActivationMode activations = activation_mode_by_name(choice.activations);
  cuda::kernel_by_name(choice.kernel);  // refused on every device alike
  if (choice.device == "auto") return make_best(choice, activations);
  if (choice.device == "cpu") return make_cpu(choice, activations);
  if (const auto ordinal = cuda_ordinal(choice.device)) return make_cuda(choice, *ordinal, activations);
  fail(ErrorKind::invalid_argument, "device \"{}\" is not known (auto, cpu, cuda, cuda:N)", choice.device);
}

}  // namespace salient
