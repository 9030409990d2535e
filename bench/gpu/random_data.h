#pragma once

#include "backend/cuda/device_buffer.h"
#include "backend/cuda/packed_product.h"
#include "quant/quantized_weight.h"
#include "tensor/tensor.h"

namespace salient::gpu {

/// f32, evenly spread over [-sqrt(3), sqrt(3)) deviations, so that its standard deviation is `deviation`: the
/// same on every machine and made by all threads.
Tensor random_floats(Shape shape, uint64_t seed, float deviation = 1.0f);
/// f16 or bf16.
Tensor random_halves(Shape shape, DType dtype, uint64_t seed, float deviation = 1.0f);
/// Every code is equally likely; zeros lie in the middle half of the codes, scales within a factor of 2 of
/// `deviation` over the deviation of a code.
QuantizedWeight random_weight(const QuantizationScheme& scheme, int64_t out, int64_t in, uint64_t seed,
                              float deviation = 0.05f);
/// The same in the layout of the device, without the detour: a weight of 4 bits in groups of 128 columns, or
/// of halves.
cuda::PackedProduct random_packed(int64_t out, int64_t in, int bits, uint64_t seed);
/// Memory of a device with random numbers of [-1, 1) in f16.
cuda::DeviceBuffer random_device_halves(cuda::Device& device, size_t count, uint64_t seed);

}  // namespace salient::gpu
