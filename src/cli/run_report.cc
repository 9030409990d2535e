#include "cli/run_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

#include "base/error.h"
#include "base/file.h"
#include "cli/terminal.h"
#include "recipe/report_figures.h"
#include "recipe/report_html.h"

namespace salient::cli {
namespace {

namespace fs = std::filesystem;

fs::path folder_of(const fs::path& file) {
  return file.has_parent_path() ? file.parent_path() : fs::path(".");
}

bool is_html(const std::string& file) { return fs::path(file).extension() == ".html"; }

/// The output directory does not exist yet, or is about to be replaced.
bool lies_in_output(const fs::path& file, const OneshotOptions& options) {
  const fs::path folder = folder_of(file);
  return contains_path(options.output, folder) && contains_path(folder, options.output);
}

bool is_file_of_model(const fs::path& name, const OneshotOptions& options) {
  return name == "config.json" || name.string().ends_with(".index.json") ||
         path_exists(fs::path(options.model) / name);
}

void check_report_file(const std::string& file, const OneshotOptions& options) {
  const fs::path path(file);
  if (!is_html(file) && path.extension() != ".json")
    fail(ErrorKind::invalid_argument, "--report {}: a report is a .json or .html file", file);
  if (lies_in_output(path, options)) {
    if (!is_file_of_model(path.filename(), options)) return;
    fail(ErrorKind::invalid_argument, "--report {}: {} is a file of the model", file,
         path.filename().string());
  }
  const fs::path folder = folder_of(path);
  if (contains_path(options.output, folder) ||
      (!options.work.empty() && contains_path(options.work, folder))) {
    fail(ErrorKind::invalid_argument, "--report {}: the folder {} will be gone when the run ends", file,
         folder.string());
  }
  if (!path_exists(folder))
    fail(ErrorKind::not_found, "--report {}: the folder {} does not exist", file, folder.string());
  if (path_exists(path)) {
    if (!file_exists(path)) fail(ErrorKind::invalid_argument, "--report {}: it is no regular file", file);
    if (!options.overwrite)
      fail(ErrorKind::invalid_argument, "--report {}: it exists already (--overwrite replaces it)", file);
  }
  const std::string probe = fmt::format("{}.probe", file);  // only trying tells on every file system
  with_context("--report", [&] { write_file_atomically(probe, ""); });
  fs::remove(probe);
}

std::string db_text(std::optional<double> db) { return db ? fmt::format("{:.2f}", *db) : "-"; }

}  // namespace

void check_report_files(const std::vector<std::string>& files, const OneshotOptions& options) {
  for (const std::string& file : files) check_report_file(file, options);
}

void write_report_files(const std::vector<std::string>& files, const Json& report) {
  for (const std::string& file : files)
    write_file_atomically(file, is_html(file) ? report_html(report) : json_text(report) + "\n");
}

std::string json_text(const Json& report) {
  return report.dump(2, ' ', false, Json::error_handler_t::replace);
}

void print_losses(const OneshotReport& report) {
  constexpr size_t kMostFailures = 20;
  std::vector<std::pair<std::string, std::string>> rows;
  const LinearRoles roles = group_linears(report.layers);
  for (const RoleFigures& figures : figures_by_role(roles)) {
    const auto share = mean_share(figures.linears, &LinearReport::loss);
    rows.emplace_back(
        "  " + figures.role,
        fmt::format("{:>6} -> {:>6} dB  {}", db_text(mean_db(figures.linears, &LinearReport::loss_nearest)),
                    db_text(mean_db(figures.linears, &LinearReport::loss)),
                    share ? fmt::format("{:5.1f} % of the loss left", 100 * *share) : ""));
  }
  if (!rows.empty()) {
    fmt::print("  signal-to-noise ratio, rounded to nearest -> as written:\n");
    print_table(rows);
  }
  const std::vector<std::string> failures = failure_texts(report.layers);
  for (size_t i = 0; i < std::min(failures.size(), kMostFailures); ++i)
    fmt::print("Failed: {}\n", failures[i]);
  if (failures.size() > kMostFailures)
    fmt::print("Failed: {} more (--report or --json names them)\n", failures.size() - kMostFailures);
}

}  // namespace salient::cli
