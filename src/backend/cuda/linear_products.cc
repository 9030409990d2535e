#include "backend/cuda/linear_products.h"

#include <algorithm>
#include <array>

#include "backend/cuda/halves.h"
#include "backend/cuda/linear.cuh"
#include "base/error.h"
#include "base/names.h"

namespace salient::cuda {
namespace {

/// Rows from which a library's product of dequantized weights is used: there the time that dequantizing takes
/// is small beside the product, and its tiles are larger than ours.
constexpr int kLibraryRows = 257;

constexpr NameTable<ProductFamily, 3> kFamilies(
    {{{ProductFamily::gemv, "gemv"}, {ProductFamily::gemm, "gemm"}, {ProductFamily::library, "library"}}});

size_t index_of(HalfType half) { return half == HalfType::f16 ? 0 : 1; }

/// What a plan needs to know of a kernel.
struct KernelShape {
  Kernel kernel;
  int out;                 ///< outputs of a block
  int rows;                ///< of x, of a block
  int per_multiprocessor;  ///< blocks at a time
  int least_tiles;         ///< that a share of the columns is worth
  size_t shared_bytes;
};

template <typename Format>
std::array<KernelShape, 4> shapes_of(std::array<const char*, 4> names) {
  using Few = FewRows<Format>;
  const auto many = [&]<int tiles_n>(const char* name, int per_multiprocessor) {
    using Many = ManyRows<Format, tiles_n>;
    return KernelShape{{name, kLinearThreads}, Many::kRowsW, Many::kRowsX, per_multiprocessor, 4,
                       Many::kShared};
  };
  return {
      KernelShape{{names[0], kLinearThreads}, Few::kRows, kFewRows, 2, kLinearWarps, kFewRowsShared<Format>},
      many.template operator()<2>(names[1], 2), many.template operator()<4>(names[2], 1),
      many.template operator()<8>(names[3], 1)};
}

/// For few rows, up to 16, up to 32, and 64 at a time.
std::span<const KernelShape, 4> kernels_for(const ProductShape& shape) {
  static const std::array<std::array<KernelShape, 4>, 6> kTable = {
      shapes_of<FourBit<F16, 1>>({"w4_gemv_f16", "w4_gemm_f16_16", "w4_gemm_f16_32", "w4_gemm_f16_64"}),
      shapes_of<FourBit<F16, 2>>(
          {"w4_gemv_g32_f16", "w4_gemm_g32_f16_16", "w4_gemm_g32_f16_32", "w4_gemm_g32_f16_64"}),
      shapes_of<SixteenBit<F16>>({"w16_gemv_f16", "w16_gemm_f16_16", "w16_gemm_f16_32", "w16_gemm_f16_64"}),
      shapes_of<FourBit<BF16, 1>>({"w4_gemv_bf16", "w4_gemm_bf16_16", "w4_gemm_bf16_32", "w4_gemm_bf16_64"}),
      shapes_of<FourBit<BF16, 2>>(
          {"w4_gemv_g32_bf16", "w4_gemm_g32_bf16_16", "w4_gemm_g32_bf16_32", "w4_gemm_g32_bf16_64"}),
      shapes_of<SixteenBit<BF16>>(
          {"w16_gemv_bf16", "w16_gemm_bf16_16", "w16_gemm_bf16_32", "w16_gemm_bf16_64"}),
  };
  const size_t format = shape.columns_per_group == 0 ? 2 : shape.columns_per_group < kTileColumns ? 1 : 0;
  return kTable[index_of(shape.half) * 3 + format];
}

const Kernel& dequantize_kernel(const ProductWeight& weight) {
  static constexpr Kernel kKernels[2][2] = {
      {{"w4_dequantize_f16", kLinearThreads}, {"w4_dequantize_bf16", kLinearThreads}},
      {{"w16_rows_f16", kLinearThreads}, {"w16_rows_bf16", kLinearThreads}}};
  return kKernels[weight.groups > 0 ? 0 : 1][index_of(weight.half)];
}

const KernelShape& kernel_for(const ProductShape& shape, ProductFamily family) {
  const auto kernels = kernels_for(shape);
  if (family == ProductFamily::gemv) return kernels[0];
  for (const KernelShape& kernel : kernels.subspan<1>())
    if (shape.rows <= kernel.rows) return kernel;
  return kernels[3];
}

/// Shares of the columns that fill the device once, as far as that is worth the sums of parts.
int splits_for(int blocks, int tiles, const KernelShape& kernel, int multiprocessors) {
  const int room = multiprocessors * kernel.per_multiprocessor;
  return std::clamp(room / std::max(blocks, 1), 1, std::max(1, tiles / kernel.least_tiles));
}

struct Choice {
  ProductFamily family;
  std::string reason;
};

Choice choose(const ProductShape& shape, const ProductLimits& limits) {
  if (limits.forced) {
    const bool too_many = *limits.forced == ProductFamily::gemv && shape.rows > kFewRows;
    const bool missing = *limits.forced == ProductFamily::library && !limits.library;
    if (!too_many && !missing) return {*limits.forced, "as asked for"};
  }
  if (shape.rows <= kFewRows)
    return {ProductFamily::gemv, fmt::format("{} rows, at most {}", shape.rows, kFewRows)};
  if (shape.rows < kLibraryRows)
    return {ProductFamily::gemm, fmt::format("{} rows, fewer than {}", shape.rows, kLibraryRows)};
  if (!limits.library) return {ProductFamily::gemm, "no cuBLASLt for many rows"};
  return {ProductFamily::library, fmt::format("{} rows, {} or more", shape.rows, kLibraryRows)};
}

}  // namespace

std::string_view to_string(ProductFamily family) { return kFamilies.name_of(family); }

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

ProductPlan plan_product(const ProductShape& shape, const ProductLimits& limits) {
  Choice choice = choose(shape, limits);
  ProductPlan plan{.family = choice.family, .reason = std::move(choice.reason)};
  if (plan.family == ProductFamily::library) return plan;
  const KernelShape& kernel = kernel_for(shape, plan.family);
  plan.kernel = kernel.kernel;
  plan.shared_bytes = kernel.shared_bytes;
  plan.grid = {.x = divided_up(shape.out, kernel.out), .z = divided_up(shape.rows, kernel.rows)};
  plan.grid.y = splits_for(plan.grid.x * plan.grid.z, shape.tiles, kernel, limits.multiprocessors);
  return plan;
}

void Products::set_input(const float* x, int rows, int in) {
  x_ = x;
  rows_ = rows;
  in_ = in;
  for (Form& form : fragments_) form.current = false;
  for (Form& form : halves_) form.current = false;
}

ProductPlan Products::plan(const ProductWeight& weight, int rows) const {
  return plan_product({.rows = rows,
                       .out = weight.out,
                       .tiles = weight.tiles,
                       .columns_per_group = weight.columns_per_group,
                       .half = weight.half},
                      {.multiprocessors = device_.properties().multiprocessors,
                       .library = device_.multiplies() && weight.in % 2 == 0,
                       .forced = forced_});
}

void Products::multiply(const ProductWeight& weight, float* y) {
  if (weight.in != in_) fail(ErrorKind::internal, "cuda: a weight of {} columns for {}", weight.in, in_);
  const ProductPlan chosen = plan(weight, rows_);
  if (chosen.family == ProductFamily::library) return multiply_by_library(weight, y);
  multiply_by_kernel(weight, chosen, y);
}

const void* Products::fragments(HalfType half) {
  Form& form = fragments_[index_of(half)];
  if (form.current) return form.memory.address();
  const int tiles = divided_up(in_, kTileColumns);
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
  counters_.reserve(device_, counters);
  device_.fill_zero(counters_.address(), counters_.byte_size());
}

void Products::multiply_by_kernel(const ProductWeight& weight, const ProductPlan& plan, float* y) {
  reserve_parts(weight, plan);
  const bool few = plan.family == ProductFamily::gemv;
  const int rows_of_block = kernel_for({.rows = rows_,
                                        .out = weight.out,
                                        .tiles = weight.tiles,
                                        .columns_per_group = weight.columns_per_group,
                                        .half = weight.half},
                                       plan.family)
                                .rows;
  const void* x = few ? fragments(weight.half)
                      : halves(weight.half, plan.grid.z * rows_of_block, weight.tiles * kTileColumns);
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
                                  .tiles_per_group = std::max(1, weight.columns_per_group / kTileColumns)};
  device_.launch({.kernel = plan.kernel,
                  .grid = plan.grid,
                  .shared_bytes = plan.shared_bytes,
                  .arguments = bytes_of(arguments)});
}

void Products::multiply_by_library(const ProductWeight& weight, float* y) {
  const size_t elements = static_cast<size_t>(weight.out) * static_cast<size_t>(weight.in);
  dequantized_.reserve(device_, elements * sizeof(uint16_t));
  const DequantizeArguments arguments{.weight = weight.weight.as<Words4>(),
                                      .factors = weight.factors.as<uint32_t>(),
                                      .to = dequantized_.as<uint32_t>(),
                                      .out = weight.out,
                                      .columns = weight.in,
                                      .tiles = weight.tiles,
                                      .groups = weight.groups,
                                      .columns_per_group = weight.columns_per_group};
  const Grid grid{.x = weight.tiles, .y = divided_up(weight.row_blocks, kLinearWarps)};
  device_.launch({.kernel = dequantize_kernel(weight), .grid = grid, .arguments = bytes_of(arguments)});
  device_.multiply({.x = halves(weight.half, rows_, weight.in),
                    .w = dequantized_.address(),
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
