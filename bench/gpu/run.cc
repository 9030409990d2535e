#include "gpu/run.h"

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/error.h"

namespace salient::gpu {
namespace {

/// Failures that a section tells in full; a kernel that is all wrong fails in every case.
constexpr size_t kMostFailures = 200;

struct Deviation {
  double error = 0;
  int64_t wrong = 0;   ///< elements beyond the bound
  int64_t first = -1;  ///< of them
  int64_t last = -1;
};

double error_of(float got, float expected, double size) {
  if (got == expected || (std::isnan(got) && std::isnan(expected))) return 0;
  const double error = std::abs(double{got} - double{expected}) / size;
  return std::isnan(error) ? INFINITY : error;
}

double largest_of(std::span<const float> values) {
  double largest = 0;
  for (const float value : values)
    if (std::isfinite(value)) largest = std::max(largest, std::abs(double{value}));
  return largest > 0 ? largest : 1;
}

Deviation deviation(const Tensor& got, const Tensor& expected, const Tolerance& tolerance) {
  const auto a = got.values<float>();
  const auto b = expected.values<float>();
  const double largest = tolerance.sizes.defined() ? 1 : largest_of(b);
  Deviation result;
  for (size_t i = 0; i < b.size(); ++i) {
    const double size =
        tolerance.sizes.defined() ? double{tolerance.sizes.values<float>()[i]} + 1e-30 : largest;
    const double error = error_of(a[i], b[i], size);
    result.error = std::max(result.error, error);
    if (error <= tolerance.bound) continue;
    ++result.wrong;
    if (result.first < 0) result.first = static_cast<int64_t>(i);
    result.last = static_cast<int64_t>(i);
  }
  return result;
}

Json element(const Tensor& got, const Tensor& expected, int64_t at) {
  const int64_t columns = expected.shape().empty() ? 1 : expected.shape().back();
  return {{"row", at / columns},
          {"column", at % columns},
          {"got", number(got.values<float>()[static_cast<size_t>(at)])},
          {"expected", number(expected.values<float>()[static_cast<size_t>(at)])}};
}

}  // namespace

const Tensor Tolerance::kUndefined{};

SectionRun::SectionRun(cuda::Device& device, const Options& options, Report& report, const Settings& settings)
    : device_(device),
      options_(options),
      report_(report),
      section_(settings.section),
      limit_(settings.seconds),
      case_limit_(settings.case_seconds) {
  Json& section = json();
  if (!section.contains("cases")) section["cases"] = 0;
  if (!section.contains("failures")) section["failures"] = Json::array();
}

int64_t SectionRun::done() const { return report_.root()["sections"][section_]["cases"].get<int64_t>(); }

double SectionRun::seconds() const {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
}

void SectionRun::begin_case(const std::string& name) {
  case_ = name;
  json()["running"] = name;
  report_.save();
  device_.take_kernels();
  if (case_limit_ > 0) ::alarm(case_limit_);  // whose signal nobody handles
}

void SectionRun::end_case() {
  if (case_limit_ > 0) ::alarm(0);
  json().erase("running");
  json()["cases"] = begun_;
}

bool SectionRun::answers() {
  try {
    device_.synchronize();
    return true;
  } catch (const Error&) {
    return false;
  }
}

void SectionRun::attempt(const std::string& name, const std::function<void()>& body) {
  if (begun_++ < done()) return;
  if (seconds() > limit_) {
    json()["left_out"].push_back(name);
    return end_case();
  }
  begin_case(name);
  try {
    body();
  } catch (const std::exception& error) {
    fail("error", {{"text", error.what()}});
    if (dynamic_cast<const DeviceLost*>(&error) != nullptr || !answers()) {
      end_case();
      report_.save();
      throw DeviceLost(error.what());
    }
  }
  end_case();
}

void SectionRun::fail(const std::string& name, Json failure) {
  Json& failures = json()["failures"];
  if (failures.size() >= kMostFailures) {
    Json& more = json()["more_failures"];
    more = more.is_null() ? 1 : more.get<int64_t>() + 1;
    return;
  }
  Json told{{"check", name}, {"case", case_}};
  if (!failure.contains("kernels")) told["kernels"] = device_.take_kernels();
  told.update(failure);
  failures.push_back(std::move(told));
}

void SectionRun::note(const std::string& name, double error, double bound,
                      const std::set<std::string>& kernels) {
  Json& check = json()["checks"][name];
  if (check.is_null()) check = {{"cases", 0}, {"failed", 0}, {"error", -1.0}, {"bound", bound}};
  check["cases"] = check["cases"].get<int64_t>() + 1;
  if (!(error <= bound)) check["failed"] = check["failed"].get<int64_t>() + 1;
  const bool numbered = check["error"].is_number();
  if (numbered && !(error <= check["error"].get<double>())) {
    check["error"] = number(error);
    check["bound"] = bound;
    check["worst"] = case_;
  }
  auto all = check.value("kernels", std::set<std::string>());
  all.insert(kernels.begin(), kernels.end());
  check["kernels"] = all;
}

void SectionRun::check(const std::string& name, double error, double bound) {
  const auto kernels = device_.take_kernels();
  if (!(error <= bound)) fail(name, {{"kernels", kernels}, {"error", number(error)}, {"bound", bound}});
  note(name, error, bound, kernels);
}

void SectionRun::check(const std::string& name, const Tensor& got, const Tensor& expected,
                       const Tolerance& tolerance) {
  if (got.shape() != expected.shape())
    salient::fail(ErrorKind::internal, "{} is {}, not {}", name, to_string(got.shape()),
                  to_string(expected.shape()));
  const Deviation found = deviation(got, expected, tolerance);  // brings `got` to the host
  const auto kernels = device_.take_kernels();
  if (found.wrong > 0) {
    fail(name, {{"kernels", kernels},
                {"error", number(found.error)},
                {"bound", tolerance.bound},
                {"wrong", found.wrong},
                {"of", expected.element_count()},
                {"first", element(got, expected, found.first)},
                {"last", element(got, expected, found.last)}});
  }
  note(name, found.error, tolerance.bound, kernels);
}

void SectionRun::check_bytes(const std::string& name, std::span<const std::byte> got,
                             std::span<const std::byte> expected) {
  const auto kernels = device_.take_kernels();
  const auto differing = std::ranges::mismatch(got, expected);
  const bool same = differing.in1 == got.end() && differing.in2 == expected.end();
  if (!same)
    fail(name, {{"kernels", kernels}, {"first_byte", differing.in1 - got.begin()}, {"of", expected.size()}});
  note(name, same ? 0.0 : 1.0, 0.0, kernels);
}

std::unique_ptr<Backend> SectionRun::make_backend(const cuda::CudaBackendOptions& options) {
  return cuda::make_cuda_backend(borrowed(device_), options);
}

double SectionRun::bandwidth() const {
  const Json& sections = report_.root()["sections"];
  if (!sections.contains("device") || !sections["device"].contains("copy_bytes_per_second")) return 0;
  return sections["device"]["copy_bytes_per_second"].get<double>();
}

}  // namespace salient::gpu
