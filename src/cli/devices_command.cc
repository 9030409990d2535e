#include <fmt/format.h>
#include <unistd.h>

#include <memory>

#include "backend/backend.h"
#include "backend/cuda/driver.h"
#include "base/json.h"
#include "base/parallel.h"
#include "cli/commands.h"
#include "cli/terminal.h"

namespace salient::cli {
namespace {

struct DevicesArguments {
  bool json = false;
};

uint64_t memory_bytes() {
  return static_cast<uint64_t>(::sysconf(_SC_PHYS_PAGES)) * static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
}

std::string capability_text(const cuda::DeviceProperties& device) {
  return fmt::format("{}.{}", device.compute_capability / 10, device.compute_capability % 10);
}

Json cuda_json(const cuda::CudaStatus& status) {
  Json devices = Json::array();
  for (const auto& device : status.devices) {
    devices.push_back({{"name", device.name},
                       {"compute_capability", capability_text(device)},
                       {"multiprocessors", device.multiprocessors},
                       {"memory_bytes", device.total_bytes}});
  }
  Json json{{"devices", devices}};
  json["why_not"] = status.why_not.empty() ? Json() : Json(status.why_not);
  return json;
}

Json devices_json(const std::string& processor, const cuda::CudaStatus& status) {
  return {
      {"cpu", {{"description", processor}, {"threads", thread_count()}, {"memory_bytes", memory_bytes()}}},
      {"cuda", cuda_json(status)}};
}

void print_devices(const std::string& processor, const cuda::CudaStatus& status) {
  std::vector<std::pair<std::string, std::string>> rows{
      {"cpu", fmt::format("{}, {}", processor.starts_with("cpu: ") ? processor.substr(5) : processor,
                          format_bytes(memory_bytes()))}};
  for (size_t i = 0; i < status.devices.size(); ++i) {
    const auto& device = status.devices[i];
    rows.emplace_back(
        fmt::format("cuda:{}", i),
        fmt::format("{}, compute capability {}, {} multiprocessors, {}", device.name, capability_text(device),
                    device.multiprocessors, format_bytes(device.total_bytes)));
  }
  if (!status.why_not.empty()) rows.emplace_back("cuda", "none: " + status.why_not);
  print_table(rows);
}

}  // namespace

void add_devices_command(CLI::App& app) {
  auto arguments = std::make_shared<DevicesArguments>();
  auto* command = app.add_subcommand("devices", "Say what there is to compute with");
  command->add_flag("--json", arguments->json, "Report as JSON");
  command->callback([arguments] {
    const std::string processor = make_cpu_backend()->description();
    const auto status = cuda::query_cuda();
    if (arguments->json) fmt::print("{}\n", devices_json(processor, status).dump(2));
    if (!arguments->json) print_devices(processor, status);
  });
}

}  // namespace salient::cli
