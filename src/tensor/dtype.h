#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

namespace salient {

/// Element types of tensors at rest.
enum class DType { f64, f32, f16, bf16, i64, i32, i16, i8, u8, boolean };

/// Bytes per element.
size_t byte_size(DType dtype);
/// safetensors' spelling: "F32", "BF16", "I32", ...
std::string_view to_string(DType dtype);
/// The inverse of to_string; nothing for a name that Salient does not know.
std::optional<DType> dtype_from_safetensors(std::string_view name);
/// torch's spelling as config.json has it: "float32", "bfloat16", ... (a leading "torch." is accepted).
std::optional<DType> dtype_from_torch(std::string_view name);
std::string_view torch_name(DType dtype);
bool is_floating(DType dtype);

/// IEEE binary16, stored as its bits.
struct Half {
  uint16_t bits = 0;
};
/// The upper half of a binary32, stored as its bits.
struct BFloat16 {
  uint16_t bits = 0;
};

inline float to_float(BFloat16 value) { return std::bit_cast<float>(uint32_t{value.bits} << 16); }

/// Rounds to nearest, ties to even; NaN stays a quiet NaN.
inline BFloat16 to_bfloat16(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return {static_cast<uint16_t>((bits >> 16) | 0x40u)};
  return {static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16)};
}

/// Exact.
float to_float(Half value);
/// Rounds to nearest, ties to even; beyond 65520 in magnitude becomes infinity.
Half to_half(float value);

/// Conversions of whole arrays between the floating types; `from` and `to` must be floating and `out` as long
/// as `in`.
void convert_to_float(DType from, const void* in, std::span<float> out);
void convert_from_float(std::span<const float> in, DType to, void* out);

/// The value that `value` has after being stored as `dtype` (f32, f16 or bf16) and read back.
float round_to(DType dtype, float value);

}  // namespace salient
