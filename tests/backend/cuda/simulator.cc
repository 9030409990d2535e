#include "backend/cuda/simulator.h"

#include <boost/context/detail/fcontext.hpp>

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cmath>
#include <cstring>
#include <exception>
#include <map>
#include <mutex>
#include <random>

#include "backend/cuda/simt.h"
#include "base/error.h"
#include "base/parallel.h"
#include "tensor/dtype.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

namespace salient::test {
namespace {

namespace fibers = boost::context::detail;

constexpr size_t kStackBytes = size_t{96} << 10;
constexpr size_t kSharedGuard = 8192;
constexpr int kBanks = 32;  // of 4 bytes each

class Block;

/// What a lane lays out for the others of its warp.
struct Slot {
  const char* operation = nullptr;
  std::array<uint32_t, 4> words{};
  std::array<float, 12> values{};
  const void* address = nullptr;
};

struct PendingCopy {
  std::byte* to;
  const std::byte* from;
  bool inside;
  int group;
};

enum class Waiting { none, warp, block, done };

struct Thread {
  Block* block = nullptr;
  int index = 0;
  Waiting waiting = Waiting::none;
  int parity = 0;    // which of the warp's two sets of slots is next
  int group = 0;     // of copies not committed yet
  size_t loads = 0;  // of 16 bytes of shared memory
  std::vector<PendingCopy> copies;
  fibers::fcontext_t context = nullptr;
  std::byte* stack = nullptr;
#if defined(__SANITIZE_ADDRESS__)
  void* fake_stack = nullptr;
#endif
};

/// A load of 16 bytes of shared memory by all lanes, which nothing makes them do at the same time.
struct SharedLoad {
  std::array<Slot, simt::kWarp> slots;
  int lanes = 0;  // that have come
};

struct Warp {
  std::array<std::array<Slot, simt::kWarp>, 2> slots;
  std::map<size_t, SharedLoad> loads;  // by how many the lanes had before
};

thread_local Thread* current = nullptr;

/// One block of a grid at work on one thread of the CPU.
class Block {
 public:
  Block(const SimulatedGrid& grid, void (*kernel)(const std::byte*), const std::byte* arguments,
        uint32_t seed)
      : grid_(grid),
        run_(kernel),
        arguments_(arguments),
        random_(seed),
        threads_(static_cast<size_t>(grid.threads)),
        warps_((static_cast<size_t>(grid.threads) + simt::kWarp - 1) / simt::kWarp),
        stacks_(new std::byte[threads_.size() * kStackBytes]),
        shared_((grid.shared_bytes + kSharedGuard) / sizeof(Line) + 1) {
    for (size_t i = 0; i < threads_.size(); ++i) {
      threads_[i].block = this;
      threads_[i].index = static_cast<int>(i);
      threads_[i].stack = stacks_.get() + i * kStackBytes;
    }
  }

  void run(const std::array<int, 3>& place) {
    place_ = place;
    std::memset(shared_.data(), 0xff, shared_.size() * sizeof(Line));
    for (Thread& thread : threads_) start(thread);
    for (Warp& warp : warps_) warp.loads.clear();
    while (true) {
      const bool some = run_warps();
      if (error_) std::rethrow_exception(error_);
      if (std::ranges::all_of(threads_, [](const Thread& t) { return t.waiting == Waiting::done; }))
        return check_guard();
      if (std::ranges::all_of(threads_, [](const Thread& t) { return t.waiting == Waiting::block; })) {
        for (Thread& thread : threads_) thread.waiting = Waiting::none;
      } else if (!some) {
        fail(ErrorKind::internal, "simulator: the threads of block ({}, {}, {}) wait for each other",
             place[0], place[1], place[2]);
      }
    }
  }

  /// Gives way until what it waits for has come.
  void wait(Waiting what) {
    current->waiting = what;
    leave();
  }

  /// Lays out `slot`, waits for the rest of the warp and gives what all have laid out.
  std::array<Slot, simt::kWarp>& exchange(const Slot& slot) {
    Thread& own = *current;
    auto& slots = warp_of(own).slots[static_cast<size_t>(own.parity)];
    slots[static_cast<size_t>(own.index % simt::kWarp)] = slot;
    own.parity ^= 1;
    wait(Waiting::warp);
    for (const Slot& other : slots) {
      if (other.operation == slot.operation) continue;
      throw_error(fmt::format("a warp is at {} and at {} at once", slot.operation,
                              other.operation == nullptr ? "nothing" : other.operation));
    }
    return slots;
  }

