#pragma once

#include <atomic>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace salient::cli {

/// "1.50 GiB": the units in which caps on memory are said.
std::string format_bytes(uint64_t bytes);
/// "12.3 s", "4:05", "1:02:03".
std::string format_duration(double seconds);

/// Two aligned columns on standard output.
void print_table(const std::vector<std::pair<std::string, std::string>>& rows);

/// One line that is rewritten on a terminal and printed line by line elsewhere, on standard error.
class StatusLine {
 public:
  StatusLine();
  ~StatusLine();
  StatusLine(const StatusLine&) = delete;
  StatusLine& operator=(const StatusLine&) = delete;

  void update(const std::string& text);
  /// "[#####     ]"; empty where lines are not rewritten.
  std::string bar(double fraction) const;
  bool is_terminal() const { return is_terminal_; }
  /// Ends the rewritten line, if any.
  void finish();

 private:
  bool is_terminal_;
  bool open_ = false;
};

/// Raised by the first Ctrl-C (or SIGTERM); a second one kills the process. Installed on first use.
std::atomic<bool>& interrupted();

}  // namespace salient::cli
