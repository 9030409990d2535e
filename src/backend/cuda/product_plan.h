#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "backend/cuda/device.h"

namespace salient::cuda {

/// Families of kernels: for few rows, for more, and a library's product of dequantized halves.
enum class ProductFamily { gemv, gemm, library };
std::string_view to_string(ProductFamily family);

/// How a product is computed, and why so.
struct ProductPlan {
  ProductFamily family;
  Kernel kernel{};  ///< unless a library's
  Grid grid{};      ///< y: shares of the columns
  size_t shared_bytes = 0;
  std::string reason{};
};

struct ProductShape {
  int rows;
  int out;
  int tiles;
  int columns_per_group;  ///< 0: halves
  HalfType half;
};

/// Rows from which a library's product may be faster than ours.
inline constexpr int kLeastLibraryRows = 65;

/// What was the fastest when it was tried.
struct MeasuredPlan {
  ProductFamily family;
  int splits;  ///< shares of the columns

  bool operator==(const MeasuredPlan&) const = default;
};

/// What the device and its owner allow.
struct ProductLimits {
  DeviceProperties device;
  bool library;
  std::optional<ProductFamily> forced{};
  std::optional<MeasuredPlan> measured{};  ///< counts unless a family is forced
};

/// Errors: none; a family that cannot be forced for so many rows is not.
ProductPlan plan_product(const ProductShape& shape, const ProductLimits& limits);

/// Rows of x that a block of a family takes.
int rows_of_block(const ProductShape& shape, ProductFamily family);

/// Plans that might be faster than the one that plan_product makes up, that one first.
std::vector<MeasuredPlan> plans_to_measure(const ProductShape& shape, const ProductLimits& limits);

}  // namespace salient::cuda
