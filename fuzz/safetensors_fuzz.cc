#include <cstddef>
#include <cstdint>
#include <cstdlib>

#include "checkpoint/safetensors_header.h"
#include "expected_error.h"

/// Any bytes read as a .safetensors file must end in an Error or in a header whose tensors lie in the file.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace salient;
  try {
    const auto header = parse_safetensors_header(std::as_bytes(std::span(data, size)), "model.safetensors");
    if (header.names.size() != header.entries.size()) std::abort();
    size_t last = 0;
    for (const auto& name : header.names) {
      const auto& entry = header.entries.at(name);
      if (entry.begin < last || entry.end < entry.begin || entry.end > size) std::abort();
      const auto dtype = dtype_from_safetensors(entry.dtype);
      const auto bytes = static_cast<size_t>(element_count(entry.shape)) * (dtype ? byte_size(*dtype) : 0);
      if (dtype && bytes != entry.end - entry.begin) std::abort();
      last = entry.end;
    }
  } catch (const Error& error) {
    expect_outside_error(error);
  }
  return 0;
}
