#include "backend/cuda/linear_products.h"

#include <algorithm>
#include <array>
#include <bit>

#include "backend/cuda/halves.h"
#include "backend/cuda/linear.cuh"
#include "base/error.h"

namespace salient::cuda {
namespace {

/// Of the time of a plan before it: by less, clocks are not to be trusted.
constexpr double kClearlyLess = 0.95;

size_t index_of(HalfType half) { return half == HalfType::f16 ? 0 : 1; }

const Kernel& dequantize_kernel(const ProductWeight& weight) {
  static constexpr Kernel kKernels[2][2] = {
      {{"w4_dequantize_f16", kLinearThreads}, {"w4_dequantize_bf16", kLinearThreads}},
      {{"w16_rows_f16", kLinearThreads}, {"w16_rows_bf16", kLinearThreads}}};
  return kKernels[weight.groups > 0 ? 0 : 1][index_of(weight.half)];
}

/// Groups are powers of two, but for whole rows, all columns of which are of group 0.
int column_shift_of(const ProductWeight& weight) {
  return weight.groups <= 1 ? 31 : std::bit_width(static_cast<unsigned>(weight.columns_per_group)) - 1;
}
int group_shift_of(const ProductWeight& weight) {
  constexpr int kTileShift = std::bit_width(unsigned{kTileColumns}) - 1;
  return weight.groups <= 1 ? 31 : std::max(0, column_shift_of(weight) - kTileShift);
}

}  // namespace

ProductWeight::ProductWeight(Device& device, const PackedProduct& packed, HalfType type)
    : out(packed.out),
      in(packed.in),
      row_blocks(packed.row_blocks),
      tiles(packed.tiles),
      groups(packed.groups),
      columns_per_group(packed.columns_per_group),
      half(type),
      weight(DeviceBuffer::of(device, std::span(packed.weight))),
      factors(packed.groups > 0 ? DeviceBuffer::of(device, std::span(packed.factors)) : DeviceBuffer()) {}

void Products::set_input(const float* x, int rows, int in) {
  x_ = x;
  rows_ = rows;
  in_ = in;
  for (Form& form : fragments_) form.current = false;
  for (Form& form : halves_) form.current = false;
}

ProductShape Products::shape_of(const ProductWeight& weight, int rows) const {
  return {.rows = rows,
          .out = weight.out,
          .tiles = weight.tiles,
          .columns_per_group = weight.columns_per_group,
          .half = weight.half};
}

/// The library is loaded when it may be of use; rows on 16 bytes are what it always takes.
bool Products::wants_library(const ProductWeight& weight, int rows) const {
  const bool many = rows >= kLeastLibraryRows || forced_ == ProductFamily::library;
  return many && weight.in % 8 == 0;
}

ProductLimits Products::limits_for(const ProductWeight& weight, int rows) const {
  return {.device = device_.properties(),
          .library = wants_library(weight, rows) && device_.multiplies(),
          .forced = forced_};
}

ProductPlan Products::plan(const ProductWeight& weight, int rows) const {
  const ProductShape shape = shape_of(weight, rows);
  ProductLimits limits = limits_for(weight, rows);
  if (table_ != nullptr && !forced_) limits.measured = table_->find(measured_key(shape));
  return plan_product(shape, limits);
}

void Products::multiply(const ProductWeight& weight, float* y) {
  if (weight.in != in_) fail(ErrorKind::internal, "cuda: a weight of {} columns for {}", weight.in, in_);
  if (table_ != nullptr && !forced_ && weight.byte_size() >= least_measured_) {
    const std::string key = measured_key(shape_of(weight, rows_));
    if (!table_->find(key)) measure_plans(weight, key, y);
  }
  run(weight, plan(weight, rows_), y);
}

void Products::run(const ProductWeight& weight, const ProductPlan& plan, float* y) {
  if (plan.family == ProductFamily::library) return multiply_by_library(weight, y);
  multiply_by_kernel(weight, plan, y);
}

/// The least of several times, each with weights that are in no cache, as in a pass over a model.
double Products::seconds_of(const ProductWeight& weight, const ProductPlan& plan, float* y) {
  constexpr int kTimes = 3;
  constexpr size_t kMoreThanCaches = size_t{160} << 20;
  const DeviceBuffer other(device_, std::min(kMoreThanCaches, device_.free_bytes() / 8));
  run(weight, plan, y);
  double least = 0;
  for (int i = 0; i < kTimes; ++i) {
    device_.fill_zero(other.address(), other.byte_size());
    const double seconds = device_.seconds_of([&] { run(weight, plan, y); });
    least = i == 0 ? seconds : std::min(least, seconds);
  }
  return least;
}

void Products::measure_plans(const ProductWeight& weight, const std::string& key, float* y) {
  const ProductShape shape = shape_of(weight, rows_);
  ProductLimits limits = limits_for(weight, rows_);
  const std::vector<MeasuredPlan> plans = plans_to_measure(shape, limits);
  std::optional<MeasuredPlan> best;
  double least = 0;
  for (const MeasuredPlan& tried : plans) {
    limits.measured = tried;
    try {
      const double seconds = seconds_of(weight, plan_product(shape, limits), y);
      if (best && seconds >= kClearlyLess * least) continue;
      best = tried;
      least = seconds;
    } catch (const Error& error) {  // what has no room is no plan
      if (error.kind() != ErrorKind::out_of_memory) throw;
    }
  }
  table_->add(key, best.value_or(plans.front()));
}

const void* Products::fragments(HalfType half) {
  Form& form = fragments_[index_of(half)];
  if (form.current) return form.memory.address();
  const int tiles = tiles_of_row(in_, true);
  const int pairs = tiles * rows_ * kTileColumns / 2;
  form.memory.reserve(device_, static_cast<size_t>(pairs) * sizeof(uint32_t));
  const FragmentsArguments arguments{
      .x = x_, .to = form.memory.as<uint32_t>(), .rows = rows_, .columns = in_, .tiles = tiles};
  const Kernel& kernel = half == HalfType::f16 ? kFragmentsF16 : kFragmentsBf16;
  device_.launch(
      {.kernel = kernel, .grid = {.x = divided_up(pairs, kernel.threads)}, .arguments = bytes_of(arguments)});
  form.current = true;
  return form.memory.address();
}

const void* Products::halves(HalfType half, int padded_rows, int padded_columns) {
  const size_t index = index_of(half);
  Form& form = halves_[index];
  const bool fits = halves_rows_[index] == padded_rows && halves_columns_[index] == padded_columns;
  if (form.current && fits) return form.memory.address();
  const int64_t pairs = int64_t{padded_rows} * padded_columns / 2;
  form.memory.reserve(device_, static_cast<size_t>(pairs) * sizeof(uint32_t));
  const HalvesArguments arguments{.x = x_,
                                  .to = form.memory.as<uint32_t>(),
                                  .rows = rows_,
                                  .columns = in_,
                                  .padded_rows = padded_rows,
                                  .padded_columns = padded_columns};
  const Kernel& kernel = half == HalfType::f16 ? kHalvesF16 : kHalvesBf16;
  device_.launch({.kernel = kernel,
                  .grid = {.x = static_cast<int>((pairs + kernel.threads - 1) / kernel.threads)},
                  .arguments = bytes_of(arguments)});
  form.current = true;
  halves_rows_[index] = padded_rows;
  halves_columns_[index] = padded_columns;
  return form.memory.address();
}

void Products::reserve_parts(const ProductWeight& weight, const ProductPlan& plan) {
  if (plan.grid.y == 1) return;
  parts_.reserve(device_, static_cast<size_t>(plan.grid.y) * static_cast<size_t>(rows_) *
                              static_cast<size_t>(weight.out) * sizeof(float));
  const size_t counters =
      static_cast<size_t>(plan.grid.x) * static_cast<size_t>(plan.grid.z) * sizeof(uint32_t);
  if (counters <= counters_.byte_size()) return;
  DeviceBuffer zeros(device_, counters);
  device_.fill_zero(zeros.address(), counters);
  counters_ = std::move(zeros);
}

void Products::multiply_by_kernel(const ProductWeight& weight, const ProductPlan& plan, float* y) {
  reserve_parts(weight, plan);
  const bool few = plan.family == ProductFamily::gemv;
  const int rows = rows_of_block(shape_of(weight, rows_), plan.family);
  const void* x =
      few ? fragments(weight.half) : halves(weight.half, plan.grid.z * rows, weight.tiles * kTileColumns);
  const LinearArguments arguments{.weight = weight.weight.as<Words4>(),
                                  .factors = weight.factors.as<uint32_t>(),
                                  .x = static_cast<const Words4*>(x),
                                  .y = y,
                                  .bias = weight.bias.as<float>(),
                                  .parts = parts_.as<float>(),
                                  .counters = counters_.as<uint32_t>(),
                                  .rows = rows_,
                                  .out = weight.out,
                                  .row_blocks = weight.row_blocks,
                                  .tiles = weight.tiles,
                                  .groups = weight.groups,
                                  .group_shift = group_shift_of(weight)};
  device_.launch({.kernel = plan.kernel,
                  .grid = plan.grid,
                  .shared_bytes = plan.shared_bytes,
                  .arguments = bytes_of(arguments)});
}

void Products::multiply_by_library(const ProductWeight& weight, float* y) {
  const size_t elements = static_cast<size_t>(weight.out) * static_cast<size_t>(weight.in);
  const DeviceBuffer dequantized(device_, elements * sizeof(uint16_t));  // which others may have behind it
  const DequantizeArguments arguments{.weight = weight.weight.as<Words4>(),
                                      .factors = weight.factors.as<uint32_t>(),
                                      .to = dequantized.as<uint32_t>(),
                                      .out = weight.out,
                                      .columns = weight.in,
                                      .tiles = weight.tiles,
                                      .groups = weight.groups,
                                      .column_shift = column_shift_of(weight)};
  const Grid grid{.x = weight.tiles, .y = divided_up(weight.row_blocks, kLinearWarps)};
  device_.launch({.kernel = dequantize_kernel(weight), .grid = grid, .arguments = bytes_of(arguments)});
  device_.multiply({.x = halves(weight.half, rows_, weight.in),
                    .w = dequantized.address(),
                    .y = y,
                    .rows = rows_,
                    .in = weight.in,
                    .out = weight.out,
                    .type = weight.half});
  if (!weight.bias.defined()) return;
  const AddBiasArguments added{.y = y, .bias = weight.bias.as<float>(), .rows = rows_, .out = weight.out};
  const int64_t values = int64_t{rows_} * weight.out;
  device_.launch({.kernel = kAddBias,
                  .grid = {.x = static_cast<int>((values + kAddBias.threads - 1) / kAddBias.threads)},
                  .arguments = bytes_of(added)});
}

}  // namespace salient::cuda
