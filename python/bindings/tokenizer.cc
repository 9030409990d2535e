#include "text/tokenizer.h"

#include <nanobind/stl/filesystem.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/string_view.h>
#include <nanobind/stl/vector.h>

#include "base/error.h"
#include "base/parallel.h"
#include "bindings/arrays.h"
#include "bindings/interruptible.h"

namespace salient::python {
namespace {

using Special = Tokenizer::SpecialTokens;
using Skip = Tokenizer::SkipSpecial;

/// Errors: UnicodeEncodeError for half a surrogate pair, which UTF-8 has no bytes for.
std::string to_utf8(nb::handle text) {
  Py_ssize_t size = 0;
  const char* bytes = PyUnicode_AsUTF8AndSize(text.ptr(), &size);
  if (bytes == nullptr) throw nb::python_error();
  return {bytes, static_cast<size_t>(size)};
}

Special special(bool add) { return add ? Special::add : Special::omit; }
Skip skip(bool yes) { return yes ? Skip::yes : Skip::no; }

std::vector<std::vector<int32_t>> encode_batch(const Tokenizer& tokenizer, const std::vector<nb::str>& given,
                                               bool add_special_tokens) {
  std::vector<std::string> texts;
  for (const nb::str& text : given) texts.push_back(to_utf8(text));
  std::vector<std::vector<int32_t>> ids(texts.size());
  Interruptible job;
  job.run([&] {
    parallel_for(texts.size(), 1, [&](size_t begin, size_t end) {
      for (size_t i = begin; i < end; ++i) {
        throw_if_cancelled(job.flag());
        ids[i] = with_context(fmt::format("text {}", i), [&] {
          return tokenizer.encode(texts[i], special(add_special_tokens), job.flag());
        });
      }
    });
  });
  return ids;
}

std::string id_to_token(const Tokenizer& tokenizer, int32_t id) {
  try {
    return std::string(tokenizer.token(id));
  } catch (const Error& error) {
    throw nb::index_error(error.what());
  }
}

Tokenizer from_directory(const std::filesystem::path& path) {
  const nb::gil_scoped_release released;
  return Tokenizer::from_directory(path.string());
}

std::string decode(const Tokenizer& tokenizer, const IdArray& ids, bool skip_special_tokens) {
  const nb::gil_scoped_release released;
  return tokenizer.decode({ids.data(), ids.size()}, skip(skip_special_tokens));
}

}  // namespace

void bind_tokenizer(nb::module_& module) {
  nb::class_<Tokenizer>(module, "Tokenizer", "Text to token ids and back, as a tokenizer.json describes it.")
      .def_static("from_directory", &from_directory, nb::arg("path"),
                  nb::sig("def from_directory(path: str | os.PathLike[str]) -> Tokenizer"))
      .def_static("from_json", &Tokenizer::from_json, nb::arg("text"), nb::arg("source"),
                  nb::call_guard<nb::gil_scoped_release>(),
                  "From the content of a tokenizer.json; `source` leads every message.")
      .def(
          "encode",
          [](const Tokenizer& tokenizer, const nb::str& given, bool add_special_tokens) {
            const std::string text = to_utf8(given);
            const nb::gil_scoped_release released;
            return tokenizer.encode(text, special(add_special_tokens));
          },
          nb::arg("text"), nb::arg("add_special_tokens") = true)
      .def("encode_batch", &encode_batch, nb::arg("texts"), nb::arg("add_special_tokens") = true,
           "The ids of each text; several threads share the texts.")
      .def("decode", &decode, nb::arg("ids").noconvert(), nb::arg("skip_special_tokens") = false,
           nb::sig("def decode(self, ids: numpy.typing.NDArray[numpy.int32], skip_special_tokens: bool = "
                   "False) -> str"))
      .def(
          "token_to_id",
          [](const Tokenizer& tokenizer, const std::string& token) { return tokenizer.token_id(token); },
          nb::arg("token"))
      .def("id_to_token", &id_to_token, nb::arg("id"))
      .def("is_special", &Tokenizer::is_special, nb::arg("id"))
      .def_prop_ro("vocab_size", &Tokenizer::vocabulary_size, "Number of tokens, added ones included.");
  module.def(
      "same_vocabulary", [](const Tokenizer& a, const Tokenizer& b) { return same_vocabulary(a, b); },
      nb::arg("a"), nb::arg("b"), "Whether two tokenizers spell the same tokens under the same ids.");

  nb::class_<StreamDecoder>(module, "TextStream",
                            "Ids one by one into text, as soon as whole characters are there.")
      .def(
          "__init__",
          [](StreamDecoder* place, const Tokenizer& tokenizer, bool skip_special_tokens) {
            new (place) StreamDecoder(tokenizer, skip(skip_special_tokens));
          },
          nb::arg("tokenizer"), nb::arg("skip_special_tokens") = true)
      .def("push", &StreamDecoder::push, nb::arg("id"), "The text that is complete now; often empty.")
      .def("finish", &StreamDecoder::finish, "What is left; the next push begins a new text.");
}

}  // namespace salient::python
