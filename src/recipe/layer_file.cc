#include "recipe/layer_file.h"

#include <functional>

#include "base/error.h"
#include "checkpoint/sealed_file.h"
#include "recipe/layer_record.h"

namespace salient {
namespace {

constexpr const char* kReport = "report";

std::string linear_prefix(size_t number) { return fmt::format("linear.{}.", number); }

using Elements = SealedFile::Elements;

QuantizedWeight read_integers(const SealedFile& reader, const std::string& prefix, const LinearSlot& slot,
                              const QuantizationScheme& scheme) {
  QuantizedWeight weight{
      .scheme = scheme, .out_features = slot.out_features, .in_features = slot.in_features};
  const Shape groups{slot.out_features, weight.groups()};
  weight.codes = reader.tensor(prefix + "codes", Elements::bytes, {slot.out_features, weight.row_bytes()});
  weight.scales = reader.tensor(prefix + "scales", Elements::floating, groups);
  if (!scheme.symmetric) weight.zeros = reader.tensor(prefix + "zeros", Elements::bytes, groups);
  return weight;
}

void read_norm(const SealedFile& reader, size_t number, NormWeight& norm) {
  if (!norm.defined()) return;
  const std::string prefix = fmt::format("norm.{}.", number);
  norm.weight = reader.tensor(prefix + "weight", Elements::floating, norm.weight.shape());
  if (norm.bias.defined()) norm.bias = reader.tensor(prefix + "bias", Elements::floating, norm.bias.shape());
}

/// The path in front of an error, unless what reads tensors has put it there.
LayerFile with_path(const std::string& path, const std::function<LayerFile()>& read) {
  try {
    return read();
  } catch (Error& error) {
    if (!std::string_view(error.what()).starts_with(path)) error.prepend(path);
    throw;
  }
}

}  // namespace

std::string layer_checksum(const LayerWeights& weights) {
  Digest digest;
  const auto add = [&](std::string_view name, const Tensor& tensor) {
    if (tensor.defined()) add_tensor(digest, name, tensor);
  };
  for (const auto& [id, linear] : weights.linears) {
    add(to_string(id.role), linear.dense);
    add("bias", linear.bias);
  }
  for (const NormWeight& norm : weights.norms) {
    add("norm", norm.weight);
    add("bias", norm.bias);
  }
  add("correction", weights.router_correction);
  for (const Tensor& tensor : weights.state_tensors) add("state", tensor);
  return digest.hex();
}

void write_layer_file(const std::filesystem::path& path, const LayerFile& file, const DecoderSpec& spec) {
  constexpr size_t kTensorsPerLinear = 4;
  const auto& [weights, report] = file.layer;
  const std::vector<LinearSlot> slots = spec.linears(report.layer);
  SealedFileWriter writer(path, slots.size() * kTensorsPerLinear + 2 * kNormRoles + 1);
  const Json head{{"job", file.job}, {"source", file.source}, {"layer", layer_record(report)}};
  writer.add_text(kReport, head.dump());
  for (size_t i = 0; i < slots.size(); ++i) {
    const LinearWeight& linear = weights[slots[i].id];
    const std::string prefix = linear_prefix(i);
    if (linear.quantized) {
      writer.add(prefix + "codes", linear.quantized->codes);
      writer.add(prefix + "scales", linear.quantized->scales);
      writer.add(prefix + "zeros", linear.quantized->zeros);
    }
    writer.add(prefix + "dense", linear.dense);
    writer.add(prefix + "bias", linear.bias);
  }
  for (size_t i = 0; i < kNormRoles; ++i) {
    writer.add(fmt::format("norm.{}.weight", i), weights.norms[i].weight);
    writer.add(fmt::format("norm.{}.bias", i), weights.norms[i].bias);
  }
  writer.finish();
}

LayerFile read_layer_file(const std::filesystem::path& path, const LayerJob& job,
                          const LayerWeights& original) {
  const SealedFile reader(path);
  const std::string report = reader.text(kReport);
  return with_path(path.string(), [&] {
    const Json head = parse_json(report, kReport);
    const JsonView view(head, kReport);
    LayerFile file{.job = view.at("job").as_string(),
                   .source = view.at("source").as_string(),
                   .layer = {.weights = original, .report = read_layer_record(view.at("layer"))}};
    if (file.layer.report.layer != job.layer)
      fail(ErrorKind::bad_format, "this is layer {}", file.layer.report.layer);
    LayerWeights& weights = file.layer.weights;
    const std::vector<LinearSlot> slots = job.spec.linears(job.layer);
    for (size_t i = 0; i < slots.size(); ++i) {
      LinearWeight& linear = weights[slots[i].id];
      const std::string prefix = linear_prefix(i);
      const auto rounding = job.linears.find(slots[i].id);
      if (rounding != job.linears.end() && job.result == OneshotResult::quantized) {
        linear.quantized = read_integers(reader, prefix, slots[i], rounding->second.scheme);
        linear.dense = Tensor();
      } else {
        linear.dense = reader.tensor(prefix + "dense", Elements::floating, linear.dense.shape());
      }
      if (linear.bias.defined())
        linear.bias = reader.tensor(prefix + "bias", Elements::floating, linear.bias.shape());
    }
    for (size_t i = 0; i < kNormRoles; ++i) read_norm(reader, i, weights.norms[i]);
    return file;
  });
}

}  // namespace salient
