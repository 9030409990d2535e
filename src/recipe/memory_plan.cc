#include "recipe/memory_plan.h"

#include <algorithm>
#include <bit>
#include <numeric>
#include <set>

#include "awq/awq.h"
#include "awq/clip_search.h"
#include "awq/layer_statistics.h"
#include "base/error.h"
#include "base/parallel.h"
#include "base/process.h"
#include "runtime/batch.h"
#include "runtime/layer.h"

namespace salient {
namespace {

constexpr uint64_t kMiB = uint64_t{1} << 20;
constexpr uint64_t kF32 = 4;
constexpr uint64_t kBf16 = 2;

// Measured beside what is planned one by one: the code that oneDNN generates and its copies of blocks, for
// each thread and once.
constexpr uint64_t kPerThread = 6 * kMiB;
constexpr uint64_t kOnce = 28 * kMiB;
/// What is chosen under a cap, and with it the result, must not hang on the number of threads: it has room
/// for so many, and more work where there is room for them too.
constexpr size_t kThreadsToChoose = 4;
/// One part in so many is lost between what the allocator has given away.
constexpr uint64_t kHoles = 32;
/// Without products: rounding to nearest.
constexpr uint64_t kWithoutProducts = 4 * kMiB;

uint64_t elements_of(const LinearSlot& slot) {
  return static_cast<uint64_t>(slot.out_features) * static_cast<uint64_t>(slot.in_features);
}

uint64_t rounded_up(uint64_t bytes, uint64_t step) { return (bytes + step - 1) / step * step; }

/// Of integers [out, in] as they wait to be written.
uint64_t integer_bytes(const QuantizationScheme& scheme, const LinearSlot& slot) {
  const auto out = static_cast<uint64_t>(slot.out_features);
  const auto groups = static_cast<uint64_t>(group_count(scheme, slot.in_features));
  const auto row = static_cast<uint64_t>(QuantizedWeight::row_bytes(scheme.num_bits, slot.in_features));
  return out * (row + groups * 3);  // scales of two bytes, zeros of one
}

/// What a plan may choose, see MemoryPlan.
struct MemoryChoice {
  HiddenStates storage = HiddenStates::f32;
  int64_t rows_per_batch = kRowsPerBatch;
  int64_t gram_block = 0;
  size_t threads = thread_count();
};

/// One decoder layer, without the batches that run through it.
class LayerMemory {
 public:
  LayerMemory(const Job& job, int64_t layer, const MemoryChoice& choice)
      : job_(job),
        spec_(job.weights.spec()),
        layer_(layer),
        slots_(spec_.linears(layer)),
        linears_(job.resolved.linears[static_cast<size_t>(layer)]),
        representatives_(input_representatives(spec_, layer)),
        choice_(choice),
        whole_widths_(whole_gram_widths(spec_, layer, linears_)) {}

  /// As mapped, with copies of what is stored in another order, and as it is to be written.
  uint64_t weights() const {
    uint64_t bytes = 0;
    for (const LinearSlot& slot : slots_) {
      const uint64_t stored = elements_of(slot) * byte_size(job_.weights.storage_type(slot));
      const bool copied = slot.storage == LinearStorage::transposed || slot.rows.block != slot.out_features;
      bytes += copied ? 2 * stored : stored;
      const auto found = linears_.find(slot.id);
      const bool dense = found == linears_.end() || job_.result == OneshotResult::scaled;
      if (dense) bytes += stored;
      const bool rounded =
          job_.result == OneshotResult::quantized || job_.propagation == Propagation::quantized;
      if (found != linears_.end() && rounded) bytes += integer_bytes(found->second.scheme, slot);
    }
    return bytes;
  }

  /// Gram matrices: one per distinct input, and those of one expert.
  uint64_t statistics() const {
    if (!job_.awq) return 0;
    uint64_t bytes = 0;
    for (const LinearSlot& slot : slots_) {
      const bool counts = is_expert(slot.id.role)
                              ? slot.id.expert == 0 && slot.id.role != LinearRole::expert_up
                              : representatives_.at(slot.id) == slot.id;
      if (counts) bytes += gram_bytes(slot);
    }
    return bytes;
  }

