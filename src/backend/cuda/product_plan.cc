#include "backend/cuda/product_plan.h"

#include <algorithm>
#include <array>
#include <span>

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
  int out;          ///< outputs of a block
  int rows;         ///< of x, of a block
  int wanted;       ///< blocks of a multiprocessor that keep its memory busy
  int least_tiles;  ///< that a share of the columns is worth
  size_t shared_bytes;
};

template <typename Many>
KernelShape many_rows(const char* name, int blocks) {
  return {.kernel = {name, kLinearThreads, blocks},
          .out = Many::kRowsW,
          .rows = Many::kRowsX,
          .wanted = blocks,
          .least_tiles = 4,
          .shared_bytes = Many::kShared};
}

/// One block of FewRows has enough on its way; sums of parts would take longer than more blocks gain.
template <typename Format>
std::array<KernelShape, 4> shapes_of(std::array<const char*, 4> names) {
  using Few = FewRows<Format>;
  return {KernelShape{.kernel = {names[0], kLinearThreads, Format::kGroups > 1 ? 2 : 3},
                      .out = Few::Output::kRows,
                      .rows = kFewRows,
                      .wanted = 1,
                      .least_tiles = kLinearWarps * Format::kChunkTiles,
                      .shared_bytes = Few::kShared},
          many_rows<Many16<Format>>(names[1], 2), many_rows<Many32<Format>>(names[2], 1),
          many_rows<Many64<Format>>(names[3], 1)};
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

const KernelShape& kernel_for(const ProductShape& shape, ProductFamily family) {
  const auto kernels = kernels_for(shape);
  if (family == ProductFamily::gemv) return kernels[0];
  for (const KernelShape& kernel : kernels.subspan<1>())
    if (shape.rows <= kernel.rows) return kernel;
  return kernels[3];
}

/// Shares of the columns that fill the device once, as far as that is worth the sums of parts.
int splits_for(int blocks, int tiles, const KernelShape& kernel, const DeviceProperties& device) {
  const int each = std::min(kernel.wanted, resident_blocks(device, kernel.kernel, kernel.shared_bytes));
  const int room = device.multiprocessors * each;
  return std::clamp(room / std::max(blocks, 1), 1, std::max(1, tiles / kernel.least_tiles));
}

struct Choice {
  ProductFamily family;
  std::string reason;
  std::optional<int> splits{};
};

/// Up to kFewRows one kernel, so that each row gets the bytes that it would get alone.
bool takes(const ProductShape& shape, const ProductLimits& limits, const MeasuredPlan& measured) {
  if (shape.rows <= kFewRows) return measured.family == ProductFamily::gemv;
  return measured.family == ProductFamily::gemm ||
         (measured.family == ProductFamily::library && limits.library);
}

Choice choose(const ProductShape& shape, const ProductLimits& limits) {
  if (limits.forced) {
    const bool too_many = *limits.forced == ProductFamily::gemv && shape.rows > kFewRows;
    const bool missing =
        *limits.forced == ProductFamily::library && (!limits.library || shape.rows <= kFewRows);
    if (!too_many && !missing) return {*limits.forced, "as asked for"};
  } else if (limits.measured && takes(shape, limits, *limits.measured)) {
    return {limits.measured->family, "measured", std::clamp(limits.measured->splits, 1, shape.tiles)};
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

ProductPlan plan_product(const ProductShape& shape, const ProductLimits& limits) {
  Choice choice = choose(shape, limits);
  ProductPlan plan{.family = choice.family, .reason = std::move(choice.reason)};
  if (plan.family == ProductFamily::library) return plan;
  const KernelShape& kernel = kernel_for(shape, plan.family);
  plan.kernel = kernel.kernel;
  plan.shared_bytes = kernel.shared_bytes;
  plan.grid = {.x = divided_up(shape.out, kernel.out), .z = divided_up(shape.rows, kernel.rows)};
  plan.grid.y = choice.splits ? *choice.splits
                              : splits_for(plan.grid.x * plan.grid.z, shape.tiles, kernel, limits.device);
  return plan;
}

int rows_of_block(const ProductShape& shape, ProductFamily family) { return kernel_for(shape, family).rows; }

std::vector<MeasuredPlan> plans_to_measure(const ProductShape& shape, const ProductLimits& limits) {
  const ProductPlan planned = plan_product(shape, limits);
  std::vector<MeasuredPlan> plans{{planned.family, planned.grid.y}};
  const auto add = [&](ProductFamily family, int splits) {
    const MeasuredPlan plan{family, std::clamp(splits, 1, shape.tiles)};
    if (std::ranges::find(plans, plan) == plans.end()) plans.push_back(plan);
  };
  const ProductFamily by_kernel = shape.rows <= kFewRows ? ProductFamily::gemv : ProductFamily::gemm;
  ProductLimits kernels_only = limits;
  kernels_only.library = false;
  const int splits = plan_product(shape, kernels_only).grid.y;
  for (const int tried : {splits, 2 * splits, splits / 2}) add(by_kernel, tried);
  if (limits.library && shape.rows >= kLeastLibraryRows) add(ProductFamily::library, 1);
  return plans;
}

}  // namespace salient::cuda
