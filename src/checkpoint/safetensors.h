// safetensors files, read as hostile input.
#pragma once

#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "checkpoint/tensor_info.h"

namespace tessera::checkpoint {

using SafetensorsMetadata = std::map<std::string, std::string>;  // the header's "__metadata__"

// Reads the header of one file's bytes: sorted by name, `file` null, offsets from the start of the file. As
// the format demands, the tensors cover the data section without hole or overlap; so a file cut short is
// always noticed. `metadata` may be null.
Result<std::vector<TensorInfo>> parse_safetensors(std::span<const uint8_t> file,
                                                  SafetensorsMetadata* metadata = nullptr);

// The same for a file, which the result keeps mapped.
Result<std::vector<TensorInfo>> read_safetensors(const std::filesystem::path& path,
                                                 SafetensorsMetadata* metadata = nullptr);

}  // namespace tessera::checkpoint
