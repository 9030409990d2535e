#include "base/error.h"
#include "base/json.h"
#include "bindings/arrays.h"
#include "bindings/keywords.h"
#include "quant/group_quantize.h"
#include "quant/packing.h"
#include "recipe/quantization_reader.h"
#include "recipe/schemes.h"

namespace salient::python {
namespace {

/// The scheme that QuantizationArgs, as JSON, stand for.
QuantizationScheme scheme_of_json(const std::string& args) {
  const Json json = parse_json(args, "args", DuplicateKeys::refuse);
  return scheme_of(read_quantization_args({json, "args"}));
}

Tensor to_matrix(nb::handle object, std::string_view what) {
  const Tensor tensor = to_tensor(object, what);
  if (!is_floating(tensor.dtype()) || tensor.shape().size() != 2 || tensor.element_count() == 0) {
    fail(ErrorKind::invalid_argument, "{}: expected floating numbers [out, in], got {} {}", what,
         torch_name(tensor.dtype()), to_string(tensor.shape()));
  }
  return tensor;
}

void check_clip(const Tensor& clip, const QuantizationScheme& scheme, const Tensor& weight) {
  if (scheme.group_size == QuantizationScheme::kWholeMatrix) {
    fail(ErrorKind::invalid_argument,
         "clip: the strategy tensor has one range for the whole matrix, which no clip of "
         "rows or groups bounds");
  }
  const Shape expected{weight.dim(0), group_count(scheme, weight.dim(1))};
  if (clip.shape() == expected) return;
  fail(ErrorKind::invalid_argument, "clip: expected one bound for each group {}, got {}", to_string(expected),
       to_string(clip.shape()));
}

QuantizedWeight quantize(const nb::object& array, const std::string& args, const std::string& scale_dtype,
                         const nb::object& clip_array) {
  const QuantizationScheme scheme = scheme_of_json(args);
  const DType scale_type = floating_type(scale_dtype);
  const Tensor weight = to_matrix(array, "weight");
  Tensor clip;
  if (!clip_array.is_none()) {
    clip = to_matrix(clip_array, "clip");
    check_clip(clip, scheme, weight);
  }
  const nb::gil_scoped_release released;
  if (const int64_t width = group_width(scheme, weight.dim(1)); weight.dim(1) % width != 0) {
    fail(ErrorKind::invalid_argument, "weight: {} columns are no multiple of the group size {}",
         weight.dim(1), width);
  }
  return with_context("weight", [&] {
    return quantize_to_nearest(weight.to(DType::f32), clip.defined() ? clip.to(DType::f32) : clip, scheme,
                               scale_type);
  });
}

/// One byte for each code, u8 [out, in].
Tensor plain_codes(const QuantizedWeight& weight) {
  const nb::gil_scoped_release released;
  Tensor codes = Tensor::empty(DType::u8, {weight.out_features, weight.in_features});
  const auto out = codes.mutable_values<uint8_t>();
  for (int64_t row = 0; row < weight.out_features; ++row) {
    for (int64_t column = 0; column < weight.in_features; ++column) {
      out[static_cast<size_t>(row * weight.in_features + column)] =
          static_cast<uint8_t>(weight.code(row, column));
    }
  }
  return codes;
}

nb::dict pack(const QuantizedWeight& weight, const std::string& format) {
  PackedTensors packed;
  {
    const nb::gil_scoped_release released;
    packed = packing_of(format_by_name(format)).pack(weight);
  }
  nb::dict tensors;
  for (auto& [suffix, tensor] : packed) tensors[suffix.c_str()] = nb::cast(tensor);
  return tensors;
}

void check_suffix(const Packing& packing, const std::string& suffix, const std::string& format) {
  if (std::find(packing.suffixes.begin(), packing.suffixes.end(), suffix) != packing.suffixes.end()) return;
  fail(ErrorKind::invalid_argument, "{}: tensor \"{}\" is not known (known: {})", format, suffix,
       fmt::join(packing.suffixes, ", "));
}

QuantizedWeight unpack(const nb::dict& tensors, const std::string& format, const std::string& args) {
  const Packing& packing = packing_of(format_by_name(format));
  PackedTensors packed;
  for (const auto [key, value] : tensors) {
    const auto suffix = nb::cast<std::string>(key);
    check_suffix(packing, suffix, format);
    packed[suffix] = to_tensor(value, suffix);
  }
  const QuantizationScheme scheme = scheme_of_json(args);
  const nb::gil_scoped_release released;
  return with_context(format, [&] { return packing.unpack(packed, scheme); });
}

}  // namespace

void bind_weights(nb::module_& module) {
  nb::class_<QuantizedWeight>(
      module, "QuantizedWeight",
      "A matrix as integers: weight[n, k] = (codes[n, k] - zeros[n, g]) * scales[n, g] for "
      "column k of group g = k // group_size.")
      .def_prop_ro(
          "codes", [](const QuantizedWeight& weight) { return to_numpy(plain_codes(weight)); },
          nb::sig("def codes(self) -> numpy.typing.NDArray[numpy.uint8]"), "uint8 [out, in], a copy.")
      .def_ro("scales", &QuantizedWeight::scales,
              "[out, groups], in the type in which checkpoints store them.")
      .def_prop_ro(
          "zeros",
          [](const QuantizedWeight& weight) {
            return weight.zeros.defined() ? to_numpy_view(weight.zeros) : nb::none();
          },
          nb::sig("def zeros(self) -> numpy.typing.NDArray[numpy.uint8] | None"),
          "uint8 [out, groups], read-only; None when symmetric, where it is 2^(num_bits - 1).")
      .def_prop_ro("num_bits", [](const QuantizedWeight& weight) { return weight.scheme.num_bits; })
      .def_prop_ro("symmetric", [](const QuantizedWeight& weight) { return weight.scheme.symmetric; })
      .def_prop_ro(
          "group_size", [](const QuantizedWeight& weight) { return weight.scheme.group_size; },
          "Columns that share a scale; -1 a whole row, 0 the whole matrix.")
      .def_prop_ro(
          "shape",
          [](const QuantizedWeight& weight) {
            return nb::make_tuple(weight.out_features, weight.in_features);
          },
          nb::sig("def shape(self) -> tuple[int, int]"))
      .def(
          "dequantize",
          [](const QuantizedWeight& weight) {
            Tensor dense;
            {
              const nb::gil_scoped_release released;
              dense = dequantize(weight);
            }
            return to_numpy(dense);
          },
          nb::sig("def dequantize(self) -> numpy.typing.NDArray[numpy.float32]"), "float32 [out, in].")
      .def("__repr__", [](const QuantizedWeight& weight) {
        return fmt::format("QuantizedWeight([{}, {}], {})", weight.out_features, weight.in_features,
                           describe(weight.scheme));
      });

  module.def("quantize_weight", &quantize, nb::arg("weight"), nb::arg("args"),
             nb::arg("scale_dtype") = "bfloat16", nb::arg("clip") = nb::none(),
             nb::sig("def quantize_weight(weight: object, args: str, scale_dtype: str = 'bfloat16', "
                     "clip: object | None = None) -> QuantizedWeight"),
             "Rounds [out, in] to nearest; `args` are QuantizationArgs as JSON, `clip` [out, groups] bounds "
             "|weight|.");
  module.def("pack", &pack, nb::arg("weight"), nb::arg("format"),
             nb::sig("def pack(weight: QuantizedWeight, format: str) -> dict[str, Tensor]"),
             "The tensors that a file of the format holds for one linear, by the ends of their names.");
  module.def("unpack", &unpack, nb::arg("tensors"), nb::arg("format"), nb::arg("args"),
             nb::sig("def unpack(tensors: dict[str, typing.Any], format: str, args: str) -> QuantizedWeight"),
             "The inverse of pack.");
}

}  // namespace salient::python