  /// The search or the rounding that takes most.
  uint64_t work() const {
    uint64_t bytes = 0;
    for (const LinearSlot& slot : slots_) {
      const auto found = linears_.find(slot.id);
      // What stays dense is scaled in f32 and stored again.
      bytes = std::max(
          bytes, found == linears_.end() ? elements_of(slot) * kF32 : rounding_bytes(slot, found->second));
    }
    if (!job_.awq) return bytes;
    for (const auto& mapping : job_.resolved.mappings[static_cast<size_t>(layer_)])
      bytes = std::max(bytes, search_bytes(mapping));
    return bytes;
  }

  /// Activations of `rows` tokens in the middle of the layer, and what the pool that they come from keeps.
  uint64_t batch(uint64_t rows) const {
    const uint64_t bytes = std::max(whole_batch(rows), batch_in_slices(rows));
    return static_cast<uint64_t>(static_cast<double>(bytes) * TensorPool::kSlack);
  }

  uint64_t whole_batch(uint64_t rows) const {
    const auto hidden = static_cast<uint64_t>(spec_.hidden_size);
    uint64_t attention = static_cast<uint64_t>(spec_.heads * spec_.value_dim);
    uint64_t mlp = 0;
    for (const LinearSlot& slot : slots_) {
      const auto out = static_cast<uint64_t>(slot.out_features);
      if (slot.id.role < LinearRole::o || is_state(slot.id.role)) attention += out;
      if (is_up(slot.id.role)) mlp = std::max(mlp, 2 * out);
    }
    if (spec_.latent) attention += static_cast<uint64_t>(spec_.key_features() + spec_.value_features());
    if (spec_.has_state(layer_)) attention += 3 * static_cast<uint64_t>(spec_.linear_attention->channels());
    const uint64_t normed = spec_.query_key_norm ? static_cast<uint64_t>(spec_.heads * spec_.head_dim) : 0;
    const uint64_t experts = spec_.has_experts(layer_) ? 2 * hidden : 0;
    const uint64_t features = std::max(3 * hidden + attention + normed, 4 * hidden + mlp + experts);
    return rows * features * kF32;
  }

  /// Where rows pass everything behind attention in slices: hidden states, the inputs of all linears, what
  /// each thread's slice is made of, and the linears packed.
  uint64_t batch_in_slices(uint64_t rows) const {
    // As one thread would do: fewer threads than planned must not need more.
    if (!rounds() || !passes_in_slices(spec_, layer_, static_cast<int64_t>(rows), 1)) return 0;
    const auto hidden = static_cast<uint64_t>(spec_.hidden_size);
    const auto mixed = static_cast<uint64_t>(spec_.heads * spec_.value_dim);
    uint64_t inner = 0;
    uint64_t packed = 0;
    for (const LinearSlot& slot : slots_) {
      if (slot.id.role < LinearRole::o) continue;
      packed += elements_of(slot) * kBf16;
      if (is_up(slot.id.role)) inner = static_cast<uint64_t>(slot.out_features);
    }
    const uint64_t sliced = std::min(rows, choice_.threads * static_cast<uint64_t>(kRowsPerSlice));
    return (rows * (3 * hidden + mixed + inner) + sliced * (3 * hidden + 2 * inner)) * kF32 + packed;
  }

  /// What the back end keeps for the next time where products round their inputs: those, the columns of them
  /// for Gram matrices twice, or a Gram matrix for losses.
  uint64_t rounded_inputs(uint64_t rows) const {
    if (!rounds()) return 0;
    constexpr uint64_t kGramRows = 1024;
    uint64_t widest = 0;
    uint64_t block = 0;
    for (const LinearSlot& slot : slots_) {
      widest = std::max(widest, static_cast<uint64_t>(slot.in_features));
      block = std::max(block, block_width(slot));
    }
    const uint64_t inputs = std::max(rows * widest, 2 * std::min(rows, kGramRows) * block);
    return std::max(inputs, widest_judged() * widest_judged()) * kBf16;
  }

  /// And what each thread does: errors of rounding, in f32 and bf16, which take no less than
  /// sweeps do in their place, and columns on their way through compensation.
  uint64_t rounding_of_thread() const {
    constexpr uint64_t kErrorRows = 256;
    constexpr uint64_t kCompensatedRows = 128;
    return (2 * kErrorRows + kCompensatedRows) * widest_judged() * kF32;
  }

  /// A batch's columns of one block of a Gram matrix.
  uint64_t observed(uint64_t rows) const {
    uint64_t bytes = 0;
    for (const LinearSlot& slot : slots_) bytes = std::max(bytes, slice_bytes(slot, rows));
    return bytes;
  }

