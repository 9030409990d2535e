#include "gpu/sections.h"

#include <array>

namespace salient::gpu {

/// What tells most comes first, so that a run that is cut short has it.
std::span<const SectionEntry> sections() {
  static constexpr std::array<SectionEntry, 10> kSections{{{"device", describe_device, 30},
                                                           {"operations", check_operations, 40},
                                                           {"products", check_products, 90},
                                                           {"attention", check_attention, 60},
                                                           {"models", check_models, 60},
                                                           {"product_speed", time_products, 90},
                                                           {"attention_speed", time_attention, 30},
                                                           {"decoder_speed", time_decoder, 90},
                                                           {"calibration", check_calibration, 40},
                                                           {"quantization_speed", time_quantization, 90}}};
  return kSections;
}

}  // namespace salient::gpu
