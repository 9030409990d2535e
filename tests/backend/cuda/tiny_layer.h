#pragma once

#include <optional>
#include <string>
#include <vector>

#include "awq/layer_job.h"
#include "awq/mapping.h"
#include "model/weights.h"
#include "support/temporary_directory.h"
#include "support/tiny_model.h"

namespace salient::test {

/// The first layer of a tiny model, to be quantized in groups of 32.
class TinyLayer {
 public:
  TinyLayer() {
    const std::string directory = (scratch_.path() / "model").string();
    TinyModel{}.write(directory);
    weights.emplace(directory);
    for (const auto& slot : weights->spec().linears(0))
      linears_[slot.id] = {.scheme = {.symmetric = false, .group_size = 32}};
    mappings_ = default_mappings(weights->spec(), 0);
  }
  LayerJob job(Backend& backend, Backend& exact) const {
    return {.backend = backend,
            .exact = exact,
            .spec = weights->spec(),
            .layer = 0,
            .linears = linears_,
            .mappings = mappings_};
  }
  std::optional<ModelWeights> weights;

 private:
  TemporaryDirectory scratch_;
  PerLinear<LinearRounding> linears_;
  std::vector<ResolvedMapping> mappings_;
};

}  // namespace salient::test