  /// Objective::block_output: the linears as they run for a candidate, experts one at a time.
  uint64_t candidate() const {
    uint64_t elements = 0;
    uint64_t expert = 0;
    for (const LinearSlot& slot : slots_) {
      if (is_expert(slot.id.role)) {
        expert = std::max(expert, elements_of(slot));
      } else {
        elements += elements_of(slot);
      }
    }
    return (elements + expert) * kF32;
  }

  uint64_t widest_linear() const {
    uint64_t elements = 0;
    for (const LinearSlot& slot : slots_) elements = std::max(elements, elements_of(slot));
    return elements * kF32;
  }

 private:
  bool rounds() const { return job_.precision == MatmulPrecision::bf16; }

  static bool is_up(LinearRole role) {
    return role == LinearRole::up || role == LinearRole::expert_up || role == LinearRole::shared_up;
  }
  static bool is_state(LinearRole role) {
    return role >= LinearRole::state_q && role < LinearRole::state_out;
  }

  /// The widest block of a linear that is rounded.
  uint64_t widest_judged() const {
    uint64_t widest = 0;
    for (const LinearSlot& slot : slots_) {
      if (linears_.contains(slot.id)) widest = std::max(widest, block_width(slot));
    }
    return widest;
  }

  std::vector<ColumnRange> blocks(const LinearSlot& slot) const {
    const bool whole = whole_widths_.contains(slot.in_features);
    return GramMatrix::ranges(slot.in_features, whole ? 0 : choice_.gram_block);
  }

  uint64_t gram_bytes(const LinearSlot& slot) const {
    uint64_t elements = 0;
    for (const ColumnRange& columns : blocks(slot))
      elements += static_cast<uint64_t>(columns.count() * columns.count());
    return elements * kF32;
  }

  /// The first block is the widest.
  uint64_t block_width(const LinearSlot& slot) const {
    return static_cast<uint64_t>(blocks(slot).front().count());
  }

  /// So many rows of the columns of a block; none of a Gram matrix that is whole.
  uint64_t slice_bytes(const LinearSlot& slot, uint64_t rows) const {
    return blocks(slot).size() == 1 ? 0 : rows * block_width(slot) * kF32;
  }

  /// The weight, the Gram matrix where experts need it too, and what takes most beside them: bounds of clips;
  /// the factor of compensation; the measuring of losses on some rows, when the factor is gone unless other
  /// linears share it. To match outputs three more squares and the corrected weight.
  uint64_t rounding_bytes(const LinearSlot& slot, const LinearRounding& rounding) const {
    const uint64_t elements = elements_of(slot);
    if (!job_.awq) return 2 * elements * kF32;
    const uint64_t clip =
        clip_bytes(slot, rounding.scheme) + slice_bytes(slot, static_cast<uint64_t>(slot.out_features));
    const uint64_t weight = elements * kF32 + (spec_.has_experts(layer_) ? gram_bytes(slot) : 0);
    if (job_.result == OneshotResult::scaled) return weight + clip;
    const uint64_t rows_at_once = std::min<uint64_t>(2048, static_cast<uint64_t>(slot.out_features));
    const uint64_t factor =
        job_.awq->rounding != Rounding::nearest ? gram_bytes(slot) + slice_bytes(slot, rows_at_once) : 0;
    const uint64_t beside = std::max(clip, measuring_bytes(slot, rounding.scheme));
    const uint64_t rounding_at_worst =
        weight + (shares_its_input(slot.id) ? factor + beside : std::max(factor, beside));
    if (job_.awq->rounding != Rounding::matched) return rounding_at_worst;
    return std::max(rounding_at_worst + gram_bytes(slot), 4 * gram_bytes(slot) + 2 * elements * kF32);
  }

  /// Some rows of the weight, of the original and of their difference.
  uint64_t measuring_bytes(const LinearSlot& slot, const QuantizationScheme& scheme) const {
    const bool whole = scheme.group_size == QuantizationScheme::kWholeMatrix;
    const int64_t rows = whole ? slot.out_features : std::min<int64_t>(1024, slot.out_features);  // at most
    return 3 * static_cast<uint64_t>(rows * slot.in_features) * kF32 +
           slice_bytes(slot, static_cast<uint64_t>(rows));
  }

