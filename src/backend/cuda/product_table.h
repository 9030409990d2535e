#pragma once

#include <map>
#include <optional>
#include <string>

#include "backend/cuda/product_plan.h"

namespace salient::cuda {

/// What a plan is measured for: a shape with the rows as a class of their own, 8, 16, 32, 64, 128, ... Up to
/// 8 are one class, for each of so many rows gets the bytes that it would get alone.
std::string measured_key(const ProductShape& shape);

/// Plans that have been measured on a device. They are kept in a file, each device under its name, so that
/// one machine measures a shape once, and computes the same from then on.
class ProductTable {
 public:
  /// `file`: made when something was measured, its folder too; empty: none. What cannot be read or written is
  /// measured anew another time. `device`: its name, and what else makes it another one.
  ProductTable(std::string file, std::string device);
  /// Writes the file.
  ~ProductTable();
  ProductTable(const ProductTable&) = delete;
  ProductTable& operator=(const ProductTable&) = delete;

  std::optional<MeasuredPlan> find(const std::string& key) const;
  void add(const std::string& key, const MeasuredPlan& plan);

 private:
  void read();
  void write() const;

  std::string file_;
  std::string device_;
  std::map<std::string, MeasuredPlan> plans_;
  bool changed_ = false;
};

/// kernels.json in salient's folder of the user's cache ($XDG_CACHE_HOME or ~/.cache); empty without either.
std::string default_table_file();

}  // namespace salient::cuda
