#include "backend/backend.h"
#include "base/error.h"
#include "base/names.h"

namespace salient {
namespace {

constexpr NameTable<ActivationMode, 5> kActivationModes({{{ActivationMode::fp32, "fp32"},
                                                          {ActivationMode::int16, "int16"},
                                                          {ActivationMode::int8, "int8"},
                                                          {ActivationMode::fp16, "fp16"},
                                                          {ActivationMode::bf16, "bf16"}}});

}  // namespace

std::string_view to_string(ActivationMode mode) { return kActivationModes.name_of(mode); }

ActivationMode activation_mode_by_name(std::string_view name) {
  if (const auto mode = kActivationModes.find(name)) return *mode;
  fail(ErrorKind::invalid_argument, "activations \"{}\" are not known (fp32, int16, int8, fp16, bf16)", name);
}

std::unique_ptr<Backend> make_backend(const BackendChoice& choice) {
  const ActivationMode activations = activation_mode_by_name(choice.activations);
  if (choice.device == "auto" || choice.device == "cpu")
    return make_cpu_backend({.activations = activations, .fuse_layers = choice.fuse_layers});
  fail(ErrorKind::invalid_argument, "device \"{}\" is not known (auto, cpu)", choice.device);
}

}  // namespace salient
