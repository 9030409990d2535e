#include "backend/cpu/stream.h"

#include <sys/mman.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <vector>

#include "backend/cpu/isa.h"
#include "base/error.h"
#include "base/parallel.h"

namespace salient {
namespace {

constexpr size_t kPiece = size_t{4} << 20;
constexpr size_t kLine = 64;
/// As far ahead as hides the latency of memory at its full speed.
constexpr size_t kAhead = 8192;
constexpr int kPasses = 4;

/// Pages that the system makes large if it can, so that translations cost nothing.
class Buffer {
 public:
  explicit Buffer(size_t bytes) : bytes_(bytes) {
    data_ = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (data_ == MAP_FAILED) fail(ErrorKind::out_of_memory, "no memory for a buffer of {} bytes", bytes);
    madvise(data_, bytes, MADV_HUGEPAGE);
  }
  ~Buffer() { munmap(data_, bytes_); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  uint64_t* words() const { return static_cast<uint64_t*>(data_); }

 private:
  size_t bytes_;
  void* data_;
};

/// Of every word, in eight independent sums.
[[gnu::always_inline]] inline uint64_t sum_words(const uint64_t* words, size_t count) {
  constexpr size_t kWords = kLine / sizeof(uint64_t);
  uint64_t sums[kWords] = {};
  for (size_t i = 0; i + kWords <= count; i += kWords) {
    __builtin_prefetch(words + i + kAhead / sizeof(uint64_t));
    for (size_t j = 0; j < kWords; ++j) sums[j] += words[i + j];
  }
  uint64_t sum = 0;
  for (const uint64_t part : sums) sum += part;
  return sum;
}

using SumWords = uint64_t (*)(const uint64_t* words, size_t count);

uint64_t sum_of(const uint64_t* words, size_t count) { return sum_words(words, count); }

#if defined(__x86_64__)
[[gnu::target("avx2")]] uint64_t sum_by_avx2(const uint64_t* words, size_t count) {
  return sum_words(words, count);
}
[[gnu::target("avx512f")]] uint64_t sum_by_avx512(const uint64_t* words, size_t count) {
  return sum_words(words, count);
}

/// The bandwidth is the machine's, whichever instruction set is forced: with narrow loads one core gets less
/// of it.
SumWords widest_sum() {
  if (cpu_supports(Isa::avx512)) return sum_by_avx512;
  return cpu_supports(Isa::avx2) ? sum_by_avx2 : sum_of;
}
#else
SumWords widest_sum() { return sum_of; }
#endif

}  // namespace

double stream_bandwidth(size_t bytes) {
  const size_t pieces = std::max<size_t>(1, bytes / kPiece);
  const Buffer buffer(pieces * kPiece);
  constexpr size_t kWords = kPiece / sizeof(uint64_t);
  parallel_for(pieces, 1, [&](size_t begin, size_t end) {
    std::fill(buffer.words() + begin * kWords, buffer.words() + end * kWords, uint64_t{1});
  });
  const SumWords sum = widest_sum();
  std::vector<uint64_t> sums(pieces);
  double best = 0;
  for (int pass = 0; pass < kPasses; ++pass) {
    const auto start = std::chrono::steady_clock::now();
    parallel_for(pieces, 1, [&](size_t begin, size_t end) {
      for (size_t i = begin; i < end; ++i) sums[i] = sum(buffer.words() + i * kWords, kWords);
    });
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    best = std::max(best, static_cast<double>(pieces * kPiece) / seconds);
    // The sums are looked at, so that no compiler leaves them out.
    if (sums.front() != kWords)
      fail(ErrorKind::internal, "a pass over {} words counted {}", kWords, sums.front());
  }
  return best;
}

}  // namespace salient
