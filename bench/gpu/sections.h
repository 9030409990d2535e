#pragma once

#include "gpu/run.h"

namespace salient::gpu {

/// What the card is, and how fast it copies.
void describe_device(SectionRun& run);
/// One line of nvidia-smi: clocks, power, heat; empty where it is not there.
std::string smi_line();
/// Everything between products and attention, on both back ends.
void check_operations(SectionRun& run);
/// Each kernel of products against sums in f64.
void check_products(SectionRun& run);
void check_attention(SectionRun& run);
void time_products(SectionRun& run);
void time_attention(SectionRun& run);
/// Checkpoints on both back ends.
void check_models(SectionRun& run);
/// What calibration computes, on both back ends.
void check_calibration(SectionRun& run);
/// A model of random weights with the shape of Llama 3 8B.
void time_decoder(SectionRun& run);
/// One layer of that shape, quantized.
void time_quantization(SectionRun& run);

}  // namespace salient::gpu
