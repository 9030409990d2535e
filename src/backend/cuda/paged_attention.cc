#include "backend/cuda/paged_attention.h"

#include <algorithm>

namespace salient::cuda {
namespace {

bool same(const KvFormat& a, const KvFormat& b) {
  return a.type == b.type && a.heads == b.heads && a.dim == b.dim;
}

/// Whether one launch takes them all. What attention does not take on the device had better not be brought
/// there.
bool keeps(std::span<const RowsForCache> caches) {
  const auto fits = [&](const KvPages& pages, const KvPages& first) {
    return supports_store(pages.format) && supports_heads(pages.format.dim) &&
           same(pages.format, first.format) && pages.offset == first.offset;
  };
  return std::ranges::all_of(caches, [&](const RowsForCache& cache) {
    const auto& [keys, values] = cache.pages;
    const KvView& first = caches.front().pages;
    return keys.blocks.data() == values.blocks.data() && fits(keys, first.keys) && fits(values, first.values);
  });
}

/// A problem, and what of it is not on the device yet.
struct Located {
  const AttentionProblem* problem;
  DeviceAttention asked;
  std::vector<std::byte*> addresses;
};

/// Without addresses.
DeviceAttention sizes_of(const AttentionProblem& problem) {
  DeviceAttention asked{.query = nullptr,
                        .keys = {.format = {KvType::fp32, problem.kv_heads, problem.head_dim}},
                        .values = {.format = {KvType::fp32, problem.kv_heads, problem.value_dim}},
                        .output = nullptr,
                        .count = problem.query.dim(0),
                        .heads = problem.heads,
                        .first_position = problem.first_position,
                        .window = problem.window,
                        .scale = problem.scale,
                        .softcap = problem.softcap};
  if (problem.cache != nullptr) {
    asked.keys = {.format = problem.cache->keys.format, .offset = problem.cache->keys.offset};
    asked.values = {.format = problem.cache->values.format, .offset = problem.cache->values.offset};
  }
  return asked;
}

Located located(const TensorAccess& access, const AttentionProblem& problem, const DeviceAttention& sizes) {
  Located result{.problem = &problem, .asked = sizes, .addresses = {}};
  result.asked.query = access.read(problem.query);
  if (problem.cache != nullptr) {
    result.addresses = addresses_of(problem.cache->keys.blocks, access.memory(), {});
  } else {
    result.asked.keys.rows = access.read(problem.keys);
    result.asked.values.rows = access.read(problem.values);
  }
  result.asked.output = access.write(problem.output);
  return result;
}

int64_t query_width(const DeviceAttention& asked) { return asked.heads * asked.keys.format.dim; }
int64_t output_width(const DeviceAttention& asked) { return asked.heads * asked.values.format.dim; }

/// Query `row` of several.
DeviceAttention single_query(DeviceAttention asked, int64_t row) {
  asked.query += row * query_width(asked);
  asked.output += row * output_width(asked);
  asked.first_position += row;
  asked.count = 1;
  return asked;
}

/// Whether a single query may join one launch with `first`: all is alike, and both are rows of one tensor.
bool joins(const DeviceAttention& first, const DeviceAttention& next) {
  const int64_t distance = next.query - first.query;
  const int64_t row = distance / query_width(first);
  const auto alike = [](const DeviceRows& a, const DeviceRows& b) {
    return a.blocks != nullptr && b.blocks != nullptr && same(a.format, b.format) && a.offset == b.offset;
  };
  return alike(first.keys, next.keys) && alike(first.values, next.values) && first.heads == next.heads &&
         first.window == next.window && first.scale == next.scale && first.softcap == next.softcap &&
         first.slopes == next.slopes && distance == row * query_width(first) &&
         next.output - first.output == row * output_width(first);
}

/// Slopes on the device, once for problems that share them.
class SentSlopes {
 public:
  explicit SentSlopes(Device& device) : device_(device) {}
  const float* operator()(std::span<const float> slopes) {
    if (slopes.empty()) return nullptr;
    if (buffers_.empty() || slopes.data() != last_.data() || slopes.size() != last_.size())
      buffers_.push_back(sent(device_, slopes));
    last_ = slopes;
    return buffers_.back().as<float>();
  }

