#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/scratch_file.h"
#include "salient/oneshot.h"
#include "tensor/tensor.h"

namespace salient {

/// How rows of hidden states are kept, and where there is a disk for HiddenStates::spilled.
struct HiddenPlace {
  HiddenStates storage = HiddenStates::f32;
  std::vector<std::string> directories{};  ///< see ScratchFile
};

/// Rows of hidden states [rows, features] while nobody works on them. In memory they lie in chunks, each a
/// tensor of its own, so that a device need not hold more of them at once than it works on.
class HiddenStore {
 public:
  static constexpr int64_t kRowsOfChunk = 2048;

  HiddenStore() = default;
  /// Uninitialised, in chunks of kRowsOfChunk. Errors: those of ScratchFile, out_of_memory.
  HiddenStore(const HiddenPlace& place, int64_t rows, int64_t features);
  /// In chunks that end before the rows `ends`, ascending; the last is the number of rows.
  HiddenStore(const HiddenPlace& place, std::vector<int64_t> ends, int64_t features);

  int64_t rows() const { return rows_; }

  /// Rows [begin, end), f32, a copy.
  Tensor read(int64_t begin, int64_t end) const;
  /// The same to be changed and then written back: without a copy where they are kept as f32 in one chunk.
  Tensor borrow(int64_t begin, int64_t end);
  /// `rows`: f32 [any number, features], from `begin` on.
  void write(int64_t begin, const Tensor& rows);
  /// The chosen rows, f32, a copy.
  Tensor gather(std::span<const int32_t> chosen) const;

 private:
  /// Rows [begin, end) of the store's, all of chunk `chunk`.
  struct Piece {
    size_t chunk;
    int64_t begin;
    int64_t end;
  };
  std::vector<Piece> pieces(int64_t begin, int64_t end) const;
  Tensor rows_of(const Piece& piece) const;
  int64_t first_row(size_t chunk) const { return chunk == 0 ? 0 : ends_[chunk - 1]; }
  uint64_t offset(int64_t row) const;

  HiddenStates storage_ = HiddenStates::f32;
  int64_t rows_ = 0;
  int64_t features_ = 0;
  std::vector<int64_t> ends_;   // of chunks
  std::vector<Tensor> chunks_;  // [their rows, features] f32 or bf16, none when spilled
  std::unique_ptr<ScratchFile> file_;
};

}  // namespace salient
