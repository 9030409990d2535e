#include "awq/layer_statistics.h"

#include <algorithm>
#include <numeric>

#include "base/error.h"
#include "runtime/moe.h"

namespace salient {

std::set<int64_t> whole_gram_widths(const DecoderSpec& spec, int64_t layer,
                                    const PerLinear<LinearRounding>& linears) {
  std::set<int64_t> widths;
  for (const LinearSlot& slot : spec.linears(layer)) {
    const auto found = linears.find(slot.id);
    if (found != linears.end() && has_one_group_per_row(found->second.scheme))
      widths.insert(slot.in_features);
  }
  return widths;
}

LayerStatistics::LayerStatistics(const LayerJob& job, const LayerWeights& original, int64_t tokens)
    : job_(job),
      original_(original),
      representatives_(input_representatives(job.spec, job.layer)),
      whole_widths_(whole_gram_widths(job.spec, job.layer, job.linears)) {
  prepared_.make = [this](const LinearId& id) { return job_.backend.prepare(original_[id]); };
  if (job.spec.has_experts(job.layer)) expert_input_ = HiddenStore(job.place, tokens, job.spec.hidden_size);
}

/// Without a token.
ActivationStatistics LayerStatistics::of_width(int64_t features) const {
  return ActivationStatistics(features, whole_widths_.contains(features) ? 0 : job_.gram_block);
}

LinearObserver LayerStatistics::observer() {
  return [this](const LinearId& id, const Tensor& input) {
    if (id.role == LinearRole::router) record(input);
    if (is_expert(id.role) || representatives_.at(id) != id) return;
    auto entry = inputs_.find(id);
    if (entry == inputs_.end()) entry = inputs_.emplace(id, of_width(input.dim(1))).first;
    entry->second.add(job_.backend, job_.precision, input);
  };
}

void LayerStatistics::record(const Tensor& rows) {
  const int64_t count = rows.dim(0);
  if (recorded_ + count > expert_input_.rows()) {
    fail(ErrorKind::internal, "layer {}: more tokens than the {} announced", job_.layer,
         expert_input_.rows());
  }
  expert_input_.write(recorded_, rows);
  recorded_ += count;
}

const ActivationStatistics& LayerStatistics::of(const LinearId& id) const {
  return inputs_.at(representatives_.at(id));
}

GramMatrix LayerStatistics::take_gram(const LinearId& id) {
  const LinearId& reader = representatives_.at(id);
  const bool with_experts =
      job_.spec.has_experts(job_.layer) && representatives_.at(LinearRole::router) == reader;
  ActivationStatistics& own = inputs_.at(reader);
  return with_experts ? own.gram().copy() : own.take_gram();
}

/// The router decides batch by batch, as in the forward pass.
void LayerStatistics::assign_tokens() const {
  const MoeSpec& moe = *job_.spec.moe;
  rows_of_expert_.resize(static_cast<size_t>(moe.experts));
  const auto router = prepared_[LinearRole::router];
  for (int64_t begin = 0; begin < recorded_; begin += job_.rows_per_batch) {
    const Tensor x = expert_input_.read(begin, std::min(recorded_, begin + job_.rows_per_batch));
    Tensor scores = Tensor::empty(DType::f32, {x.dim(0), moe.experts});
    job_.backend.linear(*router, x, scores);
    const Routing routing = route(moe, scores, original_.router_correction);
    for (size_t i = 0; i < routing.experts.size(); ++i) {
      const auto row = begin + static_cast<int64_t>(i) / moe.experts_per_token;
      rows_of_expert_[static_cast<size_t>(routing.experts[i])].push_back(static_cast<int32_t>(row));
    }
  }
}

ExpertStatistics LayerStatistics::of_expert(int64_t expert) const {
  std::vector<int32_t> rows;
  bool pooled = false;
  if (job_.experts == ExpertCalibration::routed) {
    if (rows_of_expert_.empty()) assign_tokens();
    rows = rows_of_expert_[static_cast<size_t>(expert)];
    pooled = static_cast<int64_t>(rows.size()) < std::max<int64_t>(1, job_.min_tokens_per_expert);
  }
  const bool all = job_.experts == ExpertCalibration::all || pooled;
  if (all) {
    rows.resize(static_cast<size_t>(recorded_));
    std::iota(rows.begin(), rows.end(), 0);
  }
  const MlpRoles roles{
      {LinearRole::expert_gate, expert}, {LinearRole::expert_up, expert}, {LinearRole::expert_down, expert}};
  ExpertStatistics result{.input = all ? of(LinearRole::router) : of_width(job_.spec.hidden_size),
                          .hidden = of_width(original_[roles.down].in_features()),
                          .pooled = pooled};
  const LayerRun run{
      .backend = job_.backend, .spec = job_.spec, .ropes = {}, .layer = job_.layer, .sequences = {}};
  const auto at_once = static_cast<size_t>(job_.rows_per_batch);
  for (size_t begin = 0; begin < rows.size(); begin += at_once) {
    throw_if_cancelled(job_.cancelled);
    const auto chosen = std::span(rows).subspan(begin, std::min(at_once, rows.size() - begin));
    const Tensor x = expert_input_.gather(chosen);
    if (!all) result.input.add(job_.backend, job_.precision, x);
    result.hidden.add(job_.backend, job_.precision, mlp_hidden(run, prepared_, roles, x));
  }
  return result;
}

}  // namespace salient
