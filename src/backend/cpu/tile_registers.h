#pragma once

// The registers of AMX, by instructions that are written out: GCC 12 describes LDTILECFG's operand with 8 of
// its 64 bytes and drops the stores of the rest. Included by the kernel files ahead of their target region;
// nothing here has an instruction set of its own.
#include <cstdint>

namespace salient {
namespace {

struct alignas(64) TileConfiguration {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};
static_assert(sizeof(TileConfiguration) == 64);

/// The registers are in use while this lives, by the calling thread.
class TileScope {
 public:
  TileScope() {
    static constexpr TileConfiguration kConfiguration{};
    __asm__ volatile("ldtilecfg %0" ::"m"(kConfiguration));
  }
  ~TileScope() { __asm__ volatile("tilerelease"); }
  TileScope(const TileScope&) = delete;
  TileScope& operator=(const TileScope&) = delete;
};

#define SALIENT_TILE_LOAD(tile, data, bytes) \
  __asm__ volatile("tileloadd (%0,%1,1), %%tmm" #tile ::"r"(data), "r"(bytes) : "memory")
#define SALIENT_TILE_STORE(tile, data, bytes) \
  __asm__ volatile("tilestored %%tmm" #tile ", (%0,%1,1)" ::"r"(data), "r"(bytes) : "memory")
#define SALIENT_TILE_ZERO(tile) __asm__ volatile("tilezero %%tmm" #tile ::)

}  // namespace
}  // namespace salient
