#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "backend/cuda/driver_api.h"
#include "backend/cuda/shared_library.h"

/// The part of cuBLASLt that the back end uses, declared here as driver_api.h declares the driver's.
namespace salient::cuda::cublas {

using Status = int;
using Handle = struct HandleTag*;
using Product = struct ProductTag*;
using Layout = struct LayoutTag*;
using Preference = struct PreferenceTag*;

inline constexpr Status kSuccess = 0;
inline constexpr Status kAllocationFailed = 3;
inline constexpr int kComputeF32 = 68;
inline constexpr int kTypeF32 = 0;
inline constexpr int kTypeF16 = 2;
inline constexpr int kTypeBf16 = 14;
inline constexpr int kTransposed = 1;
inline constexpr int kProductTransposeA = 3;
inline constexpr int kPreferenceWorkspaceBytes = 1;
inline constexpr int kPreferenceAlignmentA = 5;
inline constexpr int kPreferenceAlignmentB = 6;
inline constexpr int kPreferenceAlignmentC = 7;
inline constexpr int kPreferenceAlignmentD = 8;

struct Algorithm {
  uint64_t data[8];
};

struct Heuristic {
  Algorithm algorithm;
  size_t workspace_bytes;
  Status state;
  float waves;
  int reserved[4];
};

/// X(member, name, result, parameters...).
#define SALIENT_CUBLAS_FUNCTIONS(X)                                                                     \
  X(status_name, cublasLtGetStatusName, const char*, Status)                                            \
  X(create, cublasLtCreate, Status, Handle*)                                                            \
  X(destroy, cublasLtDestroy, Status, Handle)                                                           \
  X(create_product, cublasLtMatmulDescCreate, Status, Product*, int, int)                               \
  X(destroy_product, cublasLtMatmulDescDestroy, Status, Product)                                        \
  X(set_product, cublasLtMatmulDescSetAttribute, Status, Product, int, const void*, size_t)             \
  X(create_layout, cublasLtMatrixLayoutCreate, Status, Layout*, int, uint64_t, uint64_t, int64_t)       \
  X(destroy_layout, cublasLtMatrixLayoutDestroy, Status, Layout)                                        \
  X(create_preference, cublasLtMatmulPreferenceCreate, Status, Preference*)                             \
  X(destroy_preference, cublasLtMatmulPreferenceDestroy, Status, Preference)                            \
  X(set_preference, cublasLtMatmulPreferenceSetAttribute, Status, Preference, int, const void*, size_t) \
  X(choose, cublasLtMatmulAlgoGetHeuristic, Status, Handle, Product, Layout, Layout, Layout, Layout,    \
    Preference, int, Heuristic*, int*)                                                                  \
  X(multiply, cublasLtMatmul, Status, Handle, Product, const void*, const void*, Layout, const void*,   \
    Layout, const void*, const void*, Layout, void*, Layout, const Algorithm*, void*, size_t,           \
    driver::Stream)

struct Functions {
#define SALIENT_CUBLAS_MEMBER(member, name, Return, ...) Return (*member)(__VA_ARGS__) = nullptr;
  SALIENT_CUBLAS_FUNCTIONS(SALIENT_CUBLAS_MEMBER)
#undef SALIENT_CUBLAS_MEMBER
};

/// Errors: not_found, unsupported.
Functions load(const std::string& path);

}  // namespace salient::cuda::cublas
