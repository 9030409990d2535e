#pragma once

#include <cstddef>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tensor/tensor.h"

namespace salient {

/// What a header says about one tensor.
struct SafetensorsEntry {
  std::string dtype;  ///< as spelled in the file; perhaps a type that Salient does not know
  Shape shape;
  size_t begin = 0;  ///< offsets into the file
  size_t end = 0;
};

struct SafetensorsHeader {
  std::map<std::string, SafetensorsEntry> entries;
  std::vector<std::string> names;  ///< in order of their offsets
  std::map<std::string, std::string> metadata;
};

/// Parses and checks the header of a whole file's bytes; reads nothing behind the header. `source` leads
/// every message. A type that Salient does not know is no error here, since the tensor may never be asked
/// for; its offsets are checked like the others'. Errors: bad_format for everything else that SafetensorsFile
/// lists.
SafetensorsHeader parse_safetensors_header(std::span<const std::byte> file, std::string_view source);

/// `name` between quotes, escaped and shortened to fit into a message.
std::string quoted_name(std::string_view name);

}  // namespace salient
