#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace salient {

/// Lets text through until one of the stop texts comes. Whatever may be the beginning of one is held back.
class StopText {
 public:
  /// Empty stop texts are ignored.
  explicit StopText(std::vector<std::string> stops);

  /// The text that may be shown now.
  std::string push(std::string_view piece);
  /// What was held back at the end of the text.
  std::string finish();
  bool stopped() const { return stopped_; }

 private:
  std::vector<std::string> stops_;
  std::string held_;
  bool stopped_ = false;
};

}  // namespace salient
