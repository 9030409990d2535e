#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>

#include "tensor/tensor.h"

namespace salient {

/// How keys and values are kept. fp16 and bf16 round once: fp16 to 11 bits, what it cannot hold to its
/// largest number, bf16 to 8 bits, with the range of fp32; int8 keeps the features of each head and position
/// as integers of -127 to 127 and one f32 scale.
enum class KvType { fp32, fp16, bf16, int8 };

/// "fp32", "fp16", "bf16", "int8".
std::string_view to_string(KvType type);
/// Errors: invalid_argument.
KvType kv_type_by_name(std::string_view name);
/// The same of what users write: "float32", "float16" and "bfloat16" are known too, and "auto" is `usual`.
KvType kv_type_asked_for(std::string_view name, KvType usual);

/// Positions of a page.
inline constexpr int64_t kPageRows = 128;

/// Heads of keys, or of values, as a cache keeps them.
struct KvFormat {
  KvType type;
  int64_t heads;
  int64_t dim;

  DType element_type() const {
    switch (type) {
      case KvType::fp16:
        return DType::f16;
      case KvType::bf16:
        return DType::bf16;
      case KvType::int8:
        return DType::i8;
      default:
        return DType::f32;
    }
  }
  size_t element_bytes() const { return byte_size(element_type()); }
  /// Of one head in a page, its scales included.
  size_t head_bytes() const {
    return static_cast<size_t>(kPageRows) *
           (static_cast<size_t>(dim) * element_bytes() + (type == KvType::int8 ? sizeof(float) : 0));
  }
  size_t page_bytes() const { return static_cast<size_t>(heads) * head_bytes(); }
};

/// Keys and values of kPageRows positions, u8, on a cache line: a page of each for every layer that has them.
/// Whoever holds it keeps what it holds: it is written while it has one owner.
using KvBlock = std::shared_ptr<Tensor>;

/// Keys, or values, of one layer and sequence: position p is row p % kPageRows of page p / kPageRows. In a
/// page every head has elements [kPageRows, dim], int8 then scales f32 [kPageRows].
struct KvPages {
  KvFormat format;
  std::span<const KvBlock> blocks;  ///< one for each page
  size_t offset;                    ///< of the page in its block

  int64_t rows() const { return static_cast<int64_t>(blocks.size()) * kPageRows; }
  const std::byte* head(int64_t page, int64_t index) const { return block(page).bytes() + offset_of(index); }
  std::byte* mutable_head(int64_t page, int64_t index) const {
    return block(page).mutable_bytes() + offset_of(index);
  }

 private:
  Tensor& block(int64_t page) const { return *blocks[static_cast<size_t>(page)]; }
  size_t offset_of(int64_t head) const { return offset + static_cast<size_t>(head) * format.head_bytes(); }
};

/// What attention reads of a sequence's cache in one layer.
struct KvView {
  KvPages keys;
  KvPages values;
};

}  // namespace salient
