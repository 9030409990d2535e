#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "backend/backend.h"
#include "model/weights.h"
#include "runtime/layer.h"

namespace salient {

/// What becomes of a head (the projection to the vocabulary) that the checkpoint stores in floating point.
enum class LmHead {
  automatic,  ///< int8 in quantized models with ActivationMode::int8, else as stored
  int8,       ///< rounded to nearest, asymmetric, a scale for each group of up to 128 columns of a row
  stored,
};

/// Errors: invalid_argument for other names than "auto", "int8" and "stored".
LmHead lm_head_by_name(std::string_view name);

/// Whether such a head is to be rounded. The embedding that is tied to it never is.
bool rounds_head(LmHead lm_head, const Backend& backend, const ModelWeights& weights);

/// The head, rounded. With LmHead::automatic one of infinite or NaN weights comes as it is stored. Errors:
/// invalid_argument for such weights where int8 is asked for.
LinearWeight rounded_head(const ModelWeights& weights, LmHead lm_head);

/// The final norm and the projection to the vocabulary.
struct PreparedHead {
  PreparedNorm norm;  ///< [hidden]
  std::unique_ptr<PreparedLinear> projection;
  std::string form;  ///< "bf16" or "int8": of the projection's weights
};

/// Errors: those of rounded_head.
PreparedHead prepare_head(Backend& backend, const ModelWeights& weights, LmHead lm_head);

/// Logits f32 [rows, vocab] of hidden states f32 [rows, hidden].
Tensor final_logits(Backend& backend, const DecoderSpec& spec, const PreparedHead& head,
                    const Tensor& hidden);

}  // namespace salient
