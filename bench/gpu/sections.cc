#include "gpu/sections.h"

#include <array>

namespace salient::gpu {

/// What tells most comes first, so that a run that is cut short has it.
std::span<const SectionEntry> sections() {
  static constexpr std::array<SectionEntry, 10> kSections{
      {{"device", describe_device, 30, 20},
       {"operations", check_operations, 30, 10},
       {"products", check_products, 70, 15},
       {"attention", check_attention, 50, 15},
       {"models", check_models, 50, 30},
       {"product_speed", time_products, 80, 30},
       {"attention_speed", time_attention, 25, 15},
       {"decoder_speed", time_decoder, 75, 60},
       {"calibration", check_calibration, 30, 20},
       {"quantization_speed", time_quantization, 80, 100}}};
  return kSections;
}

}  // namespace salient::gpu
