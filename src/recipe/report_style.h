#pragma once

#include <string_view>

namespace salient {

/// What stands in the <style> and <script> of a report's page. The script only sorts and filters tables: the
/// page says everything without it.
extern const std::string_view kReportStyle;
extern const std::string_view kReportScript;

}  // namespace salient
