#include <sys/wait.h>

#include <cstdio>

#include "backend/cuda/driver.h"
#include "backend/cuda/shared_library.h"
#include "base/error.h"
#include "gpu/sections.h"
#include "gpu/timing.h"

namespace salient::gpu {
namespace {

/// CUdevice_attribute.
struct Attribute {
  const char* name;
  int number;
};
constexpr Attribute kAttributes[] = {{"clock_khz", 13},
                                     {"memory_clock_khz", 36},
                                     {"memory_bus_bits", 37},
                                     {"l2_bytes", 38},
                                     {"threads_of_multiprocessor", 39},
                                     {"shared_bytes_of_multiprocessor", 81},
                                     {"registers_of_multiprocessor", 82}};

/// What the interface of devices does not tell.
void describe_driver(Json& json, int ordinal) {
  const cuda::SharedLibrary driver(cuda::CudaLibraries{}.driver);
  int (*version)(int*);
  int (*device)(int*, int);
  int (*attribute)(int*, int, int);
  driver.get("cuDriverGetVersion", version);
  driver.get("cuDeviceGet", device);
  driver.get("cuDeviceGetAttribute", attribute);
  int value = 0;
  if (version(&value) == 0) json["driver_cuda"] = fmt::format("{}.{}", value / 1000, value % 1000 / 10);
  int id = 0;
  if (device(&id, ordinal) != 0) return;
  for (const Attribute& asked : kAttributes)
    if (attribute(&value, asked.number, id) == 0) json[asked.name] = value;
}

Json properties_json(const cuda::DeviceProperties& properties) {
  return {{"name", properties.name},
          {"compute_capability",
           fmt::format("{}.{}", properties.compute_capability / 10, properties.compute_capability % 10)},
          {"multiprocessors", properties.multiprocessors},
          {"shared_bytes", properties.shared_bytes},
          {"total_bytes", properties.total_bytes}};
}

/// Launches one by one and as a graph: what the smallest kernel costs.
void measure_launches(SectionRun& run) {
  const auto backend = run.make_backend();
  Tensor x = Tensor::zeros(DType::f32, {1, 32});
  constexpr int kLaunches = 64;
  const auto some = [&] {
    for (int i = 0; i < kLaunches; ++i) backend->scale(1.0f, x);
    x.bytes();
  };
  some();
  some();
  double seconds = 0;
  const int rounds = run.tiny() ? 1 : 50;
  for (int i = 0; i < rounds; ++i) {
    backend->scale(1.0f, x);
    const auto start = std::chrono::steady_clock::now();
    some();
    seconds += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  }
  run.json()["us_per_small_kernel"] = number(seconds * 1e6 / rounds / kLaunches);
}

}  // namespace

/// One line of nvidia-smi, empty where it is not there.
std::string smi_line() {
  constexpr const char* kCommand =
      "nvidia-smi --query-gpu=name,driver_version,clocks.sm,clocks.mem,clocks.max.sm,power.draw,power.limit,"
      "temperature.gpu,ecc.mode.current,clocks_throttle_reasons.active --format=csv,noheader 2>/dev/null";
  std::FILE* pipe = ::popen(kCommand, "r");
  if (pipe == nullptr) return {};
  std::string text;
  char buffer[512];
  while (std::fgets(buffer, sizeof buffer, pipe) != nullptr) text += buffer;
  ::pclose(pipe);
  while (!text.empty() && text.back() == '\n') text.pop_back();
  return text;
}

void describe_device(SectionRun& run) {
  Json& json = run.json();
  const cuda::DeviceProperties& properties = run.device().properties();
  json["properties"] = properties_json(properties);
  const Peak peak = peak_of(properties);
  json["peak_bytes_per_second"] = peak.bytes_per_second > 0 ? Json(peak.bytes_per_second) : Json();
  json["peak_operations_per_second"] =
      peak.operations_per_second > 0 ? Json(peak.operations_per_second) : Json();
  json["cpu"] = make_cpu_backend()->description();
  if (!run.tiny()) {
    run.attempt("driver", [&] { describe_driver(json["driver"], run.options().device); });
    json["nvidia_smi"] = smi_line();
  }
  run.attempt("memory", [&] { json["free_bytes"] = run.device().free_bytes(); });
  run.attempt("library", [&] { json["cublas_lt"] = run.device().multiplies(); });
  run.attempt("bandwidth", [&] {
    if (run.tiny()) return;  // it copies gigabytes
    const double rate = run.make_backend()->measure_bandwidth();
    json["copy_bytes_per_second"] = rate;
    json["copy_share_of_peak"] = share(rate, peak.bytes_per_second);
  });
  run.attempt("launches", [&] { measure_launches(run); });
}

}  // namespace salient::gpu
