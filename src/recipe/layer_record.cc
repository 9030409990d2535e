#include "recipe/layer_record.h"

#include <cmath>
#include <type_traits>

namespace salient {
namespace {

// The members of each report, once for both directions. The structured bindings name as many as there are:
// whoever adds a member and forgets it here does not get past the compiler.

template <typename Archive>
void fields(Archive& archive, QuantizationScheme& scheme) {
  auto& [num_bits, symmetric, group_size] = scheme;
  archive("num_bits", num_bits);
  archive("symmetric", symmetric);
  archive("group_size", group_size);
}

template <typename Archive>
void fields(Archive& archive, ChannelReport& channel) {
  auto& [number, mean_absolute, times_median] = channel;
  archive("channel", number);
  archive("mean_absolute", mean_absolute);
  archive("times_median", times_median);
}

template <typename Archive>
void fields(Archive& archive, MappingReport& report) {
  auto& [mapping, loss_before, loss_after, ratio, duo, left_alone, failure, scale_quantiles] = report;
  archive("mapping", mapping);
  archive("loss_before", loss_before);
  archive("loss_after", loss_after);
  archive("ratio", ratio);
  archive("duo", duo);
  archive("left_alone", left_alone);
  archive("failure", failure);
  archive("scale_quantiles", scale_quantiles);
}

template <typename Archive>
void fields(Archive& archive, LinearReport& report) {
  auto& [name, scheme, signal, loss_nearest, loss_scaled, loss_clipped, loss, dead_channels,
         largest_channels] = report;
  archive("name", name);
  archive("scheme", scheme);
  archive("signal", signal);
  archive("loss_nearest", loss_nearest);
  archive("loss_scaled", loss_scaled);
  archive("loss_clipped", loss_clipped);
  archive("loss", loss);
  archive("dead_channels", dead_channels);
  archive("largest_channels", largest_channels);
}

template <typename Archive>
void fields(Archive& archive, LayerSeconds& seconds) {
  auto& [forward, statistics, scales, clips, rounding, checks, total] = seconds;
  archive("forward", forward);
  archive("statistics", statistics);
  archive("scales", scales);
  archive("clips", clips);
  archive("rounding", rounding);
  archive("checks", checks);
  archive("total", total);
}

template <typename Archive>
void fields(Archive& archive, LayerReport& report) {
  auto& [layer, mappings, linears, clip_loss_before, clip_loss_after, equivalence_error, pooled_experts,
         seconds] = report;
  archive("layer", layer);
  archive("mappings", mappings);
  archive("linears", linears);
  archive("clip_loss_before", clip_loss_before);
  archive("clip_loss_after", clip_loss_after);
  archive("equivalence_error", equivalence_error);
  archive("pooled_experts", pooled_experts);
  archive("seconds", seconds);
}

template <typename T>
concept Sequence = requires(T value) {
  value.begin();
  value.size();
}
&&!std::is_same_v<T, std::string>;

class RecordWriter {
 public:
  template <typename T>
  void operator()(const char* key, const T& value) {
    record_[key] = json_of(value);
  }
  Json take() { return std::move(record_); }

 private:
  /// JSON has no word for what is not finite.
  static Json json_of(double value) {
    if (std::isfinite(value)) return value;
    return std::isnan(value) ? "nan" : value > 0 ? "inf" : "-inf";
  }

  template <typename T>
  static Json json_of(const T& value) {
    if constexpr (Sequence<T>) {
      Json array = Json::array();
      for (const auto& element : value) array.push_back(json_of(element));
      return array;
    } else if constexpr (std::is_arithmetic_v<T> || std::is_same_v<T, std::string>) {
      return value;
    } else {
      RecordWriter inner;
      T copy = value;
      fields(inner, copy);
      return inner.take();
    }
  }

  Json record_ = Json::object();
};

class RecordReader {
 public:
  explicit RecordReader(JsonView record) : record_(std::move(record)) {}

  template <typename T>
  void operator()(const char* key, T& value) const {
    read(record_.at(key), value);
  }

 private:
  static void read(const JsonView& json, bool& value) { value = json.as_bool(); }
  static void read(const JsonView& json, std::string& value) { value = json.as_string(); }
  static void read(const JsonView& json, int64_t& value) { value = json.as_int(); }
  static void read(const JsonView& json, int& value) {
    value = static_cast<int>(json.as_int(INT32_MIN, INT32_MAX));
  }
  static void read(const JsonView& json, double& value) {
    if (!json.json().is_string()) {
      value = json.as_double();
      return;
    }
    const std::string& text = json.as_string();
    if (text != "nan" && text != "inf" && text != "-inf") json.reject("expected a number");
    value = text == "nan" ? NAN : text == "inf" ? INFINITY : -INFINITY;
  }

  template <typename T, size_t kCount>
  static void read(const JsonView& json, std::array<T, kCount>& values) {
    const std::vector<JsonView> elements = json.elements();
    if (elements.size() != kCount) json.reject("the number of elements is wrong");
    for (size_t i = 0; i < kCount; ++i) read(elements[i], values[i]);
  }

  template <typename T>
  static void read(const JsonView& json, std::vector<T>& values) {
    values.clear();
    for (const JsonView& element : json.elements()) read(element, values.emplace_back());
  }

  template <typename T>
  static void read(const JsonView& json, T& value) {
    const RecordReader inner(json);
    fields(inner, value);
  }

  JsonView record_;
};

}  // namespace

Json layer_record(const LayerReport& layer) {
  RecordWriter writer;
  LayerReport copy = layer;
  fields(writer, copy);
  return writer.take();
}

LayerReport read_layer_record(const JsonView& record) {
  const RecordReader reader(record);
  LayerReport layer;
  fields(reader, layer);
  return layer;
}

}  // namespace salient
