#include "runtime/head.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <limits>
#include <optional>

#include "base/error.h"
#include "base/names.h"
#include "base/parallel.h"
#include "quant/group_quantize.h"

namespace salient {
namespace {

constexpr NameTable<LmHead, 3> kLmHeads(
    {{{LmHead::automatic, "auto"}, {LmHead::int8, "int8"}, {LmHead::stored, "stored"}}});

/// Rows that are widened to f32 at a time: a large head takes gigabytes so.
constexpr size_t kRowsOfPiece = 64;

/// Groups of 128 columns or of fewer that divide a row, else whole rows.
QuantizationScheme head_scheme(int64_t columns) {
  QuantizationScheme scheme{.num_bits = 8, .symmetric = false, .group_size = QuantizationScheme::kWholeRow};
  for (const int64_t size : {16, 32, 64, 128}) {
    if (columns % size == 0) scheme.group_size = size;
  }
  return scheme;
}

/// Runs body(f32 rows, first row) for pieces of the matrix, in parallel.
template <typename Body>
void for_each_piece(const Tensor& dense, const Body& body) {
  parallel_for(static_cast<size_t>(dense.dim(0)), kRowsOfPiece, [&](size_t begin, size_t end) {
    const auto row = static_cast<int64_t>(begin);
    body(dense.slice(row, static_cast<int64_t>(end)).to(DType::f32), row);
  });
}

/// Of groups of weights: the least and the largest difference between extremes, 0 being among them.
struct Widths {
  float least = std::numeric_limits<float>::infinity();
  float most = 0;
  bool finite = true;

  void add(std::span<const float> group) {
    float low = 0;
    float high = 0;
    for (const float value : group) {
      finite = finite && std::isfinite(value);
      low = std::min(low, value);
      high = std::max(high, value);
    }
    const float width = high - low;
    if (width > 0) least = std::min(least, width);
    most = std::max(most, width);
  }
  void add(const Widths& other) {
    least = std::min(least, other.least);
    most = std::max(most, other.most);
    finite = finite && other.finite;
  }
};

Widths widths_of(const Tensor& dense, const QuantizationScheme& scheme) {
  const auto width = static_cast<size_t>(group_width(scheme, dense.dim(1)));
  std::vector<Widths> pieces((static_cast<size_t>(dense.dim(0)) + kRowsOfPiece - 1) / kRowsOfPiece);
  for_each_piece(dense, [&](const Tensor& rows, int64_t first) {
    const auto values = rows.values<float>();
    for (size_t at = 0; at < values.size(); at += width)
      pieces[static_cast<size_t>(first) / kRowsOfPiece].add(values.subspan(at, width));
  });
  Widths result;
  for (const Widths& piece : pieces) result.add(piece);
  return result;
}

/// f16 where every scale is one of its normal numbers, else f32; nothing for weights that are no numbers.
std::optional<DType> scale_type(const Widths& widths, const QuantizationScheme& scheme) {
  if (!widths.finite) return std::nullopt;
  const auto steps = static_cast<float>(max_code(scheme));
  const bool fits = widths.most / steps <= 65504.0f && widths.least / steps >= 0x1p-14f;
  return fits ? DType::f16 : DType::f32;
}

QuantizedWeight round_pieces(const Tensor& dense, const QuantizationScheme& scheme, DType scales) {
  QuantizedWeight result = allocate_quantized_weight(scheme, dense.dim(0), dense.dim(1), scales);
  for_each_piece(dense, [&](const Tensor& rows, int64_t first) {
    const QuantizedWeight piece = quantize_to_nearest(rows, {}, scheme, scales);
    copy_rows(piece.codes, result.codes, first);
    copy_rows(piece.scales, result.scales, first);
    copy_rows(piece.zeros, result.zeros, first);
  });
  return result;
}

std::string form_of(const LinearWeight& weight) {
  if (weight.quantized) return fmt::format("int{}", weight.quantized->scheme.num_bits);
  std::string name(to_string(weight.dense.dtype()));
  std::ranges::transform(name, name.begin(),
                         [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return name;
}

}  // namespace

LmHead lm_head_by_name(std::string_view name) {
  if (const auto lm_head = kLmHeads.find(name)) return *lm_head;
  fail(ErrorKind::invalid_argument, "lm_head \"{}\" is not known (auto, int8, stored)", name);
}

bool rounds_head(LmHead lm_head, const Backend& backend, const ModelWeights& weights) {
  if (lm_head == LmHead::stored || weights.has_quantized_head()) return false;
  if (lm_head == LmHead::int8) return true;
  // Measured, it costs up to 0.1 % of perplexity, of which int16 promises a fifth at most.
  return weights.quantization() && backend.activations() == ActivationMode::int8;
}

LinearWeight rounded_head(const ModelWeights& weights, LmHead lm_head) {
  LinearWeight head = weights.head();
  const QuantizationScheme scheme = head_scheme(head.in_features());
  const std::optional<DType> scales = scale_type(widths_of(head.dense, scheme), scheme);
  if (!scales && lm_head == LmHead::int8) {
    fail(ErrorKind::invalid_argument,
         "{}: the lm_head has infinite or NaN weights, which have no integers: ask for it as stored",
         weights.checkpoint().directory().string());
  }
  if (!scales) return head;
  head.quantized = round_pieces(head.dense, scheme, *scales);
  head.dense = {};
  weights.release_head();
  return head;
}

PreparedHead prepare_head(Backend& backend, const ModelWeights& weights, LmHead lm_head) {
  const bool rounds = rounds_head(lm_head, backend, weights);
  const LinearWeight weight = rounds ? rounded_head(weights, lm_head) : weights.head();
  return {prepare_norm(weights.final_norm()), backend.prepare(weight), form_of(weight)};
}

Tensor final_logits(Backend& backend, const DecoderSpec& spec, const PreparedHead& head,
                    const Tensor& hidden) {
  const Tensor input = normalized(backend, spec.norm, head.norm, hidden);
  Tensor logits = Tensor::empty(DType::f32, {hidden.dim(0), head.projection->out_features()});
  backend.linear(*head.projection, input, logits);
  if (spec.logit_scale != 1) backend.scale(static_cast<float>(spec.logit_scale), logits);
  if (spec.logit_softcap > 0) backend.softcap(static_cast<float>(spec.logit_softcap), logits);
  return logits;
}

}  // namespace salient
