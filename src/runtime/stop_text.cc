#include "runtime/stop_text.h"

#include <algorithm>
#include <utility>

namespace salient {
namespace {

/// Length of the longest end of `text` with which `stop` begins.
size_t overlap(std::string_view text, std::string_view stop) {
  for (size_t length = std::min(text.size(), stop.size() - 1); length > 0; --length) {
    if (text.substr(text.size() - length) == stop.substr(0, length)) return length;
  }
  return 0;
}

}  // namespace

StopText::StopText(std::vector<std::string> stops) : stops_(std::move(stops)) {
  std::erase(stops_, std::string());
}

std::string StopText::push(std::string_view piece) {
  if (stopped_) return {};
  held_ += piece;
  size_t end = std::string::npos;
  size_t kept = 0;
  for (const std::string& stop : stops_) {
    end = std::min(end, held_.find(stop));
    kept = std::max(kept, overlap(held_, stop));
  }
  stopped_ = end != std::string::npos;
  std::string shown = held_.substr(0, stopped_ ? end : held_.size() - kept);
  held_ = stopped_ ? std::string() : held_.substr(shown.size());
  return shown;
}

std::string StopText::finish() { return std::exchange(held_, {}); }

}  // namespace salient
