#include "backend/cpu/gemm.h"

#include <signal.h>

#include <array>
#include <map>
#include <mutex>
#include <oneapi/dnnl/dnnl.hpp>

#include "backend/cpu/scratch.h"
#include "base/error.h"

// Debian builds oneDNN on GNU's OpenMP. <omp.h> is on the path of the compiler that owns it only, so that
// clang would look for LLVM's; these two functions are all that is needed.
extern "C" int omp_get_max_threads(void);
extern "C" void omp_set_num_threads(int count);

namespace salient {
namespace {

/// oneDNN asks OpenMP for a team; a team of one is the calling thread itself, and no worker is ever started
/// or left spinning. The setting belongs to the calling thread and is put back.
class SingleThreadedOpenMp {
 public:
  SingleThreadedOpenMp() : before_(omp_get_max_threads()) {
    if (before_ != 1) omp_set_num_threads(1);
  }
  ~SingleThreadedOpenMp() {
    if (before_ != 1) omp_set_num_threads(before_);
  }
  SingleThreadedOpenMp(const SingleThreadedOpenMp&) = delete;
  SingleThreadedOpenMp& operator=(const SingleThreadedOpenMp&) = delete;

 private:
  int before_;
};

/// The code that oneDNN generates for f32 keeps values further below the stack pointer than the 128 bytes
/// that a signal handler must leave alone: a handler that runs in its midst makes it write anywhere (seen
/// with 2.6: a corrupted heap after Ctrl-C). So signals wait until it is done.
class SignalsWait {
 public:
  SignalsWait() {
    sigset_t all;
    sigfillset(&all);
    for (const int fault : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT}) sigdelset(&all, fault);
    pthread_sigmask(SIG_BLOCK, &all, &before_);
  }
  ~SignalsWait() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
  SignalsWait(const SignalsWait&) = delete;
  SignalsWait& operator=(const SignalsWait&) = delete;

 private:
  sigset_t before_;
};

[[noreturn]] void fail_status(dnnl_status_t status, const char* what, int64_t m, int64_t n, int64_t k) {
  fail(status == dnnl_out_of_memory ? ErrorKind::out_of_memory : ErrorKind::internal,
       "oneDNN: {} of {} x {} x {} failed with status {}", what, m, n, k, static_cast<int>(status));
}

/// A bf16 product of a fixed shape, compiled by oneDNN.
struct Matmul {
  dnnl::memory::desc a;
  dnnl::memory::desc b;
  dnnl::memory::desc c;
  dnnl::memory::desc scratch;
  dnnl::matmul primitive;
};

using MatmulKey = std::array<int64_t, 9>;

MatmulKey key_of(const GemmProblem<uint16_t>& problem) {
  return {problem.m,
          problem.n,
          problem.k,
          problem.a.stride,
          problem.b.stride,
          problem.c_stride,
          static_cast<int64_t>(problem.a.transposed),
          static_cast<int64_t>(problem.b.transposed),
          static_cast<int64_t>(problem.accumulate)};
}

dnnl::memory::dims strides_of(const GemmOperand<uint16_t>& operand) {
  if (operand.transposed == Transposed::yes) return {1, operand.stride};
  return {operand.stride, 1};
}

Matmul make_matmul(const dnnl::engine& engine, const GemmProblem<uint16_t>& problem) {
  using dnnl::memory;
  const memory::desc a({problem.m, problem.k}, memory::data_type::bf16, strides_of(problem.a));
  const memory::desc b({problem.k, problem.n}, memory::data_type::bf16, strides_of(problem.b));
  const memory::desc c({problem.m, problem.n}, memory::data_type::f32, memory::dims{problem.c_stride, 1});
  dnnl::primitive_attr attributes;
  // The library's own scratchpad belongs to the thread that created the primitive; ours to the one that runs
  // it.
  attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  if (problem.accumulate == Accumulate::yes) {
    dnnl::post_ops post;
    post.append_sum(1.0f);
    attributes.set_post_ops(post);
  }
  const dnnl::matmul::primitive_desc descriptor(dnnl::matmul::desc(a, b, c), attributes, engine);
  return {a, b, c, descriptor.scratchpad_desc(), dnnl::matmul(descriptor)};
}

}  // namespace