  /// Counts conflicts when the last lane has come.
  void note_load(const void* address);

  [[noreturn]] void throw_error(const std::string& message) const {
    fail(ErrorKind::internal, "simulator: block ({}, {}, {}), thread {}: {}", place_[0], place_[1], place_[2],
         current->index, message);
  }

  const SimulatedGrid& grid() const { return grid_; }
  int place(size_t axis) const { return place_[axis]; }
  void* shared() { return shared_.data(); }
  bool in_shared(const void* address, size_t bytes) const {
    const auto* begin = reinterpret_cast<const std::byte*>(shared_.data());
    const auto* at = static_cast<const std::byte*>(address);
    return at >= begin && at + bytes <= begin + grid_.shared_bytes;
  }
  SimulatedCounts counts;

 private:
  struct alignas(128) Line {
    std::byte bytes[128];
  };

  Warp& warp_of(const Thread& thread) { return warps_[static_cast<size_t>(thread.index / simt::kWarp)]; }

  static void body(fibers::transfer_t from) {
    Block& block = *current->block;
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(nullptr, &block.main_stack_, &block.main_stack_bytes_);
#endif
    block.main_ = from.fctx;
    try {
      block.run_(block.arguments_);
    } catch (...) {
      if (!block.error_) block.error_ = std::current_exception();
    }
    current->waiting = Waiting::done;
    block.leave();
  }

  /// Behind the shared memory that was asked for.
  void check_guard() const {
    const auto* begin = reinterpret_cast<const std::byte*>(shared_.data());
    const bool whole = std::all_of(begin + grid_.shared_bytes, begin + shared_.size() * sizeof(Line),
                                   [](std::byte b) { return b == std::byte{0xff}; });
    if (whole) return;
    fail(ErrorKind::internal, "simulator: block ({}, {}, {}) writes behind its {} bytes of shared memory",
         place_[0], place_[1], place_[2], grid_.shared_bytes);
  }

  void start(Thread& thread) {
    thread.waiting = Waiting::none;
    thread.parity = 0;
    thread.group = 0;
    thread.loads = 0;
    thread.copies.clear();
    thread.context = fibers::make_fcontext(thread.stack + kStackBytes, kStackBytes, &Block::body);
#if defined(__SANITIZE_ADDRESS__)
    thread.fake_stack = nullptr;
#endif
  }

  void enter(Thread& thread) {
    current = &thread;
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(&main_fake_stack_, thread.stack, kStackBytes);
#endif
    thread.context = fibers::jump_fcontext(thread.context, nullptr).fctx;
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(main_fake_stack_, nullptr, nullptr);
#endif
    current = nullptr;
  }

  void leave() {
    Thread& own = *current;
#if defined(__SANITIZE_ADDRESS__)
    const bool done = own.waiting == Waiting::done;
    __sanitizer_start_switch_fiber(done ? nullptr : &own.fake_stack, main_stack_, main_stack_bytes_);
#endif
    main_ = fibers::jump_fcontext(main_, nullptr).fctx;
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(own.fake_stack, nullptr, nullptr);
#endif
    static_cast<void>(own);
  }

  /// Runs each warp as far as it gets alone, in some order. False when none could move.
  bool run_warps() {
    std::vector<size_t> order(warps_.size());
    for (size_t i = 0; i < order.size(); ++i) order[i] = i;
    std::shuffle(order.begin(), order.end(), random_);
    bool some = false;
    for (const size_t warp : order) {
      while (run_warp(warp)) some = true;
      if (error_) return some;
    }
    return some;
  }