  bool shares_its_input(const LinearId& id) const {
    if (is_expert(id.role)) return id.role != LinearRole::expert_down;
    return std::ranges::any_of(linears_, [&](const auto& other) {
      return other.first != id && !is_expert(other.first.role) &&
             representatives_.at(other.first) == representatives_.at(id);
    });
  }

  /// Bounds and losses of every group, those of the candidates too.
  static uint64_t clip_bytes(const LinearSlot& slot, const QuantizationScheme& scheme) {
    if (scheme.group_size == QuantizationScheme::kWholeMatrix) return 0;
    const auto groups = static_cast<uint64_t>(slot.out_features * group_count(scheme, slot.in_features));
    const auto at_once = static_cast<uint64_t>(clips_at_once(static_cast<int64_t>(groups)));
    return groups * (2 + at_once) * sizeof(float) + groups * (1 + at_once) * sizeof(double);
  }

  /// The weights of a mapping's balance layers, of all experts one at a time, and columns of the rows that
  /// candidates are judged by.
  uint64_t search_bytes(const ResolvedMapping& mapping) const {
    uint64_t weights = 0;
    uint64_t expert = 0;
    uint64_t judged = 0;
    for (const LinearSlot& slot : slots_) {
      if (std::ranges::find(mapping.balance, slot.id) == mapping.balance.end()) continue;
      constexpr uint64_t kMostRows = 2048;
      judged =
          std::max(judged, slice_bytes(slot, std::min(kMostRows, static_cast<uint64_t>(slot.out_features))));
      if (is_expert(slot.id.role)) {
        expert = std::max(expert, elements_of(slot));
      } else {
        weights += elements_of(slot);
      }
    }
    return (weights + expert) * kF32 + judged;
  }

  const Job& job_;
  const DecoderSpec& spec_;
  int64_t layer_;
  std::vector<LinearSlot> slots_;
  const PerLinear<LinearRounding>& linears_;
  PerLinear<LinearId> representatives_;
  MemoryChoice choice_;
  std::set<int64_t> whole_widths_;
};

/// The whole run for one choice of storage and batches.
class JobMemory {
 public:
  explicit JobMemory(const Job& job) : job_(job), spec_(job.weights.spec()) {
    for (const auto& window : job.data.sequences) {
      tokens_ += static_cast<int64_t>(window.size());
      longest_ = std::max(longest_, static_cast<int64_t>(window.size()));
    }
  }

  MemoryPlan plan(const MemoryChoice& choice) const {
    MemoryPlan plan{.program = program(choice.threads),
                    .cap = job_.max_memory,
                    .storage = choice.storage,
                    .rows_per_batch = choice.rows_per_batch,
                    .gram_block = choice.gram_block,
                    .threads = choice.threads};
    plan.hidden_states = angles(choice.rows_per_batch) + hidden(choice.storage, plan.spilled);
    for (int64_t layer = 0; layer < spec_.layers; ++layer) take_worse(layer, choice, plan);
    const uint64_t waiting = plan.program + plan.hidden_states;
    plan.sampling = job_.self_memory;
    plan.peak = std::max({waiting + plan.layer + plan.statistics + plan.workspace, waiting + embedding(),
                          plan.program + rest(), plan.program + plan.sampling});
    return plan;
  }

  int64_t fewest_rows() const { return std::max(kFewestRowsPerBatch, longest_); }

  /// Widths of blocks that Gram matrices may be kept in, widest first; of whole groups each. Outputs are
  /// matched with whole ones only.
  std::vector<int64_t> gram_blocks() const {
    std::vector<int64_t> blocks;
    if (!job_.awq || job_.awq->rounding == Rounding::matched) return blocks;
    int64_t widest = 0;
    int64_t group = 1;
    for (int64_t layer = 0; layer < spec_.layers; ++layer) {
      for (const LinearSlot& slot : spec_.linears(layer)) widest = std::max(widest, slot.in_features);
      for (const auto& [id, rounding] : job_.resolved.linears[static_cast<size_t>(layer)])
        group = std::max(group, rounding.scheme.group_size);
    }
    const auto of_groups = [&](int64_t columns) { return (columns + group - 1) / group * group; };
    const int64_t least = of_groups(std::min(kLeastGramBlock, spec_.hidden_size));
    auto block = static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(widest)) / 2);
    for (; block > least; block /= 2) blocks.push_back(of_groups(block));
    if (least < widest) blocks.push_back(least);
    return blocks;
  }