/// Making a primitive costs more than running a small one, so they are kept by shape.
struct Gemm::Primitives {
  /// Prompts of many lengths make many shapes; past this many all are dropped and made again on demand.
  static constexpr size_t kMost = 512;

  std::shared_ptr<const Matmul> get(const GemmProblem<uint16_t>& problem) {
    const MatmulKey key = key_of(problem);
    const std::lock_guard lock(mutex);
    if (const auto found = by_shape.find(key); found != by_shape.end()) return found->second;
    if (by_shape.size() >= kMost) by_shape.clear();
    return by_shape[key] = std::make_shared<const Matmul>(make_matmul(engine, problem));
  }

  dnnl::engine engine{dnnl::engine::kind::cpu, 0};
  std::mutex mutex{};
  std::map<MatmulKey, std::shared_ptr<const Matmul>> by_shape{};
};

Gemm::Gemm() : primitives_(std::make_unique<Primitives>()) {}
Gemm::~Gemm() = default;

void Gemm::operator()(const GemmProblem<float>& problem) {
  const SignalsWait signals_wait;
  const SingleThreadedOpenMp single_threaded;
  const auto letter = [](Transposed transposed) { return transposed == Transposed::yes ? 'T' : 'N'; };
  const float beta = problem.accumulate == Accumulate::yes ? 1.0f : 0.0f;
  const dnnl_status_t status = dnnl_sgemm(
      letter(problem.a.transposed), letter(problem.b.transposed), problem.m, problem.n, problem.k, 1.0f,
      problem.a.data, problem.a.stride, problem.b.data, problem.b.stride, beta, problem.c, problem.c_stride);
  if (status != dnnl_success) fail_status(status, "f32 product", problem.m, problem.n, problem.k);
}

void Gemm::operator()(const GemmProblem<uint16_t>& problem) {
  const SignalsWait signals_wait;
  const SingleThreadedOpenMp single_threaded;
  try {
    const std::shared_ptr<const Matmul> matmul = primitives_->get(problem);
    const dnnl::engine& engine = primitives_->engine;
    const auto read = [&](const dnnl::memory::desc& shape, const uint16_t* data) {
      return dnnl::memory(shape, engine, const_cast<uint16_t*>(data));
    };
    std::byte* scratch = scratch_bytes(ScratchUse::gemm, matmul->scratch.get_size());
    dnnl::stream stream(engine);
    matmul->primitive.execute(stream,
                              {{DNNL_ARG_SRC, read(matmul->a, problem.a.data)},
                               {DNNL_ARG_WEIGHTS, read(matmul->b, problem.b.data)},
                               {DNNL_ARG_DST, dnnl::memory(matmul->c, engine, problem.c)},
                               {DNNL_ARG_SCRATCHPAD, dnnl::memory(matmul->scratch, engine, scratch)}});
    stream.wait();
  } catch (const dnnl::error& error) {
    fail_status(error.status, "bf16 product", problem.m, problem.n, problem.k);
  }
}

bool gemm_has_fast_bf16() {
  const int isa = static_cast<int>(dnnl::get_effective_cpu_isa());
  constexpr int kNeeded = static_cast<int>(dnnl_cpu_isa_avx512_core_bf16);
  return isa != static_cast<int>(dnnl_cpu_isa_all) && (isa & kNeeded) == kNeeded;
}

bool limit_gemm(GemmLimit limit) {
  const auto isa = limit == GemmLimit::avx512_bf16 ? dnnl::cpu_isa::avx512_core_bf16
                   : limit == GemmLimit::avx2      ? dnnl::cpu_isa::avx2
                                                   : dnnl::cpu_isa::sse41;
  return dnnl::set_max_cpu_isa(isa) == dnnl::status::success;
}

}  // namespace salient