  bool run_warp(size_t warp) {
    const auto lanes = std::span(threads_).subspan(
        warp * simt::kWarp, std::min<size_t>(simt::kWarp, threads_.size() - warp * simt::kWarp));
    if (std::ranges::all_of(lanes, [](const Thread& t) { return t.waiting == Waiting::warp; }))
      for (Thread& thread : lanes) thread.waiting = Waiting::none;
    bool some = false;
    for (size_t i = 0; i < lanes.size(); ++i) {
      Thread& thread = backwards_ ? lanes[lanes.size() - 1 - i] : lanes[i];
      if (thread.waiting != Waiting::none) continue;
      some = true;
      enter(thread);
      if (error_) return some;
    }
    backwards_ = random_() % 2 == 0;
    return some;
  }

  const SimulatedGrid& grid_;
  void (*run_)(const std::byte*);
  const std::byte* arguments_;
  std::mt19937 random_;
  std::vector<Thread> threads_;
  std::vector<Warp> warps_;
  std::unique_ptr<std::byte[]> stacks_;
  std::vector<Line> shared_;
  std::array<int, 3> place_{};
  fibers::fcontext_t main_ = nullptr;
  std::exception_ptr error_;
  bool backwards_ = false;
#if defined(__SANITIZE_ADDRESS__)
  void* main_fake_stack_ = nullptr;
  const void* main_stack_ = nullptr;
  size_t main_stack_bytes_ = 0;
#endif
};

/// Additional cycles of an access of 16 bytes by each lane: it goes in four phases of eight lanes, in each of
/// which a bank gives one word of 4 bytes, whoever asks for it.
uint64_t conflicts_of(const std::array<Slot, simt::kWarp>& slots) {
  uint64_t cycles = 0;
  for (size_t phase = 0; phase < simt::kWarp; phase += 8) {
    std::array<std::vector<uintptr_t>, kBanks> words;
    for (size_t lane = phase; lane < phase + 8; ++lane) {
      for (uintptr_t i = 0; i < 4; ++i) {
        const uintptr_t word = reinterpret_cast<uintptr_t>(slots[lane].address) / 4 + i;
        auto& bank = words[word % kBanks];
        if (std::ranges::find(bank, word) == bank.end()) bank.push_back(word);
      }
    }
    size_t most = 1;
    for (const auto& bank : words) most = std::max(most, bank.size());
    cycles += most - 1;
  }
  return cycles;
}

void Block::note_load(const void* address) {
  auto& loads = warp_of(*current).loads;
  const auto load = loads.try_emplace(current->loads++).first;
  load->second.slots[static_cast<size_t>(current->index % simt::kWarp)].address = address;
  if (++load->second.lanes < simt::kWarp) return;
  counts.shared_conflicts += conflicts_of(load->second.slots);
  loads.erase(load);
}

void check_shared(const void* address, const char* what) {
  if (reinterpret_cast<uintptr_t>(address) % 16 != 0)
    current->block->throw_error(fmt::format("{} is not on 16 bytes", what));
  if (!current->block->in_shared(address, 16))
    current->block->throw_error(fmt::format("{} is outside of shared memory", what));
}

const simt::Words4& aligned(const simt::Words4* from) {
  if (reinterpret_cast<uintptr_t>(from) % 16 != 0)
    current->block->throw_error("16 bytes are read from an address that is no multiple of 16");
  return *from;
}

float half_value(uint32_t pair, int which) {
  return to_float(Half{static_cast<uint16_t>(which == 0 ? pair : pair >> 16)});
}
float bfloat_value(uint32_t pair, int which) {
  return to_float(BFloat16{static_cast<uint16_t>(which == 0 ? pair : pair >> 16)});
}

template <typename Value>
void multiply_add(const char* operation, const Value& value, float (&c)[4], const uint32_t (&a)[4],
                  uint32_t b0, uint32_t b1) {
  Slot slot{.operation = operation};
  for (int i = 0; i < 8; ++i) slot.values[static_cast<size_t>(i)] = value(a[i / 2], i % 2);
  for (int i = 0; i < 4; ++i) slot.values[static_cast<size_t>(8 + i)] = value(i < 2 ? b0 : b1, i % 2);
  const auto& slots = current->block->exchange(slot);
  const int lane = simt::lane();
  if (lane == 0) ++current->block->counts.products;
  for (int i = 0; i < 4; ++i) {
    const int row_lane = lane / 4 * 4;
    const int column = lane % 4 * 2 + i % 2;
    float sum = c[i];
    for (int k = 0; k < 16; ++k) {
      const auto t = k % 8 / 2;
      const auto& left = slots[static_cast<size_t>(row_lane + t)].values;
      const auto& right = slots[static_cast<size_t>(column * 4 + t)].values;
      sum += left[static_cast<size_t>((i / 2 + k / 8 * 2) * 2 + k % 2)] *
             right[static_cast<size_t>(8 + k / 8 * 2 + k % 2)];
    }
    c[i] = sum;
  }
}

template <typename To, typename Read>
uint32_t of_pairs(const To& to, const Read& read) {
  return uint32_t{to(static_cast<float>(read(0))).bits} | uint32_t{to(static_cast<float>(read(1))).bits}
                                                              << 16;
}

/// What a lane finds when it comes: what another writes to shared memory before they meet may be missing.
Slot slot_of_row(const void* row) {
  Slot slot{.operation = "load_matrices", .address = row};
  std::memcpy(slot.words.data(), row, 16);
  return slot;
}

void load_four(uint32_t (&result)[4], const void* row, bool transposed) {
  check_shared(row, "a row of a matrix");
  const auto& slots = current->block->exchange(slot_of_row(row));
  const auto lane = static_cast<size_t>(simt::lane());
  if (lane == 0) current->block->counts.shared_conflicts += conflicts_of(slots);
  for (size_t matrix = 0; matrix < 4; ++matrix) {
    uint16_t pair[2];
    for (size_t i = 0; i < 2; ++i) {
      const size_t outer = lane / 4;
      const size_t inner = lane % 4 * 2 + i;
      const size_t element = transposed ? outer : inner;
      const uint32_t word = slots[matrix * 8 + (transposed ? inner : outer)].words[element / 2];
      pair[i] = static_cast<uint16_t>(element % 2 == 0 ? word : word >> 16);
    }
    result[matrix] = uint32_t{pair[0]} | uint32_t{pair[1]} << 16;
  }
}

template <typename T>
T shuffled(const char* operation, T value, int from) {
  const auto& slots =
      current->block->exchange({.operation = operation, .words = {std::bit_cast<uint32_t>(value)}});
  return std::bit_cast<T>(slots[static_cast<size_t>(from % simt::kWarp)].words[0]);
}

}  // namespace

SimulatedCounts& SimulatedCounts::operator+=(const SimulatedCounts& other) {
  shared_conflicts += other.shared_conflicts;
  stream_bytes += other.stream_bytes;
  products += other.products;
  return *this;
}

SimulatedCounts simulate(const SimulatedGrid& grid, void (*run)(const std::byte*), const std::byte* arguments,
                         uint32_t seed) {
  const size_t blocks =
      static_cast<size_t>(grid.grid.x) * static_cast<size_t>(grid.grid.y) * static_cast<size_t>(grid.grid.z);
  SimulatedCounts total;
  std::mutex mutex;
  const size_t grain = std::max<size_t>(1, blocks / 16);
  parallel_for(blocks, grain, [&](size_t begin, size_t end) {
    Block block(grid, run, arguments, seed + static_cast<uint32_t>(begin));
    for (size_t i = begin; i < end; ++i) {
      const auto x = static_cast<size_t>(grid.grid.x);
      const auto y = static_cast<size_t>(grid.grid.y);
      block.run({static_cast<int>(i % x), static_cast<int>(i / x % y), static_cast<int>(i / x / y)});
    }
    const std::lock_guard lock(mutex);
    total += block.counts;
  });
  return total;
}

}  // namespace salient::test

