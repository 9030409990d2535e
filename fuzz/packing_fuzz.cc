#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "expected_error.h"
#include "quant/packing.h"

namespace {

using namespace salient;

/// Hands out the input's bytes, then zeros.
class Input {
 public:
  explicit Input(std::span<const uint8_t> bytes) : bytes_(bytes) {}

  uint8_t byte() {
    if (bytes_.empty()) return 0;
    const uint8_t value = bytes_.front();
    bytes_ = bytes_.subspan(1);
    return value;
  }
  void fill(Tensor& tensor) {
    const size_t count = std::min(bytes_.size(), tensor.byte_size());
    if (count > 0) std::memcpy(tensor.mutable_bytes(), bytes_.data(), count);
    bytes_ = bytes_.subspan(count);
  }

 private:
  std::span<const uint8_t> bytes_;
};

/// A tensor of any type with up to three small dimensions.

Tensor any_tensor(Input& input) {
  constexpr std::array<DType, 7> kTypes{DType::i32, DType::f16, DType::bf16, DType::f32,
                                        DType::i64, DType::u8,  DType::i8};
  Shape shape(input.byte() % 4);
  for (int64_t& dim : shape) dim = input.byte() % 80;
  const DType dtype = kTypes[input.byte() % kTypes.size()];
  if (element_count(shape) > 1 << 16) return Tensor::zeros(dtype, {0});
  Tensor tensor = Tensor::zeros(dtype, shape);
  input.fill(tensor);
  return tensor;
}

bool same_bytes(const Tensor& a, const Tensor& b) {
  return a.shape() == b.shape() && std::memcmp(a.bytes(), b.bytes(), a.byte_size()) == 0;
}

/// What was unpacked must survive another round.
void require_inverse(const Packing& packing, const QuantizedWeight& weight) {
  const auto again = packing.unpack(packing.pack(weight), weight.scheme);
  if (!same_bytes(again.codes, weight.codes)) std::abort();
  if (weight.zeros.defined() && !same_bytes(again.zeros, weight.zeros)) std::abort();
  dequantize(weight);
}

}  // namespace

/// Any tensors under the suffixes of a packing must end in an Error or in a weight that packs again.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Input input({data, size});
  const uint8_t choice = input.byte();
  const auto& packing = packings()[choice % packings().size()];
  constexpr std::array<int64_t, 5> kGroups{32, 64, QuantizationScheme::kWholeRow, 16,
                                           QuantizationScheme::kWholeMatrix};
  const QuantizationScheme scheme{.num_bits = kLeastBits + input.byte() % (kMostBits - kLeastBits + 1),
                                  .symmetric = (choice & 2) != 0,
                                  .group_size = kGroups[choice / 4 % kGroups.size()]};
  const uint8_t absent = input.byte();
  PackedTensors tensors;
  for (size_t i = 0; i < packing.suffixes.size(); ++i) {
    if ((absent >> i & 1) == 0) tensors[packing.suffixes[i]] = any_tensor(input);
  }
  try {
    require_inverse(packing, packing.unpack(tensors, scheme));
  } catch (const Error& error) {
    expect_outside_error(error);
  }
  return 0;
}
