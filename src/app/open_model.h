// From options to a model found, understood and checked against this machine; no weight is read before
// load_range().
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "app/model_options.h"
#include "checkpoint/source.h"
#include "model/model.h"
#include "tensor/cpu/cpu_backend.h"
#include "text/model_text.h"

namespace tessera::app {

// A model found and understood, no weight read yet.
struct OpenedModel {
  std::filesystem::path path;
  std::string served_name;  // what --model was given; a path's base name without .gguf
  std::shared_ptr<const checkpoint::Source> source;
  model::ModelSpec spec;
  text::ModelText text;
  tensor::MatrixFormat format = tensor::MatrixFormat::kAuto;
  bool exact_products = false;  // --quantize with --dtype float32: the stored weights, exact products
  DType kv_dtype = DType::kF16;
  std::vector<BlockRange> ranges;
  int context_length = 0;
  std::string identity;  // hash of config and tensor table: enters every KV identity
};

Result<OpenedModel> open_model(const ModelOptions& options);

// One backend on the shared pool.
Result<tensor::Isa> chosen_isa(const ModelOptions& options);

// Loads [first, last) with a progress line on a terminal.
Result<std::unique_ptr<model::Model>> load_range(const OpenedModel& opened, BlockRange range,
                                                 tensor::Backend& backend);

// Refuses before loading what cannot fit, and says what would.
Status check_memory(const OpenedModel& opened, const ModelOptions& options);

}  // namespace tessera::app
