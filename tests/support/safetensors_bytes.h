#pragma once

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>

namespace salient {

/// The bytes of a safetensors file with this header text, however wrong, and `data_size` bytes 0, 1, 2, ...
/// behind it.
inline std::string safetensors_bytes(std::string_view header, size_t data_size) {
  std::string bytes;
  for (int shift = 0; shift < 64; shift += 8) bytes += static_cast<char>(header.size() >> shift & 0xff);
  bytes += header;
  for (size_t i = 0; i < data_size; ++i) bytes += static_cast<char>(i);
  return bytes;
}

inline void write_bytes(const std::filesystem::path& path, std::string_view bytes) {
  std::ofstream(path, std::ios::binary).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

}  // namespace salient
