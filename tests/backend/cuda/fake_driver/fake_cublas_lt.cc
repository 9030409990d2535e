// The symbols of cuBLASLt that the back end loads: products as its documentation defines them, column-major,
// in plain loops behind what the fake driver has queued.
#include <bit>
#include <cstring>
#include <memory>

#include "backend/cuda/cublas_lt.h"
#include "backend/cuda/fake_driver/fake_driver.h"
#include "tensor/dtype.h"

#define SALIENT_EXPORT extern "C" __attribute__((visibility("default")))

SALIENT_EXPORT salient::test::FakeDriver* salient_fake_driver();

namespace salient::cuda::cublas {

struct HandleTag {};
struct ProductTag {
  int compute;
  int scale;
  int transpose_a = 0;
};
struct LayoutTag {
  int type;
  uint64_t rows;
  uint64_t columns;
  int64_t stride;
};
struct PreferenceTag {
  std::map<int, uint64_t> values;
};

}  // namespace salient::cuda::cublas

namespace {

using namespace salient::cuda::cublas;

constexpr Status kInvalidValue = 7;
constexpr Status kNotSupported = 15;

salient::test::FakeDriver& state() { return *salient_fake_driver(); }

Status enter(const char* function) {
  ++state().calls[function];
  auto& failures = state().failures[function];
  if (failures.empty()) return kSuccess;
  const Status status = failures.front();
  failures.pop_front();
  return status;
}

#define SALIENT_ENTER \
  if (const Status status = enter(__func__); status != kSuccess) return status

float half_at(const void* memory, int64_t index, int type) {
  const uint16_t bits = static_cast<const uint16_t*>(memory)[index];
  if (type == kTypeF16) return salient::to_float(salient::Half{bits});
  return std::bit_cast<float>(uint32_t{bits} << 16);
}

struct Operands {
  ProductTag product;
  LayoutTag a, b, d;
  const void* a_values;
  const void* b_values;
  float* d_values;

  void run() const {
    for (int64_t column = 0; column < static_cast<int64_t>(d.columns); ++column) {
      for (int64_t row = 0; row < static_cast<int64_t>(d.rows); ++row) {
        double sum = 0;
        for (int64_t k = 0; k < static_cast<int64_t>(b.rows); ++k)
          sum += half_at(a_values, row * a.stride + k, a.type) *
                 half_at(b_values, column * b.stride + k, b.type);
        d_values[column * d.stride + row] = static_cast<float>(sum);
      }
    }
  }
};

}  // namespace

SALIENT_EXPORT const char* cublasLtGetStatusName(Status) { return "CUBLAS_STATUS_FAKE"; }
SALIENT_EXPORT Status cublasLtCreate(Handle* handle) {
  SALIENT_ENTER;
  *handle = new HandleTag;
  state().objects.insert(*handle);
  return kSuccess;
}
SALIENT_EXPORT Status cublasLtDestroy(Handle handle) {
  state().objects.erase(handle);
  delete handle;
  return kSuccess;
}
SALIENT_EXPORT Status cublasLtMatmulDescCreate(Product* product, int compute, int scale) {
  SALIENT_ENTER;
  *product = new ProductTag{compute, scale};
  state().objects.insert(*product);
  return kSuccess;
}
SALIENT_EXPORT Status cublasLtMatmulDescDestroy(Product product) {
  state().objects.erase(product);
  delete product;
  return kSuccess;
}
SALIENT_EXPORT Status cublasLtMatmulDescSetAttribute(Product product, int attribute, const void* value,
                                                     size_t size) {
  SALIENT_ENTER;
  if (attribute != kProductTransposeA || size != sizeof(int)) return kInvalidValue;
  std::memcpy(&product->transpose_a, value, size);
  return kSuccess;
}
SALIENT_EXPORT Status cublasLtMatrixLayoutCreate(Layout* layout, int type, uint64_t rows, uint64_t columns,
                                                 int64_t stride) {
  SALIENT_ENTER;
  if (stride < static_cast<int64_t>(rows)) return kInvalidValue;
  *layout = new LayoutTag{type, rows, columns, stride};
  state().objects.insert(*layout);
  return kSuccess;
}
SALIENT_EXPORT Status cublasLtMatrixLayoutDestroy(Layout layout) {
  state().objects.erase(layout);
  delete layout;
  return kSuccess;
}
SALIENT_EXPORT Status cublasLtMatmulPreferenceCreate(Preference* preference) {
  SALIENT_ENTER;
  *preference = new PreferenceTag;
  state().objects.insert(*preference);
  return kSuccess;
}
SALIENT_EXPORT Status cublasLtMatmulPreferenceDestroy(Preference preference) {
  state().objects.erase(preference);
  delete preference;
  return kSuccess;
}
SALIENT_EXPORT Status cublasLtMatmulPreferenceSetAttribute(Preference preference, int attribute,
                                                           const void* value, size_t size) {
  SALIENT_ENTER;
  if (size != (attribute == kPreferenceWorkspaceBytes ? sizeof(uint64_t) : sizeof(uint32_t)))
    return kInvalidValue;
  std::memcpy(&preference->values[attribute], value, size);
  return kSuccess;
}
SALIENT_EXPORT Status cublasLtMatmulAlgoGetHeuristic(Handle, Product, Layout, Layout, Layout, Layout,
                                                     Preference preference, int wanted, Heuristic* results,
                                                     int* found) {
  SALIENT_ENTER;
  *found = wanted > 0 ? 1 : 0;
  results[0] = {
      .algorithm = {{preference->values[kPreferenceAlignmentA], preference->values[kPreferenceAlignmentB],
                     preference->values[kPreferenceAlignmentD]}},
      .workspace_bytes = preference->values[kPreferenceWorkspaceBytes],
      .state = kSuccess};
  return kSuccess;
}
/// Refuses addresses that are less aligned than the algorithm was chosen for.
SALIENT_EXPORT Status cublasLtMatmul(Handle handle, Product product, const void* alpha, const void* a,
                                     Layout a_layout, const void* b, Layout b_layout, const void* beta,
                                     const void*, Layout, void* d, Layout d_layout,
                                     const Algorithm* algorithm, void* workspace, size_t,
                                     salient::cuda::driver::Stream stream) {
  SALIENT_ENTER;
  const auto misaligned = [](const void* memory, uint64_t alignment) {
    return alignment == 0 || reinterpret_cast<uintptr_t>(memory) % alignment != 0;
  };
  if (!state().objects.contains(handle) || !state().objects.contains(stream) || workspace == nullptr ||
      misaligned(a, algorithm->data[0]) || misaligned(b, algorithm->data[1]) ||
      misaligned(d, algorithm->data[2]))
    return kInvalidValue;
  if (product->transpose_a != kTransposed || product->compute != kComputeF32 || product->scale != kTypeF32 ||
      d_layout->type != kTypeF32 || a_layout->rows != b_layout->rows || d_layout->rows != a_layout->columns ||
      d_layout->columns != b_layout->columns || *static_cast<const float*>(alpha) != 1 ||
      *static_cast<const float*>(beta) != 0)
    return kNotSupported;
  const Operands operands{*product, *a_layout, *b_layout, *d_layout, a, b, static_cast<float*>(d)};
  state().queue.emplace_back([operands] { operands.run(); });
  return kSuccess;
}
