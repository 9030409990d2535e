#pragma once

#include <optional>
#include <string>
#include <vector>

#include "backend/cuda/device_buffer.h"
#include "backend/cuda/linear.h"
#include "backend/cuda/packed_product.h"
#include "backend/cuda/product_plan.h"
#include "backend/cuda/product_table.h"

namespace salient::cuda {

/// A weight on a device, ready for Products.
struct ProductWeight {
  ProductWeight(Device& device, const PackedProduct& packed, HalfType half);

  int out;
  int in;
  int row_blocks;
  int tiles;
  int groups;  ///< 0: halves
  int columns_per_group;
  HalfType half;
  DeviceBuffer weight;
  DeviceBuffer factors;
  DeviceBuffer bias{};

  /// That a product reads.
  size_t byte_size() const { return weight.byte_size() + factors.byte_size() + bias.byte_size(); }
};

/// Products of a device, with the memory that they need on the side.
class Products {
 public:
  /// Smaller weights are read in no time.
  static constexpr size_t kLeastMeasured = size_t{1} << 20;

  explicit Products(Device& device) : device_(device) {}

  /// Begins with other rows of x f32 [rows, in], on the device, which must stay until the last `multiply`.
  void set_input(const float* x, int rows, int in);
  /// y [rows, out] = x W^T + bias. Errors: internal for a weight of other columns.
  void multiply(const ProductWeight& weight, float* y);

  void force(std::optional<ProductFamily> family) { forced_ = family; }
  /// From here on products of a size that comes for the first time are timed, unless a family is forced, and
  /// the fastest way is kept in the table, which must outlive this. Weights of fewer bytes are not worth it.
  void measure(ProductTable* table, size_t least_bytes = kLeastMeasured) {
    table_ = table;
    least_measured_ = least_bytes;
  }
  ProductPlan plan(const ProductWeight& weight, int rows) const;

 private:
  /// The input in the form that a kernel reads, made when it is asked for first.
  struct Form {
    DeviceBuffer memory{};
    bool current = false;
  };
  const void* fragments(HalfType half);
  const void* halves(HalfType half, int padded_rows, int padded_columns);
  ProductShape shape_of(const ProductWeight& weight, int rows) const;
  bool wants_library(const ProductWeight& weight, int rows) const;
  ProductLimits limits_for(const ProductWeight& weight, int rows) const;
  void measure_plans(const ProductWeight& weight, const std::string& key, float* y);
  double seconds_of(const ProductWeight& weight, const ProductPlan& plan, float* y);
  void run(const ProductWeight& weight, const ProductPlan& plan, float* y);
  void multiply_by_kernel(const ProductWeight& weight, const ProductPlan& plan, float* y);
  void multiply_by_library(const ProductWeight& weight, float* y);
  void reserve_parts(const ProductWeight& weight, const ProductPlan& plan);

  Device& device_;
  std::optional<ProductFamily> forced_{};
  const float* x_ = nullptr;
  int rows_ = 0;
  int in_ = 0;
  Form fragments_[2];
  Form halves_[2];
  int halves_rows_[2] = {};
  int halves_columns_[2] = {};
  DeviceBuffer parts_{};
  DeviceBuffer counters_{};
  ProductTable* table_ = nullptr;
  size_t least_measured_ = kLeastMeasured;
};

}  // namespace salient::cuda
