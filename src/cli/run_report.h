#pragma once

#include <string>
#include <vector>

#include "base/json.h"
#include "salient/oneshot.h"

namespace salient::cli {

/// Errors, before the work: invalid_argument for a file that is neither .json nor .html, that exists without
/// options.overwrite, or whose name in the output directory is a file of the model; not_found for a folder
/// that does not exist; io for one in which nothing can be written.
void check_report_files(const std::vector<std::string>& files, const OneshotOptions& options);

/// `report`: what to_json of an OneshotReport gives, maybe with "evaluation". Errors: io.
void write_report_files(const std::vector<std::string>& files, const Json& report);

/// What a report says in JSON; bytes that are no UTF-8 (a path may hold them) are replaced.
std::string json_text(const Json& report);

/// Per role what was lost, and the searches that failed, on standard output; nothing where nothing was
/// measured.
void print_losses(const OneshotReport& report);

}  // namespace salient::cli