 private:
  uint64_t program(size_t threads) const {
    return resident_ + (job_.awq ? kOnce + threads * kPerThread : kWithoutProducts);
  }
  bool has_tokens() const { return tokens_ > 0; }
  bool compares_blocks() const { return job_.awq && job_.awq->objective == Objective::block_output; }

  /// Layers differ where some have experts: the worst counts.
  void take_worse(int64_t layer, const MemoryChoice& choice, MemoryPlan& plan) const {
    const LayerMemory memory(job_, layer, choice);
    const uint64_t weights = memory.weights();
    const uint64_t statistics = memory.statistics();
    uint64_t work = memory.work();
    if (has_tokens()) {
      const auto rows = static_cast<uint64_t>(std::min(tokens_, std::max(plan.rows_per_batch, longest_)));
      const auto probe = static_cast<uint64_t>(std::min(longest_, kProbeTokens));
      const uint64_t kept = 3 * probe * static_cast<uint64_t>(spec_.hidden_size) * kF32;
      if (compares_blocks()) work += memory.candidate() + memory.batch(rows);
      work = std::max(
          {work, memory.batch(rows) + memory.observed(rows), memory.batch(probe) + memory.widest_linear()});
      work += kept + memory.rounded_inputs(rows);
      plan.program =
          std::max(plan.program, program(choice.threads) + choice.threads * memory.rounding_of_thread());
    }
    work += (weights + statistics + work) / kHoles;
    if (weights + statistics + work <= plan.layer + plan.statistics + plan.workspace) return;
    plan.layer = weights;
    plan.statistics = statistics;
    plan.workspace = work;
  }

  /// Resident rows; what is on disk instead goes to `spilled`. Blocks with experts keep what they read too.
  uint64_t hidden(HiddenStates storage, uint64_t& spilled) const {
    const bool matched = job_.awq && job_.awq->rounding == Rounding::matched;
    const uint64_t copies = (spec_.moe ? 2 : 1) + (matched ? 1 : 0);
    const auto once = static_cast<uint64_t>(tokens_ * spec_.hidden_size);
    const uint64_t values = once * copies;
    // What a block puts out is compared in f32, wherever the hidden states wait.
    const uint64_t outputs = compares_blocks() ? once * kF32 : 0;
    if (storage == HiddenStates::spilled) spilled = values * kBf16;
    if (storage == HiddenStates::f32) return outputs + values * kF32;
    return outputs + (storage == HiddenStates::bf16 ? values * kBf16 : 0);
  }

  /// Cosines and sines of every position: once for batches that are alike.
  uint64_t angles(int64_t rows_per_batch) const {
    uint64_t pairs = 0;
    for (const RopeSpec& rope : spec_.ropes) pairs += static_cast<uint64_t>(rope.rotary_dim / 2);
    const auto batches = pack_batches(job_.data.sequences, rows_per_batch);
    uint64_t rows = 0;
    for (size_t i = 0; i < batches.size(); ++i) {
      if (i == 0 || !same_lengths(batches[i], batches[i - 1])) rows += static_cast<uint64_t>(batches[i].rows);
    }
    return rows * pairs * 2 * kF32;
  }

  /// While tokens become hidden states: the table, of which nobody knows how much is read.
  uint64_t embedding() const {
    if (!has_tokens()) return 0;
    const Tensor& table = job_.weights.embedding();
    return table.byte_size() + 2 * static_cast<uint64_t>(longest_ * spec_.hidden_size) * kF32;
  }

  /// Behind the last layer: the head, if it is rounded, and tensors that are copied one at a time.
  uint64_t rest() const {
    uint64_t largest = 0;
    const bool converts = storage_type(job_).has_value();
    for (const auto& name : job_.weights.checkpoint().tensor_names()) {
      const SafetensorsEntry& entry = job_.weights.checkpoint().entry(name);
      largest = std::max<uint64_t>(largest, entry.end - entry.begin);
    }
    uint64_t bytes = converts ? 4 * largest : largest;  // through f32
    if (job_.resolved.head) {
      const Tensor head = job_.weights.head().dense;
      constexpr uint64_t kRowsPerBlock = 4096;
      bytes = std::max(bytes,
                       2 * head.byte_size() + 3 * kRowsPerBlock * static_cast<uint64_t>(head.dim(1)) * kF32);
    }
    return bytes;
  }

