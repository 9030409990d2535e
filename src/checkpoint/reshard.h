#pragma once

#include "base/cancellation.h"
#include "checkpoint/checkpoint_writer.h"

namespace salient {

/// Copies a model directory into shards of other sizes: every tensor as it is, config.json byte for byte,
/// what travels with a model (see CheckpointWriter::copy_companions), recipe.yaml, AutoAWQ's
/// quantize_config.json and the Python files that a config.json may name. The target appears whole or not at
/// all. Errors: those of Checkpoint, CheckpointWriter and check_replaceable; invalid_argument for a target
/// inside the source; unsupported for a tensor of unknown type; cancelled.
void reshard_checkpoint(const std::string& source, const CheckpointWriter::Options& target,
                        const CancellationFlag* cancelled = nullptr);

}  // namespace salient
