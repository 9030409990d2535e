#include "backend/cuda/product_table.h"

#include <cstdlib>
#include <filesystem>

#include "backend/cuda/linear.h"
#include "base/error.h"
#include "base/file.h"
#include "base/json.h"

namespace salient::cuda {
namespace {

namespace fs = std::filesystem;

/// Raised with every change of kernels that makes measurements of old.
constexpr int kTableVersion = 2;
constexpr int kMostSplits = 1 << 16;

std::optional<ProductFamily> family_by_name(std::string_view name) {
  for (const ProductFamily family : {ProductFamily::gemv, ProductFamily::gemm, ProductFamily::library})
    if (to_string(family) == name) return family;
  return std::nullopt;
}

/// Devices of a file, or none where it is damaged or of another version.
Json devices_of(const std::string& file) {
  if (!fs::exists(file)) return Json::object();
  const Json json = read_json_file(file);
  const JsonView view(json, file);
  if (view.int_or("version", 0) != kTableVersion) return Json::object();
  view.at("devices").members();
  return json["devices"];
}

}  // namespace

std::string measured_key(const ProductShape& shape) {
  int rows = kFewRows;
  while (rows < shape.rows) rows *= 2;
  const std::string codes =
      shape.columns_per_group == 0
          ? "w16"
          : fmt::format("w4 {}", shape.columns_per_group < kTileColumns ? "narrow groups" : "groups");
  return fmt::format("{} {} [{}, {}] rows {}", codes, shape.half == HalfType::f16 ? "fp16" : "bf16",
                     shape.out, shape.tiles * kTileColumns, rows);
}

ProductTable::ProductTable(std::string file, std::string device)
    : file_(std::move(file)), device_(std::move(device)) {
  if (file_.empty()) return;
  try {
    read();
  } catch (const Error&) {
    plans_.clear();
  }
}

ProductTable::~ProductTable() {
  if (file_.empty() || !changed_) return;
  try {
    write();
  } catch (const std::exception&) {
    return;  // a folder that nobody may write to: see the constructor
  }
}

void ProductTable::read() {
  const Json devices = devices_of(file_);
  const auto own = JsonView(devices, file_).find(device_);
  if (!own) return;
  for (const auto& [key, plan] : own->members()) {
    const auto family = family_by_name(plan.at("family").as_string());
    if (!family) plan.reject("no family of kernels");
    plans_[key] = {*family, static_cast<int>(plan.at("splits").as_int(1, kMostSplits))};
  }
}

void ProductTable::write() const {
  Json devices = Json::object();
  try {
    devices = devices_of(file_);
  } catch (const Error&) {
    devices = Json::object();
  }
  Json& own = devices[device_];
  if (!own.is_object()) own = Json::object();
  for (const auto& [key, plan] : plans_)
    own[key] = {{"family", to_string(plan.family)}, {"splits", plan.splits}};
  fs::create_directories(fs::path(file_).parent_path());
  write_file_atomically(file_, Json{{"version", kTableVersion}, {"devices", devices}}.dump(1) + "\n");
}

std::optional<MeasuredPlan> ProductTable::find(const std::string& key) const {
  const auto found = plans_.find(key);
  return found == plans_.end() ? std::nullopt : std::optional(found->second);
}

void ProductTable::add(const std::string& key, const MeasuredPlan& plan) {
  plans_[key] = plan;
  changed_ = true;
}

std::string default_table_file() {
  const char* cache = std::getenv("XDG_CACHE_HOME");
  const char* home = std::getenv("HOME");
  fs::path folder;
  if (cache != nullptr && *cache == '/') {
    folder = cache;
  } else if (home != nullptr && *home == '/') {
    folder = fs::path(home) / ".cache";
  } else {
    return {};
  }
  return folder / "salient" / "kernels.json";
}

}  // namespace salient::cuda
