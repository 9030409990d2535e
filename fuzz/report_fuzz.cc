#include <cstddef>
#include <cstdint>
#include <string_view>

#include "expected_error.h"
#include "recipe/report_html.h"
#include "recipe/report_json.h"
#include "recipe/report_reader.h"

/// Any bytes read as a report must end in one that is read back from what is written of it, with a page whose
/// only script is its own, or in an Error.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace salient;
  try {
    const Json json = parse_json({reinterpret_cast<const char*>(data), size}, "report.json");
    const std::string written = to_json(read_report({json, "report.json"})).dump();
    const Json again = parse_json(written, "report.json");
    if (to_json(read_report({again, "report.json"})).dump() != written) std::abort();
    const std::string page = report_html(json);
    if (page.find("<script>") != page.rfind("<script>")) std::abort();
  } catch (const Error& error) {
    expect_outside_error(error);
  }
  return 0;
}
