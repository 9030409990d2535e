#include "runtime/batch.h"

namespace salient {

std::vector<SequenceBatch> make_batches(const RopeSpec& rope,
                                        std::span<const std::vector<int32_t>> sequences) {
  std::vector<SequenceBatch> batches;
  std::vector<SequenceSpan> open;
  int64_t begin = 0;
  int64_t rows = 0;
  const auto close = [&] {
    if (rows > 0) batches.push_back({begin, rows, open, make_rope_table(rope, open)});
    open.clear();
    begin += rows;
    rows = 0;
  };
  for (const auto& sequence : sequences) {
    const auto count = static_cast<int64_t>(sequence.size());
    if (count == 0) continue;
    if (rows + count > kRowsPerBatch) close();
    open.push_back({rows, count, 0, nullptr});
    rows += count;
  }
  close();
  return batches;
}

}  // namespace salient
