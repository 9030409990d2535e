#include "backend/cuda/half_products.h"

#include <algorithm>
#include <bit>

#include "backend/cuda/cublas_lt.h"
#include "base/error.h"

namespace salient::cuda {

namespace cublas {

Functions load(const std::string& path) {
  const SharedLibrary library(path);
  Functions functions;
#define SALIENT_CUBLAS_LOAD(member, name, ...) library.get(#name, functions.member);
  SALIENT_CUBLAS_FUNCTIONS(SALIENT_CUBLAS_LOAD)
#undef SALIENT_CUBLAS_LOAD
  return functions;
}

}  // namespace cublas

/// The library and its handle.
struct CublasLt {
  explicit CublasLt(const std::string& path) : functions(cublas::load(path)) {
    check("cublasLtCreate", functions.create(&handle));
  }
  ~CublasLt() { functions.destroy(handle); }
  CublasLt(const CublasLt&) = delete;
  CublasLt& operator=(const CublasLt&) = delete;

  void check(const char* function, cublas::Status status) const {
    if (status == cublas::kSuccess) return;
    const char* name = functions.status_name(status);
    fail(status == cublas::kAllocationFailed ? ErrorKind::out_of_memory : ErrorKind::internal, "{}: {}",
         function, name != nullptr ? name : "an unknown error");
  }

  cublas::Functions functions;
  cublas::Handle handle = nullptr;
};

namespace {

/// What an address is a multiple of, as far as it matters.
unsigned alignment(const void* memory) {
  const auto address = reinterpret_cast<uintptr_t>(memory);
  return 1u << std::min(std::countr_zero(address | 256), 8);
}

/// Shapes of prompts vary without end.
constexpr size_t kPlansAtMost = 1024;

}  // namespace

/// Descriptors of a shape, and the algorithm that the library's heuristic chose for it. Its matrices lie by
/// columns: y^T [out, rows] = (w by columns is [in, out])^T (x by columns is [in, rows]).
struct HalfProducts::Plan {
  explicit Plan(const CublasLt& library) : lt(library) {}
  Plan(const CublasLt& library, const Key& key) : Plan(library) {
    const auto& [rows, in, out, type, x_alignment, w_alignment, y_alignment] = key;
    const auto& f = lt.functions;
    const int half = type == HalfType::f16 ? cublas::kTypeF16 : cublas::kTypeBf16;
    lt.check("cublasLtMatmulDescCreate",
             f.create_product(&descriptor, cublas::kComputeF32, cublas::kTypeF32));
    lt.check("cublasLtMatmulDescSetAttribute",
             f.set_product(descriptor, cublas::kProductTransposeA, &cublas::kTransposed, sizeof(int)));
    create_layout(w, half, in, out);
    create_layout(x, half, in, rows);
    create_layout(y, cublas::kTypeF32, out, rows);
    lt.check("cublasLtMatmulPreferenceCreate", f.create_preference(&preference));
    const uint64_t workspace = kWorkspaceBytes;
    prefer(cublas::kPreferenceWorkspaceBytes, workspace);
    prefer(cublas::kPreferenceAlignmentA, uint32_t{w_alignment});
    prefer(cublas::kPreferenceAlignmentB, uint32_t{x_alignment});
    prefer(cublas::kPreferenceAlignmentC, uint32_t{y_alignment});
    prefer(cublas::kPreferenceAlignmentD, uint32_t{y_alignment});
    choose();
  }
  ~Plan() {
    const auto& f = lt.functions;
    if (preference != nullptr) f.destroy_preference(preference);
    for (const cublas::Layout layout : {w, x, y}) {
      if (layout != nullptr) f.destroy_layout(layout);
    }
    if (descriptor != nullptr) f.destroy_product(descriptor);
  }
  Plan(const Plan&) = delete;
  Plan& operator=(const Plan&) = delete;

  void create_layout(cublas::Layout& layout, int type, int64_t rows, int64_t columns) {
    lt.check("cublasLtMatrixLayoutCreate",
             lt.functions.create_layout(&layout, type, static_cast<uint64_t>(rows),
                                        static_cast<uint64_t>(columns), rows));
  }
  template <typename T>
  void prefer(int attribute, T value) {
    lt.check("cublasLtMatmulPreferenceSetAttribute",
             lt.functions.set_preference(preference, attribute, &value, sizeof value));
  }
  void choose() {
    int found = 0;
    lt.check("cublasLtMatmulAlgoGetHeuristic",
             lt.functions.choose(lt.handle, descriptor, w, x, y, y, preference, 1, &heuristic, &found));
    if (found == 0) fail(ErrorKind::internal, "cublasLtMatmulAlgoGetHeuristic: no algorithm");
  }

  const CublasLt& lt;
  cublas::Product descriptor = nullptr;
  cublas::Layout w = nullptr;
  cublas::Layout x = nullptr;
  cublas::Layout y = nullptr;
  cublas::Preference preference = nullptr;
  cublas::Heuristic heuristic{};
};

HalfProducts::HalfProducts(std::vector<std::string> libraries) : libraries_(std::move(libraries)) {}
HalfProducts::~HalfProducts() { plans_.clear(); }

bool HalfProducts::available() {
  for (size_t i = 0; i < libraries_.size() && !looked_ && library_ == nullptr; ++i) {
    try {
      library_ = std::make_unique<CublasLt>(libraries_[i]);
    } catch (const Error& error) {  // the next may do: not there, or made for a newer driver
      if (error.kind() == ErrorKind::out_of_memory) throw;
    }
  }
  looked_ = true;
  return library_ != nullptr;
}

const HalfProducts::Plan& HalfProducts::plan(const HalfProduct& product) {
  const Key key{product.rows,         product.in,           product.out,         product.type,
                alignment(product.x), alignment(product.w), alignment(product.y)};
  if (const auto found = plans_.find(key); found != plans_.end()) return *found->second;
  if (plans_.size() >= kPlansAtMost) plans_.clear();
  return *plans_.emplace(key, std::make_unique<Plan>(*library_, key)).first->second;
}

void HalfProducts::multiply(const HalfProduct& product, void* workspace, driver::Stream stream) {
  if (!available()) fail(ErrorKind::internal, "there is no library for dense products");
  try {
    const Plan& p = plan(product);
    const float one = 1;
    const float zero = 0;
    library_->check("cublasLtMatmul",
                    library_->functions.multiply(library_->handle, p.descriptor, &one, product.w, p.w,
                                                 product.x, p.x, &zero, product.y, p.y, product.y, p.y,
                                                 &p.heuristic.algorithm, workspace, kWorkspaceBytes, stream));
  } catch (Error& error) {
    error.prepend(
        fmt::format("product [{}, {}] by [{}, {}]", product.rows, product.in, product.out, product.in));
    throw;
  }
}

}  // namespace salient::cuda