  const Job& job_;
  const DecoderSpec& spec_;
  int64_t tokens_ = 0;
  int64_t longest_ = 0;
  uint64_t resident_ = resident_bytes();
};

/// What is tried, the least change to the results first.
std::vector<MemoryChoice> choices(const JobMemory& memory) {
  std::vector<MemoryChoice> choices;
  const auto add = [&](HiddenStates storage, int64_t rows, int64_t block = 0) {
    choices.push_back({storage, rows, block, kThreadsToChoose});
  };
  for (const HiddenStates storage : {HiddenStates::f32, HiddenStates::bf16, HiddenStates::spilled}) {
    int64_t rows = std::max(kRowsPerBatch, memory.fewest_rows());
    for (; rows > memory.fewest_rows(); rows /= 2) add(storage, rows);
    add(storage, memory.fewest_rows());
  }
  for (const int64_t block : memory.gram_blocks()) add(HiddenStates::spilled, memory.fewest_rows(), block);
  return choices;
}

uint64_t needed_by(const MemoryPlan& plan) {
  return plan.peak - plan.program + program_allowance(plan.program);
}

/// In whole MiB, as it is printed and said.
MemoryPlan with_sufficient_cap(const JobMemory& memory, MemoryChoice choice) {
  MemoryPlan plan = memory.plan(choice);
  choice.threads = std::max(choice.threads, kThreadsToChoose);
  plan.sufficient_cap = rounded_up(needed_by(memory.plan(choice)), kMiB);
  return plan;
}

/// A choice that fits with as many threads as there are, or as the cap has room for.
MemoryPlan with_most_threads(const JobMemory& memory, MemoryChoice choice) {
  size_t fit = std::min(kThreadsToChoose, thread_count());
  for (size_t too_many = thread_count() + 1; fit + 1 < too_many;) {
    choice.threads = std::midpoint(fit, too_many);
    const MemoryPlan plan = memory.plan(choice);
    (needed_by(plan) <= plan.cap ? fit : too_many) = choice.threads;
  }
  choice.threads = fit;
  return with_sufficient_cap(memory, choice);
}

/// Rounded down, never up to a cap that would do.
std::string describe_cap(uint64_t bytes) {
  if (bytes < kMiB) return fmt::format("{} bytes (is a unit such as MiB missing?)", bytes);
  const uint64_t hundredths = bytes * 100 / kMiB;
  return fmt::format("{}.{:02}MiB", hundredths / 100, hundredths % 100);
}

uint64_t whole_mebibytes(uint64_t bytes) { return rounded_up(bytes, kMiB) / kMiB; }

/// What nothing that may be chosen makes smaller, or what is chosen at last.
std::string what_remains(const MemoryPlan& plan) {
  if (plan.peak == plan.program + plan.sampling) {
    return fmt::format(
        "sampling (the data set \"self\") runs the whole model and takes {}MiB, which other data would not;",
        whole_mebibytes(plan.sampling));
  }
  if (plan.gram_block == 0) return "with small batches and hidden states on disk";
  return fmt::format("with small batches, hidden states on disk and Gram matrices in blocks of {} columns",
                     plan.gram_block);
}

}  // namespace

uint64_t program_allowance(uint64_t program) {
  return rounded_up(std::max<uint64_t>(1, program), 128 * kMiB);
}

MemoryPlan plan_memory(const Job& job) {
  const JobMemory memory(job);
  if (job.max_memory == 0) return with_sufficient_cap(memory, {});
  uint64_t whole = 0;  // as the job would run without a cap
  uint64_t least = UINT64_MAX;
  MemoryPlan leanest;
  for (const MemoryChoice& choice : choices(memory)) {
    const MemoryPlan plan = memory.plan(choice);
    const uint64_t needed = needed_by(plan);
    if (needed <= job.max_memory) return with_most_threads(memory, choice);
    if (whole == 0) whole = needed;
    if (needed >= least) continue;
    least = needed;
    leanest = plan;
  }
  fail(ErrorKind::out_of_memory,
       "the job needs {}MiB of memory, but max_memory is {}; {} the smallest cap that would do is {}MiB",
       whole_mebibytes(whole), describe_cap(job.max_memory), what_remains(leanest), whole_mebibytes(least));
}

}  // namespace salient
