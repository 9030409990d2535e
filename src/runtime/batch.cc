#include "runtime/batch.h"

#include <algorithm>

#include "runtime/decoder.h"

namespace salient {

std::vector<SequenceBatch> pack_batches(std::span<const std::vector<int32_t>> sequences,
                                        int64_t rows_per_batch) {
  std::vector<SequenceBatch> batches;
  std::vector<SequenceSpan> open;
  int64_t begin = 0;
  int64_t rows = 0;
  const auto close = [&] {
    if (rows > 0) batches.push_back({begin, rows, open, {}});
    open.clear();
    begin += rows;
    rows = 0;
  };
  for (const auto& sequence : sequences) {
    const auto count = static_cast<int64_t>(sequence.size());
    if (count == 0) continue;
    if (rows + count > rows_per_batch) close();
    open.push_back({rows, count, 0, nullptr});
    rows += count;
  }
  close();
  return batches;
}

bool same_lengths(const SequenceBatch& a, const SequenceBatch& b) {
  return std::ranges::equal(a.sequences, b.sequences, {}, &SequenceSpan::count, &SequenceSpan::count);
}

std::vector<SequenceBatch> make_batches(const DecoderSpec& spec,
                                        std::span<const std::vector<int32_t>> sequences,
                                        int64_t rows_per_batch) {
  std::vector<SequenceBatch> batches = pack_batches(sequences, rows_per_batch);
  for (size_t i = 0; i < batches.size(); ++i) {
    const bool repeats = i > 0 && same_lengths(batches[i], batches[i - 1]);
    batches[i].ropes = repeats ? batches[i - 1].ropes : make_rope_tables(spec, batches[i].sequences);
  }
  return batches;
}

Tensor embed_sequences(Backend& backend, const ModelWeights& weights,
                       std::span<const std::vector<int32_t>> sequences) {
  const DecoderSpec& spec = weights.spec();
  const PreparedEmbedding embedding = prepare_embedding(weights);
  int64_t tokens = 0;
  for (const auto& sequence : sequences) tokens += static_cast<int64_t>(sequence.size());
  Tensor hidden = Tensor::empty(DType::f32, {tokens, spec.hidden_size});
  int64_t row = 0;
  for (const auto& sequence : sequences) {
    const Tensor part = embed_tokens(backend, spec, embedding, {sequence, 0});
    copy_rows(part, hidden, row);
    row += part.dim(0);
  }
  return hidden;
}

}  // namespace salient
