#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "base/error.h"
#include "bindings/arrays.h"

namespace salient::python {
namespace {

struct TypeRow {
  DType type;
  nb::dlpack::dtype dlpack;
};

constexpr uint8_t code(nb::dlpack::dtype_code value) { return static_cast<uint8_t>(value); }

constexpr TypeRow kTypes[] = {
    {DType::f64, {code(nb::dlpack::dtype_code::Float), 64, 1}},
    {DType::f32, {code(nb::dlpack::dtype_code::Float), 32, 1}},
    {DType::f16, {code(nb::dlpack::dtype_code::Float), 16, 1}},
    {DType::bf16, {code(nb::dlpack::dtype_code::Bfloat), 16, 1}},
    {DType::i64, {code(nb::dlpack::dtype_code::Int), 64, 1}},
    {DType::i32, {code(nb::dlpack::dtype_code::Int), 32, 1}},
    {DType::i16, {code(nb::dlpack::dtype_code::Int), 16, 1}},
    {DType::i8, {code(nb::dlpack::dtype_code::Int), 8, 1}},
    {DType::u8, {code(nb::dlpack::dtype_code::UInt), 8, 1}},
    {DType::boolean, {code(nb::dlpack::dtype_code::Bool), 8, 1}},
};

nb::dlpack::dtype dlpack_type(DType type) {
  for (const TypeRow& row : kTypes)
    if (row.type == type) return row.dlpack;
  fail(ErrorKind::internal, "no DLPack type for {}", to_string(type));
}

DType type_of(nb::dlpack::dtype dlpack, std::string_view what) {
  for (const TypeRow& row : kTypes)
    if (row.dlpack == dlpack) return row.type;
  fail(ErrorKind::invalid_argument,
       "{}: elements of a type that checkpoints do not have (DLPack code {}, {} bits)", what, dlpack.code,
       dlpack.bits);
}

/// Without a copy; the array keeps the tensor's memory alive.
template <typename... Config>
nb::ndarray<Config...> share(const Tensor& tensor) {
  auto* keeper = new Tensor(tensor);
  const nb::capsule owner(keeper, [](void* pointer) noexcept { delete static_cast<Tensor*>(pointer); });
  const std::vector<size_t> shape(tensor.shape().begin(), tensor.shape().end());
  return nb::ndarray<Config...>(const_cast<std::byte*>(keeper->bytes()), shape.size(), shape.data(), owner,
                                nullptr, dlpack_type(tensor.dtype()));
}

nb::object as_numpy(const Tensor& tensor) {
  return tensor.dtype() == DType::bf16 ? to_numpy(tensor.to(DType::f32)) : to_numpy_view(tensor);
}

/// NumPy's protocol: `copy` None copies where it must, False never does.
nb::object as_array(const Tensor& tensor, const nb::object& type, const nb::object& copy) {
  nb::object array = as_numpy(tensor);
  const bool converts =
      tensor.dtype() == DType::bf16 || (!type.is_none() && !array.attr("dtype").equal(type));
  if (!copy.is_none() && !nb::cast<bool>(copy) && converts) {
    throw nb::value_error("copy=False, but NumPy cannot show this tensor in that type without a copy");
  }
  if (!type.is_none()) array = array.attr("astype")(type, nb::arg("copy") = false);
  const bool copies = !copy.is_none() && nb::cast<bool>(copy);
  return copies && !converts ? array.attr("copy")() : array;
}

/// DLPack's, where `copy` true asks for memory of its own.
nb::object as_dlpack(const Tensor& tensor, const nb::kwargs& arguments) {
  nb::dict options(arguments);
  bool copies = false;
  if (options.contains("copy")) {
    const nb::object copy = options["copy"];
    copies = !copy.is_none() && nb::cast<bool>(copy);
    nb::del(options["copy"]);
  }
  return nb::cast(share<nb::array_api>(copies ? tensor.to(tensor.dtype()) : tensor))
      .attr("__dlpack__")(**options);
}

nb::tuple shape_of(const Tensor& tensor) {
  nb::list sizes;
  for (const int64_t size : tensor.shape()) sizes.append(size);
  return nb::tuple(sizes);
}

/// The view's owner lets go of Python's object, for which it must hold the GIL.
std::shared_ptr<const void> keep(nb::ndarray<nb::ro, nb::c_contig, nb::device::cpu> array) {
  auto* holder = new nb::ndarray<nb::ro, nb::c_contig, nb::device::cpu>(std::move(array));
  return {holder, [](const void* pointer) {
            const nb::gil_scoped_acquire acquired;
            delete static_cast<const nb::ndarray<nb::ro, nb::c_contig, nb::device::cpu>*>(pointer);
          }};
}

}  // namespace

std::vector<int32_t> to_ids(const IdArray& array) { return {array.data(), array.data() + array.size()}; }

std::vector<std::vector<int32_t>> to_sequences(const std::vector<IdArray>& arrays) {
  std::vector<std::vector<int32_t>> sequences;
  sequences.reserve(arrays.size());
  for (const IdArray& array : arrays) sequences.push_back(to_ids(array));
  return sequences;
}

nb::object to_numpy(std::vector<int32_t> values) {
  auto* keeper = new std::vector<int32_t>(std::move(values));
  const nb::capsule owner(keeper,
                          [](void* pointer) noexcept { delete static_cast<std::vector<int32_t>*>(pointer); });
  const size_t count = keeper->size();
  return nb::cast(nb::ndarray<nb::numpy, int32_t, nb::ndim<1>>(keeper->data(), {count}, owner));
}

nb::object to_numpy(const Tensor& tensor) { return nb::cast(share<nb::numpy>(tensor)); }

nb::object to_numpy_view(const Tensor& tensor) { return nb::cast(share<nb::numpy, nb::ro>(tensor)); }

Tensor to_tensor(nb::handle object, std::string_view what) {
  if (nb::isinstance<Tensor>(object)) return nb::cast<Tensor>(object);
  nb::ndarray<nb::ro, nb::c_contig, nb::device::cpu> array;
  if (!nb::try_cast(object, array, false)) {
    fail(ErrorKind::invalid_argument,
         "{}: expected an array of NumPy, torch or another library with DLPack, contiguous and in the memory "
         "of "
         "the CPU; got {}",
         what, nb::cast<std::string>(nb::str(object.type().attr("__name__"))));
  }
  Shape shape;
  for (size_t axis = 0; axis < array.ndim(); ++axis) shape.push_back(static_cast<int64_t>(array.shape(axis)));
  const DType type = type_of(array.dtype(), what);
  const void* data = array.data();
  return Tensor::view(type, std::move(shape), data, keep(std::move(array)));
}

DType floating_type(const std::string& name) {
  const auto type = dtype_from_torch(name);
  if (type && is_floating(*type) && *type != DType::f64) return *type;
  fail(ErrorKind::invalid_argument, "scale type \"{}\" is not known (float32, float16, bfloat16)", name);
}

void bind_tensors(nb::module_& module) {
  nb::class_<Tensor>(
      module, "Tensor",
      "An array as a checkpoint stores it. numpy.asarray(tensor) and torch.from_dlpack(tensor) take "
      "it without a copy, but for bfloat16 in NumPy, which becomes float32.")
      .def_prop_ro(
          "dtype", [](const Tensor& tensor) { return std::string(torch_name(tensor.dtype())); },
          "Type of the elements by torch's name: \"float32\", \"bfloat16\", \"int32\", ...")
      .def_prop_ro("shape", &shape_of, nb::sig("def shape(self) -> tuple[int, ...]"))
      .def_prop_ro("nbytes", &Tensor::byte_size)
      .def("numpy", &as_numpy, nb::sig("def numpy(self) -> numpy.typing.NDArray[typing.Any]"),
           "A view of the memory; bfloat16, which NumPy lacks, as a float32 copy.")
      .def("__array__", &as_array, nb::arg("dtype") = nb::none(), nb::arg("copy") = nb::none(),
           nb::sig("def __array__(self, dtype: typing.Any = None, copy: bool | None = None) -> typing.Any"))
      .def("__dlpack__", &as_dlpack, nb::sig("def __dlpack__(self, **kwargs: typing.Any) -> object"))
      .def(
          "__dlpack_device__", [](const Tensor&) { return nb::make_tuple(1, 0); },
          nb::sig("def __dlpack_device__(self) -> tuple[int, int]"))
      .def("__repr__", [](const Tensor& tensor) {
        return fmt::format("Tensor({}, {})", to_string(tensor.shape()), torch_name(tensor.dtype()));
      });
}

}  // namespace salient::python
