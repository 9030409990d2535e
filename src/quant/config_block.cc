#include "quant/config_block.h"

#include <algorithm>
#include <cctype>

#include "base/error.h"

namespace salient {
namespace {

constexpr std::string_view kHead = "lm_head";

[[noreturn]] void unsupported(const JsonView& view, std::string_view reason) {
  fail(ErrorKind::unsupported, "{}: {}", view.path(), reason);
}

std::string lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return text;
}

/// Strings of the array `key`; none when it is absent or null.
std::vector<std::string> strings_of(const JsonView& block, std::string_view key) {
  std::vector<std::string> result;
  if (const auto array = block.find(key)) {
    for (const auto& element : array->elements()) result.push_back(element.as_string());
  }
  return result;
}

/// Fails unless the member `key`, if there is one, is an empty container.
void require_empty(const JsonView& block, std::string_view key) {
  const auto member = block.find(key);
  if (member && !member->json().empty()) unsupported(*member, "is not supported");
}

/// validate() of what somebody else has written, and may have read, with the place of the block in front.
QuantizationScheme validated(const JsonView& block, const QuantizationScheme& scheme) {
  if (scheme.group_size < -1) block.reject(fmt::format("group_size is {}", scheme.group_size));
  try {
    validate(scheme);
  } catch (const Error& error) {
    fail(ErrorKind::unsupported, "{}: {}", block.path(), error.what());
  }
  return scheme;
}

int read_bits(const JsonView& block, std::string_view key) {
  return static_cast<int>(block.at(key).as_int(1, 64));
}

// compressed-tensors.

int64_t read_group_size(const JsonView& weights) {
  const auto size = weights.find("group_size");
  const int64_t columns = size ? size->as_int(-1) : 0;
  // Files from before `strategy` was written leave it to follow from the group size.
  const auto strategy = weights.find("strategy");
  const std::string name = strategy      ? lower(strategy->as_string())
                           : columns > 0 ? "group"
                           : columns < 0 ? "channel"
                                         : "tensor";
  if (name == "channel") return QuantizationScheme::kWholeRow;
  if (name == "tensor") return QuantizationScheme::kWholeMatrix;
  if (name != "group") unsupported(weights, fmt::format("the strategy \"{}\" is not supported", name));
  if (!size) weights.reject("the strategy is \"group\", but there is no group_size");
  if (columns <= 0) weights.reject(fmt::format("the strategy is \"group\", but group_size is {}", columns));
  return columns;
}

void refuse_activation_order(const JsonView& weights) {
  const auto order = weights.find("actorder");
  if (!order || (order->json().is_boolean() && !order->as_bool())) return;
  if (order->json().is_string()) {
    // With these the columns stand in their own order on disk: nothing differs for a reader.
    const std::string name = lower(order->as_string());
    if (name == "weight" || name == "static") return;
  }
  unsupported(*order, "columns in activation order are not supported");
}

QuantizationScheme read_weights(const JsonView& weights) {
  const std::string type = lower(weights.string_or("type", "int"));
  if (type != "int") unsupported(weights, fmt::format("codes of type \"{}\" are not supported", type));
  const auto dynamic = weights.find("dynamic");
  if (dynamic && !(dynamic->json().is_boolean() && !dynamic->as_bool())) {
    unsupported(*dynamic, "dynamically quantized weights are not supported");
  }
  refuse_activation_order(weights);
  return validated(weights, {.num_bits = read_bits(weights, "num_bits"),
                             .symmetric = weights.bool_or("symmetric", true),
                             .group_size = read_group_size(weights)});
}

void require_pack_quantized(const JsonView& view, std::string_view key) {
  const auto format = view.find(key);
  if (format && format->as_string() != to_string(Format::pack_quantized)) {
    unsupported(*format,
                fmt::format("the format \"{}\" is not supported, only pack-quantized", format->as_string()));
  }
}

QuantizationScheme read_group(const JsonView& group) {
  for (const std::string_view key : {"input_activations", "output_activations"}) {
    if (const auto activations = group.find(key))
      unsupported(*activations, "quantized activations are not supported");
  }
  const auto weights = group.find("weights");
  if (!weights) unsupported(group, "a group that does not quantize weights is not supported");
  require_pack_quantized(group, "format");
  return read_weights(*weights);
}

void refuse_extensions(const JsonView& block) {
  const auto sparsity = block.find("sparsity_config");
  if (sparsity && !sparsity->json().empty() && sparsity->string_or("format", "dense") != "dense") {
    unsupported(*sparsity,
                fmt::format("sparse weights (\"{}\") are not supported", sparsity->at("format").as_string()));
  }
  require_empty(block, "kv_cache_scheme");
  require_empty(block, "transform_config");
}

QuantizationConfig read_compressed_tensors(const JsonView& block) {
  if (block.string_or("format", "") != "mixed-precision") require_pack_quantized(block, "format");
  refuse_extensions(block);
  const auto groups = block.at("config_groups").members();
  if (groups.empty()) block.reject("config_groups is empty");
  QuantizationConfig config{.format = Format::pack_quantized};
  for (const auto& [name, group] : groups) {
    // Files from before `targets` was written meant every linear.
    auto targets = strings_of(group, "targets");
    if (targets.empty()) targets.push_back(std::string(kLinearClasses[0]));
    config.groups.push_back({name, std::move(targets), read_group(group)});
  }
  config.ignore = strings_of(block, "ignore");
  return config;
}

Json write_weights(const QuantizationScheme& scheme) {
  const bool grouped = scheme.group_size > 0;
  return {{"actorder", nullptr},
          {"block_structure", nullptr},
          {"dynamic", false},
          {"group_size", grouped ? Json(scheme.group_size) : Json()},
          {"num_bits", scheme.num_bits},
          {"observer", "memoryless_minmax"},
          {"observer_kwargs", Json::object()},
          {"scale_dtype", nullptr},
          {"strategy", strategy_name(scheme)},
          {"symmetric", scheme.symmetric},
          {"type", "int"},
          {"zp_dtype", scheme.symmetric ? Json() : Json("torch.int8")}};
}

Json write_compressed_tensors(const QuantizationConfig& config) {
  Json groups = Json::object();
  for (const SchemeGroup& group : config.groups) {
    groups[group.name] = {{"format", "pack-quantized"},
                          {"input_activations", nullptr},
                          {"output_activations", nullptr},
                          {"targets", group.targets},
                          {"weights", write_weights(group.scheme)}};
  }
  return {{"config_groups", groups},
          {"format", "pack-quantized"},
          {"global_compression_ratio", nullptr},
          {"ignore", config.ignore},
          {"kv_cache_scheme", nullptr},
          {"quant_method", "compressed-tensors"},
          {"quantization_status", "compressed"},
          {"sparsity_config", Json::object()},
          {"transform_config", Json::object()},
          {"version", "0.19.0"}};
}

// AutoAWQ.

/// The key of today or the one of its old quant_config.json.
std::string_view present_key(const JsonView& block, std::string_view today, std::string_view old) {
  return !block.find(today) && block.find(old) ? old : today;
}

QuantizationConfig read_autoawq(const JsonView& block) {
  // transformers renamed `version` to `format` in 2026.
  const auto version = block.find(present_key(block, "version", "format"));
  if (version && lower(version->as_string()) != "gemm") {
    unsupported(*version, fmt::format("the layout \"{}\" is not supported, only gemm", version->as_string()));
  }
  const auto group_size = block.at(present_key(block, "group_size", "q_group_size"));
  if (group_size.as_int() == 0) group_size.reject("is 0");
  const std::string_view bits_key = present_key(block, "bits", "w_bit");
  if (const int bits = read_bits(block, bits_key); bits != 4) {
    unsupported(block.at(bits_key), fmt::format("is {}; the gemm layout holds 4-bit codes only", bits));
  }
  QuantizationConfig config{.format = Format::autoawq_gemm};
  config.groups = {{.name = "group_0",
                    .targets = {std::string(kLinearClasses[0])},
                    .scheme = validated(block, {.num_bits = 4,
                                                .symmetric = !block.bool_or("zero_point", true),
                                                .group_size = group_size.as_int()})}};
  config.ignore = strings_of(block, "modules_to_not_convert");
  // AutoAWQ leaves the head dense without saying so.
  const bool listed = std::find(config.ignore.begin(), config.ignore.end(), kHead) != config.ignore.end();
  if (!listed && !block.bool_or(kHead, false)) config.ignore.emplace_back(kHead);
  return config;
}

Json write_autoawq(const QuantizationConfig& config) {
  // Loaders take an empty list to mean that they may look at the tensors; the head stays dense anyway.
  Json dense;
  for (const auto& name : config.ignore) {
    if (name != kHead) dense.push_back(name);
  }
  if (config.groups.size() != 1)
    fail(ErrorKind::internal, "autoawq-gemm got {} schemes", config.groups.size());
  const QuantizationScheme& scheme = config.groups.front().scheme;
  // Symmetric weights are stored with zeros of 8, see packing_autoawq_gemm.cc.
  return {{"bits", scheme.num_bits},
          {"group_size", scheme.group_size},
          {"modules_to_not_convert", dense},
          {"quant_method", "awq"},
          {"version", "gemm"},
          {"zero_point", true}};
}

}  // namespace

Json write_config_block(const QuantizationConfig& config) {
  return config.format == Format::autoawq_gemm ? write_autoawq(config) : write_compressed_tensors(config);
}

QuantizationConfig read_config_block(const JsonView& block) {
  if (const auto method = block.find("quant_method")) {
    const std::string name = lower(method->as_string());
    if (name == "compressed-tensors") return read_compressed_tensors(block);
    if (name == "awq") return read_autoawq(block);
    unsupported(*method,
                fmt::format("the method \"{}\" is not supported, only compressed-tensors and awq", name));
  }
  if (block.find("config_groups")) return read_compressed_tensors(block);
  if (block.find("w_bit")) return read_autoawq(block);
  block.reject("names no quant_method");
}

}  // namespace salient
