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
  auto backend =
      cuda::make_cuda_backend(cuda::open_cuda_device(ordinal), {.half = half,
                                                                .family = kernel.family,
                                                                .measure = choice.measure,
                                                                .table_file = cuda::default_table_file()});
  if (const std::string wrong = cuda::self_check(*backend); !wrong.empty())
    fail(ErrorKind::internal, "{}: {}", backend->description(), wrong);
  note(choice, backend->description() + ", " + kernel.note);
  return backend;
}

/// The first GPU that works, or null; a note says what keeps those that are there.
std::unique_ptr<Backend> first_gpu(const BackendChoice& choice, ActivationMode activations) {
  const auto status = cuda::query_cuda();
  if (!status.why_not.empty() && !status.devices.empty()) note(choice, "cuda: " + status.why_not);
  if (!status.why_not.empty()) return nullptr;
  for (size_t i = 0; i < status.devices.size(); ++i) {
    try {
      return make_cuda(choice, static_cast<int>(i), activations);
    } catch (const Error& error) {
      note(choice, fmt::format("cuda:{}: {}", i, error.what()));
    }
  }
  return nullptr;
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

void check_device_name(std::string_view name) {
  if (name == "auto" || name == "cpu" || cuda_ordinal(name)) return;
  fail(ErrorKind::invalid_argument, "device \"{}\" is not known (auto, cpu, cuda, cuda:N)", name);
}

std::unique_ptr<Backend> make_gpu_backend(const BackendChoice& choice) {
  check_device_name(choice.device);
  const ActivationMode activations = activation_mode_by_name(choice.activations);
  cuda::kernel_by_name(choice.kernel);  // refused on every device alike
  if (choice.device == "auto") return first_gpu(choice, activations);
  const auto ordinal = cuda_ordinal(choice.device);
  if (!ordinal) return nullptr;
  return with_context(fmt::format("device \"{}\"", choice.device),
                      [&] { return make_cuda(choice, *ordinal, activations); });
}

std::unique_ptr<Backend> make_backend(const BackendChoice& choice) {
  if (auto gpu = make_gpu_backend(choice)) return gpu;
  return make_cpu(choice, activation_mode_by_name(choice.activations));
}

}  // namespace salient
