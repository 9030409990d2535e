#pragma once

#include <map>
#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "backend/cuda/device.h"
#include "backend/cuda/driver_api.h"
#include "backend/cuda/shared_library.h"

namespace salient::cuda {

struct CublasLt;

/// Products of halves by NVIDIA's cuBLASLt, which belongs to CUDA's libraries, not to the driver: it is
/// looked for when it is wanted first. The context must be current in every call.
class HalfProducts {
 public:
  static constexpr size_t kWorkspaceBytes = size_t{32} << 20;

  /// `libraries`: names to try, in this order.
  explicit HalfProducts(std::vector<std::string> libraries);
  ~HalfProducts();
  HalfProducts(const HalfProducts&) = delete;
  HalfProducts& operator=(const HalfProducts&) = delete;

  /// Errors: out_of_memory where the library needs more than there is; the next call tries again.
  bool available();
  /// `workspace` has kWorkspaceBytes. Errors: internal; out_of_memory, whereupon nothing was queued.
  void multiply(const HalfProduct& product, void* workspace, driver::Stream stream);

 private:
  struct Plan;
  /// rows, in, out, type, and what the addresses of x, w and y are multiples of.
  using Key = std::tuple<int64_t, int64_t, int64_t, HalfType, unsigned, unsigned, unsigned>;

  const Plan& plan(const HalfProduct& product);

  std::vector<std::string> libraries_;
  bool looked_ = false;
  std::unique_ptr<CublasLt> library_;
  std::map<Key, std::unique_ptr<Plan>> plans_;
};

}  // namespace salient::cuda
