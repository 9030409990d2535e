// What driver_api.h and cublas_lt.h declare against the headers of CUDA, where the build found them:
// everything here is decided by the compiler.
#include <gtest/gtest.h>

#include <cstddef>
#include <string_view>
#include <type_traits>

#include "backend/cuda/cublas_lt.h"
#include "backend/cuda/driver_api.h"

#if __has_include(<cuda.h>)
#include <cuda.h>
#endif
#if __has_include(<cublasLt.h>)
#include <cublasLt.h>
#endif

namespace salient::cuda {
namespace {

/// Whether values are passed the same way: pointers, or integers (enumerations are such) of one size.
template <typename Ours, typename Theirs>
constexpr bool kSameValue =
    std::is_pointer_v<Ours> == std::is_pointer_v<Theirs> &&
    sizeof(Ours) == sizeof(Theirs) && std::is_floating_point_v<Ours> == std::is_floating_point_v<Theirs>;

template <typename Ours, typename Theirs>
constexpr bool kSameFunction = false;
template <typename OurResult, typename... Ours, typename TheirResult, typename... Theirs>
requires(sizeof...(Ours) ==
         sizeof...(Theirs)) constexpr bool kSameFunction<OurResult (*)(Ours...), TheirResult(Theirs...)> =
    kSameValue<OurResult, TheirResult> && (kSameValue<Ours, Theirs> && ...);

static_assert(kSameFunction<int (*)(int, char*), unsigned(unsigned, void*)>);
static_assert(!kSameFunction<int (*)(int, char*), unsigned(unsigned, long)>);
static_assert(!kSameFunction<int (*)(int), unsigned(size_t)>);
static_assert(!kSameFunction<int (*)(int), unsigned(unsigned, int)>);

#if defined(CUDA_VERSION)

#define SALIENT_TEXT(x) #x
#define SALIENT_EXPANDED(x) SALIENT_TEXT(x)
#define SALIENT_COMPARE(member, name, exported, ...)                                                     \
  static_assert(std::string_view(SALIENT_EXPANDED(name)) == #exported, #exported " is another version"); \
  static_assert(kSameFunction<decltype(driver::Entry<__VA_ARGS__>::function), decltype(::name)>,         \
                #exported " takes something else");

using namespace driver;
SALIENT_DRIVER_FUNCTIONS(SALIENT_COMPARE)

static_assert(kSuccess == CUDA_SUCCESS && kOutOfMemory == CUDA_ERROR_OUT_OF_MEMORY &&
              kNoDevice == CUDA_ERROR_NO_DEVICE);
static_assert(kMultiprocessors == CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT &&
              kSharedBytesOfMultiprocessor == CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR &&
              kComputeCapabilityMajor == CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR &&
              kComputeCapabilityMinor == CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR &&
              kSharedBytesOfBlock == CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN);
static_assert(kDynamicSharedBytes == CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES &&
              kNonBlockingStream == CU_STREAM_NON_BLOCKING && kEventWithTiming == CU_EVENT_DEFAULT &&
              kEventWithoutTiming == CU_EVENT_DISABLE_TIMING);

#define SALIENT_SAME_PLACE(ours, theirs) \
  static_assert(offsetof(KernelNode, ours) == offsetof(CUDA_KERNEL_NODE_PARAMS_v2, theirs))
static_assert(sizeof(KernelNode) == sizeof(CUDA_KERNEL_NODE_PARAMS_v2));
SALIENT_SAME_PLACE(function, func);
SALIENT_SAME_PLACE(grid_x, gridDimX);
SALIENT_SAME_PLACE(grid_y, gridDimY);
SALIENT_SAME_PLACE(grid_z, gridDimZ);
SALIENT_SAME_PLACE(block_x, blockDimX);
SALIENT_SAME_PLACE(block_y, blockDimY);
SALIENT_SAME_PLACE(block_z, blockDimZ);
SALIENT_SAME_PLACE(shared_bytes, sharedMemBytes);
SALIENT_SAME_PLACE(arguments, kernelParams);
SALIENT_SAME_PLACE(extra, extra);
SALIENT_SAME_PLACE(kernel, kern);
SALIENT_SAME_PLACE(context, ctx);

TEST(DriverDeclarations, AgreeWithTheHeader) { SUCCEED() << CUDA_VERSION; }

#else

TEST(DriverDeclarations, AgreeWithTheHeader) { GTEST_SKIP() << "the build found no cuda.h"; }

#endif

#if defined(CUBLAS_VERSION)

#define SALIENT_COMPARE_CUBLAS(member, name, ...) \
  static_assert(kSameFunction<decltype(cublas::Functions::member), decltype(::name)>, #name);
SALIENT_CUBLAS_FUNCTIONS(SALIENT_COMPARE_CUBLAS)

static_assert(cublas::kSuccess == CUBLAS_STATUS_SUCCESS && cublas::kComputeF32 == CUBLAS_COMPUTE_32F &&
              cublas::kTypeF32 == CUDA_R_32F && cublas::kTypeF16 == CUDA_R_16F &&
              cublas::kTypeBf16 == CUDA_R_16BF && cublas::kTransposed == CUBLAS_OP_T);
static_assert(cublas::kProductTransposeA == CUBLASLT_MATMUL_DESC_TRANSA &&
              cublas::kPreferenceWorkspaceBytes == CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES &&
              cublas::kPreferenceAlignmentA == CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES &&
              cublas::kPreferenceAlignmentB == CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES &&
              cublas::kPreferenceAlignmentC == CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES &&
              cublas::kPreferenceAlignmentD == CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES);
static_assert(sizeof(cublas::Algorithm) == sizeof(cublasLtMatmulAlgo_t) &&
              sizeof(cublas::Heuristic) == sizeof(cublasLtMatmulHeuristicResult_t) &&
              offsetof(cublas::Heuristic, algorithm) == offsetof(cublasLtMatmulHeuristicResult_t, algo) &&
              offsetof(cublas::Heuristic, workspace_bytes) ==
                  offsetof(cublasLtMatmulHeuristicResult_t, workspaceSize) &&
              offsetof(cublas::Heuristic, state) == offsetof(cublasLtMatmulHeuristicResult_t, state) &&
              offsetof(cublas::Heuristic, waves) == offsetof(cublasLtMatmulHeuristicResult_t, wavesCount));

TEST(CublasDeclarations, AgreeWithTheHeader) { SUCCEED() << CUBLAS_VERSION; }

#else

TEST(CublasDeclarations, AgreeWithTheHeader) { GTEST_SKIP() << "the build found no cublasLt.h"; }

#endif

}  // namespace
}  // namespace salient::cuda
