#pragma once

#include "backend/cuda/device.h"

namespace salient::cuda {

/// y = x / sqrt(mean(x^2) + epsilon) * weight (Zhang & Sennrich 2019), or with the mean subtracted and a bias
/// (Ba et al. 2016). Row r has weights r % heads.
struct NormArguments {
  const float* x;       ///< [rows, features]
  float* sum;           ///< [rows, features], += x and then normalised instead of x; or null
  const float* weight;  ///< [heads, features]
  const float* bias;    ///< like weight, or null
  float* y;             ///< [rows, features], may be x
  int64_t rows;
  int features;
  int heads;
  float epsilon;
  int centered;  ///< 1: the mean is subtracted
};

inline constexpr int kNormThreads = 256;
/// A row for each warp, features at most kWarpNormFeatures: heads, and rows of small models.
inline constexpr Kernel kNormOfWarp{"norm_of_warp", kNormThreads};
inline constexpr int kWarpNormFeatures = 1024;
/// A row for each block.
inline constexpr Kernel kNormOfBlock{"norm_of_block", kNormThreads};

/// Backend::rms_norm, add_rms_norm (with `sum`) and layer_norm (centered); `rows` counts heads where a row
/// holds several.
struct Norm {
  const float* x;
  const float* weight;          ///< [heads, features]
  const float* bias = nullptr;  ///< like weight
  float* sum = nullptr;
  float* y;
  int64_t rows;
  int64_t features;
  int64_t heads = 1;
  double epsilon;
  bool centered = false;
};
void normalize(Device& device, const Norm& problem);

}  // namespace salient::cuda
