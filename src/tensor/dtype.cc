#include "tensor/dtype.h"

#include <array>
#include <cstring>

#include "base/error.h"

namespace salient {
namespace {

struct DTypeRow {
  DType dtype;
  size_t bytes;
  std::string_view safetensors;
  std::string_view torch;
};

constexpr std::array<DTypeRow, 10> kTypes{{
    {DType::f64, 8, "F64", "float64"},
    {DType::f32, 4, "F32", "float32"},
    {DType::f16, 2, "F16", "float16"},
    {DType::bf16, 2, "BF16", "bfloat16"},
    {DType::i64, 8, "I64", "int64"},
    {DType::i32, 4, "I32", "int32"},
    {DType::i16, 2, "I16", "int16"},
    {DType::i8, 1, "I8", "int8"},
    {DType::u8, 1, "U8", "uint8"},
    {DType::boolean, 1, "BOOL", "bool"},
}};

const DTypeRow& row(DType dtype) { return kTypes[static_cast<size_t>(dtype)]; }

template <typename T, typename Convert>
void convert_each(const void* in, std::span<float> out, Convert convert) {
  const auto* source = static_cast<const T*>(in);
  for (size_t i = 0; i < out.size(); ++i) out[i] = convert(source[i]);
}

}  // namespace

size_t byte_size(DType dtype) { return row(dtype).bytes; }
std::string_view to_string(DType dtype) { return row(dtype).safetensors; }
std::string_view torch_name(DType dtype) { return row(dtype).torch; }

bool is_floating(DType dtype) {
  return dtype == DType::f64 || dtype == DType::f32 || dtype == DType::f16 || dtype == DType::bf16;
}

std::optional<DType> dtype_from_safetensors(std::string_view name) {
  for (const auto& type : kTypes) {
    if (type.safetensors == name) return type.dtype;
  }
  return std::nullopt;
}

std::optional<DType> dtype_from_torch(std::string_view name) {
  if (name.starts_with("torch.")) name.remove_prefix(6);
  for (const auto& type : kTypes) {
    if (type.torch == name) return type.dtype;
  }
  return std::nullopt;
}

float to_float(Half value) {
  // Shifting the exponent into place and scaling by 2^112 handles normal and subnormal numbers alike.
  const uint32_t sign = uint32_t{value.bits & 0x8000u} << 16;
  const uint32_t magnitude = value.bits & 0x7fffu;
  if (magnitude >= 0x7c00u) return std::bit_cast<float>(sign | 0x7f800000u | (magnitude & 0x3ffu) << 13);
  const float scaled = std::bit_cast<float>(magnitude << 13) * 0x1p112f;
  return std::bit_cast<float>(std::bit_cast<uint32_t>(scaled) | sign);
}

Half to_half(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  const uint32_t sign = (bits >> 16) & 0x8000u;
  const uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return {static_cast<uint16_t>(sign | 0x7e00u)};
  if (magnitude >= 0x477ff000u) return {static_cast<uint16_t>(sign | 0x7c00u)};  // 65520 and beyond
  if (magnitude < 0x38800000u) {
    // Subnormal in half: adding 0.5 aligns the value so that the hardware rounds at bit 2^-24.
    const float aligned = std::bit_cast<float>(magnitude) + 0.5f;
    return {static_cast<uint16_t>(sign | (std::bit_cast<uint32_t>(aligned) - 0x3f000000u))};
  }
  const uint32_t rounded = magnitude - 0x38000000u + 0xfffu + ((magnitude >> 13) & 1u);
  return {static_cast<uint16_t>(sign | (rounded >> 13))};
}

void convert_to_float(DType from, const void* in, std::span<float> out) {
  switch (from) {
    case DType::f32:
      std::memcpy(out.data(), in, out.size_bytes());
      return;
    case DType::f64:
      return convert_each<double>(in, out, [](double x) { return static_cast<float>(x); });
    case DType::f16:
      return convert_each<Half>(in, out, [](Half x) { return to_float(x); });
    case DType::bf16:
      return convert_each<BFloat16>(in, out, [](BFloat16 x) { return to_float(x); });
    default:
      fail(ErrorKind::internal, "cannot convert {} to F32", to_string(from));
  }
}

void convert_from_float(std::span<const float> in, DType to, void* out) {
  switch (to) {
    case DType::f32:
      std::memcpy(out, in.data(), in.size_bytes());
      return;
    case DType::f16:
      for (size_t i = 0; i < in.size(); ++i) static_cast<Half*>(out)[i] = to_half(in[i]);
      return;
    case DType::bf16:
      for (size_t i = 0; i < in.size(); ++i) static_cast<BFloat16*>(out)[i] = to_bfloat16(in[i]);
      return;
    default:
      fail(ErrorKind::internal, "cannot convert F32 to {}", to_string(to));
  }
}

float round_to(DType dtype, float value) {
  switch (dtype) {
    case DType::f32:
      return value;
    case DType::f16:
      return to_float(to_half(value));
    case DType::bf16:
      return to_float(to_bfloat16(value));
    default:
      fail(ErrorKind::internal, "cannot round to {}", to_string(dtype));
  }
}

}  // namespace salient
