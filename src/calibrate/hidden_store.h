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

/// Rows of hidden states [rows, features] while nobody works on them.
class HiddenStore {
 public:
  HiddenStore() = default;
  /// Uninitialised. Errors: those of ScratchFile, out_of_memory.
  HiddenStore(const HiddenPlace& place, int64_t rows, int64_t features);

  int64_t rows() const { return rows_; }

  /// Rows [begin, end), f32, a copy.
  Tensor read(int64_t begin, int64_t end) const;
  /// The same to be changed and then written back: without a copy where they are kept as f32.
  Tensor borrow(int64_t begin, int64_t end);
  /// `rows`: f32 [any number, features], from `begin` on.
  void write(int64_t begin, const Tensor& rows);
  /// The chosen rows, f32, a copy.
  Tensor gather(std::span<const int32_t> chosen) const;

 private:
  uint64_t offset(int64_t row) const;

  HiddenStates storage_ = HiddenStates::f32;
  int64_t rows_ = 0;
  int64_t features_ = 0;
  Tensor memory_;  // [rows, features] f32 or bf16, undefined when spilled
  std::unique_ptr<ScratchFile> file_;
};

}  // namespace salient
