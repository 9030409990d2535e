#pragma once

#include <filesystem>
#include <string>

#include "awq/awq.h"

namespace salient {

/// A finished layer as it waits in a work directory: a safetensors file with the tensors of the layer, its
/// report, and a checksum over all of it.
struct LayerFile {
  std::string job;     ///< which job it belongs to
  std::string source;  ///< checksum of the layer that it was made of, see layer_checksum
  QuantizedLayer layer;
};

/// Of all tensors of a layer as they are stored in the model.
std::string layer_checksum(const LayerWeights& weights);

/// The file appears whole or not at all. Errors: io.
void write_layer_file(const std::filesystem::path& path, const LayerFile& file, const DecoderSpec& spec);

/// `original`: the layer of the model, for what quantization leaves alone. Tensors are views of the mapped
/// file. Errors: not_found, io; bad_format or unsupported for a file that is not what was written.
LayerFile read_layer_file(const std::filesystem::path& path, const LayerJob& job,
                          const LayerWeights& original);

}  // namespace salient
