#include "evaluate/report_json.h"

namespace salient {

Json to_json(const Perplexity& perplexity) {
  return {{"perplexity", perplexity.perplexity},
          {"mean_loss", perplexity.mean_loss},
          {"predictions", perplexity.predictions}};
}

Json to_json(const Divergence& divergence) {
  Json json = to_json(divergence.model);
  json["reference"] = to_json(divergence.reference);
  json["mean_kl"] = divergence.mean_kl;
  json["same_top"] = divergence.same_top_share;
  return json;
}

}  // namespace salient
