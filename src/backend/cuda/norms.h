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

/// Backend::rms_norm; `rows` counts heads where a row holds several.
struct RmsNorm {
  const float* x;
  const float* weight;  ///< [features]
  float* y;
  int64_t rows;
  int64_t features;
  double epsilon;
};
void rms_norm(Device& device, const RmsNorm& problem);

/// Backend::add_rms_norm.
struct AddRmsNorm {
  const float* x;
  const float* weight;  ///< [features]
  float* sum;
  float* y;
  int64_t rows;
  int64_t features;
  double epsilon;
};
void add_rms_norm(Device& device, const AddRmsNorm& problem);

/// Backend::layer_norm; `rows` counts heads where a row holds several.
struct LayerNorm {
  const float* x;
  const float* weight;  ///< [heads, features]
  const float* bias;    ///< like weight, or null
  float* y;
  int64_t rows;
  int64_t features;
  int64_t heads = 1;
  double epsilon;
};
void layer_norm(Device& device, const LayerNorm& problem);

}  // namespace salient::cuda
