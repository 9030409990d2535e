#pragma once

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "base/file.h"
#include "base/json.h"
#include "checkpoint/safetensors.h"
#include "support/temporary_directory.h"

namespace salient {

/// One folder of tests/golden/model, laid out as a model directory in a scratch folder.
class GoldenModel {
 public:
  explicit GoldenModel(const std::string& name) : golden_((root() / name / "golden.safetensors").string()) {
    std::string weights = name;
    std::ifstream(root() / name / "weights_of") >> weights;
    for (const auto& entry : std::filesystem::directory_iterator(root() / name)) {
      std::filesystem::copy(entry.path(), scratch_.path() / entry.path().filename());
    }
    if (weights != name) {
      std::filesystem::copy(root() / weights / "model.safetensors", scratch_.path() / "model.safetensors");
    }
    std::filesystem::remove(scratch_.path() / "golden.safetensors");
  }

  static std::filesystem::path root() {
    return std::filesystem::path(SALIENT_SOURCE_DIR) / "tests/golden/model";
  }

  const std::filesystem::path& directory() const { return scratch_.path(); }
  /// The models have room for 64 positions only, but their rotations know no end.
  void widen_context(int64_t positions) {
    const auto path = scratch_.path() / "config.json";
    Json config = parse_json(read_text_file(path), path.string(), DuplicateKeys::refuse);
    config["max_position_embeddings"] = positions;
    std::ofstream(path) << config.dump();
  }
  std::vector<int32_t> input_ids() const {
    const Tensor ids = golden_.tensor("input_ids");
    return {ids.values<int32_t>().begin(), ids.values<int32_t>().end()};
  }
  /// f32 [tokens, vocab]
  Tensor logits() const { return golden_.tensor("logits"); }
  /// Logits of a pass token by token; those of the whole pass where the two do not differ.
  Tensor stepwise_logits() const {
    return golden_.contains("stepwise_logits") ? golden_.tensor("stepwise_logits") : logits();
  }

 private:
  SafetensorsFile golden_;
  TemporaryDirectory scratch_;
};

/// max |a - b| / max |b|; infinity when the sizes differ or a value is not finite.
inline double relative_error(std::span<const float> a, std::span<const float> b) {
  if (a.size() != b.size()) return INFINITY;
  double difference = 0;
  double largest = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    if (!std::isfinite(a[i])) return INFINITY;
    difference = std::max(difference, std::abs(static_cast<double>(a[i]) - static_cast<double>(b[i])));
    largest = std::max(largest, std::abs(static_cast<double>(b[i])));
  }
  return difference / largest;
}

}  // namespace salient
