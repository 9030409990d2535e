#pragma once

#include <limits>
#include <optional>
#include <string>

#include "backend/backend.h"
#include "base/json.h"
#include "cli/commands.h"
#include "evaluate/divergence.h"

namespace salient::cli {

struct EvaluationArguments {
  std::string model;
  std::string against;  ///< a reference model, or empty
  std::string text;     ///< .txt or .jsonl
  std::string text_column = "text";
  size_t window = 512;
  DeviceOptions device;
  std::string activations = "fp32";  ///< of both models
  std::string kv_type = "fp32";      ///< of the first
  std::string lm_head = "auto";      ///< of the model; a reference has its own as stored
  size_t max_windows = std::numeric_limits<size_t>::max();
};

struct EvaluationResult {
  EvaluationArguments arguments;
  std::string device;
  ActivationMode activations;  ///< that the device took
  Perplexity model;
  std::optional<Divergence> divergence;
  int64_t windows = 0;
  double seconds = 0;
};

/// The text as windows of tokens. Errors: those of reading it, and invalid_argument for windows longer than
/// the model's positions.
TokenWindows evaluation_windows(const EvaluationArguments& arguments, const ModelWeights& weights);

/// Measures perplexity and, with a reference, KL divergence and top-1 agreement; shows progress on standard
/// error.
EvaluationResult evaluate(const EvaluationArguments& arguments);

Json to_json(const EvaluationResult& result);
void print_evaluation(const EvaluationResult& result);

}  // namespace salient::cli