// What kernels call. Each function of a whole warp is one exchange between its lanes.
namespace salient::simt {
using test::current;

int thread() { return current->index; }
int block_threads() { return current->block->grid().threads; }
int block_x() { return current->block->place(0); }
int block_y() { return current->block->place(1); }
int block_z() { return current->block->place(2); }
int grid_x() { return current->block->grid().grid.x; }
int grid_y() { return current->block->grid().grid.y; }
void* shared_bytes() { return current->block->shared(); }
void sync_block() { current->block->wait(test::Waiting::block); }
void sync_warp() { current->block->exchange({.operation = "sync_warp"}); }

uint32_t shuffle(uint32_t value, int lane) { return test::shuffled("shuffle", value, lane); }
float shuffle(float value, int lane) { return test::shuffled("shuffle", value, lane); }
uint32_t shuffle_xor(uint32_t value, int mask) { return test::shuffled("shuffle_xor", value, lane() ^ mask); }
float shuffle_xor(float value, int mask) { return test::shuffled("shuffle_xor", value, lane() ^ mask); }

Words4 load_stream(const Words4* from) {
  current->block->counts.stream_bytes += sizeof(Words4);
  return test::aligned(from);
}
Words4 load_shared_by_many(const Words4* from) { return test::aligned(from); }
Words4 load_shared(const Words4* from) {
  test::check_shared(from, "a load");
  current->block->note_load(from);
  return *from;
}

void copy_async(void* shared, const void* from, bool inside) {
  test::check_shared(shared, "the target of a copy");
  if (inside && reinterpret_cast<uintptr_t>(from) % 16 != 0)
    current->block->throw_error("a copy from an address that is no multiple of 16");
  std::memset(shared, 0xff, 16);
  current->copies.push_back(
      {static_cast<std::byte*>(shared), static_cast<const std::byte*>(from), inside, current->group});
}
void copy_stream(void* shared, const void* from) {
  current->block->counts.stream_bytes += sizeof(Words4);
  copy_async(shared, from);
}
void copy_commit() { ++current->group; }
void copy_wait_for(int pending) {
  auto& copies = current->copies;
  const auto arrived = [&](const test::PendingCopy& copy) { return copy.group < current->group - pending; };
  for (const test::PendingCopy& copy : copies) {
    if (!arrived(copy)) continue;
    if (copy.inside) {
      std::memcpy(copy.to, copy.from, 16);
    } else {
      std::memset(copy.to, 0, 16);
    }
  }
  std::erase_if(copies, arrived);
}

void load_matrices(uint32_t (&result)[4], const void* row) { test::load_four(result, row, false); }
void load_matrices_transposed(uint32_t (&result)[4], const void* row) { test::load_four(result, row, true); }

void mma_f16(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  test::multiply_add("mma_f16", test::half_value, c, a, b0, b1);
}
void mma_bf16(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  test::multiply_add("mma_bf16", test::bfloat_value, c, a, b0, b1);
}

uint32_t pack_f16(float low, float high) {
  return uint32_t{to_half(low).bits} | uint32_t{to_half(high).bits} << 16;
}
uint32_t pack_bf16(float low, float high) {
  return uint32_t{to_bfloat16(low).bits} | uint32_t{to_bfloat16(high).bits} << 16;
}
float float_of_f16(uint16_t bits) { return to_float(Half{bits}); }
uint32_t subtract_f16(uint32_t a, uint32_t b) {
  return test::of_pairs(to_half, [&](int i) { return test::half_value(a, i) - test::half_value(b, i); });
}
// The sum of a product of halves and a half has at most 53 bits where kernels use it, and then f32 rounds no
// second time what f16 would round otherwise: `code * 1/16 - 64` and the like, all exact.
uint32_t fma_f16(uint32_t a, uint32_t b, uint32_t c) {
  return test::of_pairs(to_half, [&](int i) {
    return double{test::half_value(a, i)} * double{test::half_value(b, i)} + double{test::half_value(c, i)};
  });
}
uint32_t fma_bf16(uint32_t a, uint32_t b, uint32_t c) {
  return test::of_pairs(to_bfloat16, [&](int i) {
    return double{test::bfloat_value(a, i)} * double{test::bfloat_value(b, i)} +
           double{test::bfloat_value(c, i)};
  });
}
float float_of_bits(uint32_t bits) { return std::bit_cast<float>(bits); }
uint32_t bits_of_float(float value) { return std::bit_cast<uint32_t>(value); }
float power_of_two(float x) {
  const float result = std::exp2(x);
  return result < 1.17549435e-38f ? 0.0f : result;
}
void fence() { std::atomic_thread_fence(std::memory_order_seq_cst); }
uint32_t increment(uint32_t* counter) { return std::atomic_ref(*counter).fetch_add(1); }

}  // namespace salient::simt