 private:
  Device& device_;
  std::span<const float> last_;
  std::vector<DeviceBuffer> buffers_;
};

/// Which rows of a batch stand where, those of no cache without blocks.
std::vector<BatchRow> batch_rows(std::span<const RowsForCache> caches,
                                 std::span<std::byte* const* const> tables, int64_t count) {
  std::vector<BatchRow> rows;
  for (int64_t row = 0; row < count; ++row) rows.push_back({nullptr, 0, static_cast<int>(row)});
  for (size_t i = 0; i < caches.size(); ++i) {
    for (int64_t row = 0; row < caches[i].count; ++row) {
      BatchRow& own = rows[static_cast<size_t>(caches[i].begin + row)];
      own.blocks = tables[i];
      own.position = static_cast<int>(caches[i].first + row);
    }
  }
  return rows;
}

}  // namespace

template <typename Body>
bool PagedAttention::done_with_blocks(size_t blocks, const Body& body) {
  if (!large_.may_fit(blocks)) return false;
  const bool done = done_where_there_is_room([&] {
    access_.held(body);
    return true;
  });
  if (done) {
    large_.remove(blocks);
  } else if (blocks > 0) {
    large_.add(blocks);
  }
  return done;
}

bool PagedAttention::rope_and_store(const RopeStoreProblem& problem) {
  if (!keeps(problem.caches)) return false;
  if (problem.caches.empty() && !problem.cosine.defined()) return true;
  size_t blocks = 0;
  for (const RowsForCache& cache : problem.caches) blocks += cache.pages.keys.blocks.size();
  return done_with_blocks(blocks, [&] { rope_and_store_on_device(problem); });
}

void PagedAttention::rope_and_store_on_device(const RopeStoreProblem& problem) {
  const std::span<const RowsForCache> caches = problem.caches;
  const bool rotates = problem.cosine.defined();
  Rotation rotation;
  RotatedHeads queries;
  NewRows rows{.count = problem.keys.dim(0)};
  if (rotates) {
    Tensor query = problem.query;
    Tensor keys = problem.keys;
    const int64_t dim = problem.head_dim;
    rotation = {.cosine = access_.read(problem.cosine),
                .sine = access_.read(problem.sine),
                .pairs = problem.cosine.dim(1),
                .layout = problem.pairs};
    queries = {.x = access_.update(query), .heads = query.dim(1) / dim, .head_dim = dim};
    rows.keys = access_.update(keys);
    rows.to_keys.format = {KvType::fp32, keys.dim(1) / dim, dim};
  } else {
    rows.keys = const_cast<float*>(access_.read(problem.keys));  // which nothing rotates
  }
  std::vector<std::vector<std::byte*>> addresses;
  for (const auto& [begin, count, first, pages] : caches)
    addresses.push_back(addresses_of(pages.keys.blocks, access_.memory(), {first, first + count}));
  if (!caches.empty()) {
    const auto& [to_keys, to_values] = caches.front().pages;
    rows.values = access_.read(problem.values);
    rows.to_keys = {.format = to_keys.format, .offset = to_keys.offset};
    rows.to_values = {.format = to_values.format, .offset = to_values.offset};
  }
  access_.run([&](Device& device) {
    place(device, caches, addresses, &rows);
    cuda::rope_and_store(device, rotation, queries, rows);
  });
}

/// Where rows stand that caches keep, whose blocks have `addresses`.
void PagedAttention::place(Device& device, std::span<const RowsForCache> caches,
                           std::span<const std::vector<std::byte*>> addresses, NewRows* rows) {
  tables_.begin();
  std::vector<std::byte* const*> tables;
  for (const auto& own : addresses) tables.push_back(tables_.table(device, own));
  if (caches.empty()) return;
  rows->to_keys.blocks = rows->to_values.blocks = tables.front();
  rows->first = caches.front().first;
  if (caches.size() > 1 || caches.front().count != rows->count)
    rows->batch = tables_.batch(device, batch_rows(caches, tables, rows->count));
  tables_.send(device);
}

/// What has no room together may have it one after the other.
void PagedAttention::attend(std::span<const AttentionProblem> problems, Backend& otherwise) {
  const auto fits = [](const AttentionProblem& problem) {
    return supports_split_attention(sizes_of(problem));
  };
  size_t blocks = 0;
  for (const AttentionProblem& problem : problems)
    if (problem.cache != nullptr) blocks += problem.cache->keys.blocks.size();
  const bool all_fit = std::ranges::all_of(problems, fits);
  if (all_fit && done_with_blocks(blocks, [&] { attend_on_device(problems); })) return;
  if (problems.size() == 1) return otherwise.attention(problems);
  for (size_t i = 0; i < problems.size(); ++i) attend(problems.subspan(i, 1), otherwise);
}

/// Several queries of few are each what they would be alone, see Backend::attention.
void PagedAttention::attend_on_device(std::span<const AttentionProblem> problems) {
  std::vector<Located> all;
  int64_t count = 0;
  for (const AttentionProblem& problem : problems) {
    all.push_back(located(access_, problem, sizes_of(problem)));
    count += problem.query.dim(0);
  }
  access_.run([&](Device& device) {
    tables_.begin();
    SentSlopes slopes(device);
    std::vector<DeviceAttention> singles;
    std::vector<DeviceAttention> others;
    for (auto& [problem, asked, addresses] : all) {
      asked.keys.blocks = asked.values.blocks = tables_.table(device, addresses);
      asked.slopes = slopes(problem->slopes);
      if (asked.count > kRowsAsAlone) others.push_back(asked);
      for (int64_t row = 0; asked.count <= kRowsAsAlone && row < asked.count; ++row)
        singles.push_back(single_query(asked, row));
    }
    for (auto first = singles.begin(); first != singles.end();) {
      auto end = first + 1;
      const bool takes = takes_batches(*first, access_.properties());
      while (takes && end != singles.end() && joins(*first, *end)) ++end;
      run_together(device, {first, end}, count <= kRowsAsAlone);
      first = end;
    }
    for (const DeviceAttention& asked : others) run(device, asked);
  });
}

void PagedAttention::run(Device& device, const DeviceAttention& asked) {
  tables_.send(device);
  const AttentionPlan plan = plan_attention(asked, access_.properties());
  workspace_.reserve(device, attention_workspace_bytes(asked, plan));
  cuda::attend(device, asked, plan, workspace_.address());
}

void PagedAttention::run_together(Device& device, std::span<const DeviceAttention> queries, bool as_alone) {
  DeviceAttention all = queries.front();
  if (queries.size() == 1) return run(device, all);
  std::vector<int> positions;
  std::vector<BatchRow> rows;
  for (const DeviceAttention& query : queries) {
    positions.push_back(static_cast<int>(query.first_position));
    rows.push_back({.blocks = query.keys.blocks,
                    .position = positions.back(),
                    .row = static_cast<int>((query.query - all.query) / query_width(all))});
  }
  all.positions = positions;
  all.as_alone = as_alone;
  all.batch = tables_.batch(device, rows);
  run(device, all);
}

}  // namespace salient::cuda
