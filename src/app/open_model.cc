#include "app/open_model.h"

#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <set>

#include "app/memory.h"
#include "app/model_names.h"
#include "base/sha256.h"
#include "obs/log.h"

namespace tessera::app {
namespace {

namespace fs = std::filesystem;

Result<tensor::MatrixFormat> chosen_format(const ModelOptions& options, const checkpoint::Source& source) {
  if (options.quantize == "int8") return tensor::MatrixFormat::kInt8;
  if (options.quantize == "int4") return tensor::MatrixFormat::kInt4;
  if (!options.quantize.empty())
    return invalid_argument("--quantize takes int8 or int4, not '" + options.quantize + "'");
  if (options.dtype == "float32") return tensor::MatrixFormat::kF32;
  if (options.dtype == "bfloat16") {
    for (const checkpoint::TensorInfo& tensor : source.tensors())
      if (tensor.shape.size() >= 2 && tensor.dtype != DType::kBF16)
        return invalid_argument("--dtype bfloat16 is for bf16 checkpoints; " + tensor.name +
                                " is stored as " + std::string(dtype_info(tensor.dtype).name) +
                                ": use --dtype auto");
    return tensor::MatrixFormat::kAuto;
  }
  if (options.dtype == "auto") return tensor::MatrixFormat::kAuto;
  return invalid_argument("--dtype takes auto, float32 or bfloat16, not '" + options.dtype + "'");
}

Result<DType> chosen_kv_dtype(const ModelOptions& options) {
  if (options.kv_dtype == "auto") return options.dtype == "float32" ? DType::kF32 : DType::kF16;
  if (options.kv_dtype == "float32") return DType::kF32;
  if (options.kv_dtype == "bfloat16") return DType::kBF16;
  if (options.kv_dtype == "float16") return DType::kF16;
  return invalid_argument("--kv-dtype takes auto, float32, bfloat16 or float16, not '" + options.kv_dtype +
                          "'");
}

std::string served_name(const std::string& given) {
  std::error_code error;
  if (!fs::exists(given, error)) return given;
  const fs::path whole = fs::absolute(given, error).lexically_normal();  // "." is a folder with a name, too
  std::string name = whole.filename().string();
  if (name.empty()) name = whole.parent_path().filename().string();
  if (name.empty()) return given;
  if (name.ends_with(".gguf")) name.resize(name.size() - 5);
  return name;
}

Status check_numbers(const ModelOptions& options) {
  constexpr int kMaxThreads = 1024;
  if (options.threads < 0 || options.threads > kMaxThreads)
    return invalid_argument("--threads is between 0 and " + std::to_string(kMaxThreads) +
                            ", 0 = one per core");
  if (options.max_batch_tokens < 1) return invalid_argument("--max-batch-tokens is at least 1");
  if (options.max_sequences < 1) return invalid_argument("--max-sequences is at least 1");
  if (options.context < 0)
    return invalid_argument("--context is at least 0, 0 = what the model was made for");
  return {};
}

// --quantize is for float weights; says what becomes of those that are stored quantised already.
void warn_of_quantised_weights(const ModelOptions& options, const checkpoint::Source& source) {
  if (options.quantize.empty()) return;
  int matrices = 0, quantised = 0;
  std::set<std::string_view> kinds;
  for (const checkpoint::TensorInfo& tensor : source.tensors()) {
    if (tensor.shape.size() < 2) continue;
    ++matrices;
    if (!is_quantised(tensor.dtype)) continue;
    ++quantised;
    kinds.insert(dtype_info(tensor.dtype).name);
  }
  if (quantised == 0) return;
  std::string stored;
  for (const std::string_view kind : kinds) stored += (stored.empty() ? "" : ",") + std::string(kind);
  obs::log_warn(
      "load",
      options.quantize == "int8"
          ? "--quantize int8 leaves weights as they are that are stored quantised already"
          : "--quantize int4 quantises a second time what is stored quantised with more than 4 bits",
      {{"stored", stored}, {"quantised", quantised}, {"matrices", matrices}});
}

// Config and tensor table, not the weights' bytes: enough to tell models apart within one gateway.
std::string identity_of(const checkpoint::Source& source) {
  Sha256 hash;
  hash.update(as_bytes(dump_json(source.config())));
  for (const checkpoint::TensorInfo& tensor : source.tensors()) {
    std::string line = tensor.name + " " + std::string(dtype_info(tensor.dtype).name);
    for (uint64_t dim : tensor.shape) line += " " + std::to_string(dim);
    hash.update(as_bytes(line + "\n"));
  }
  return to_hex(hash.finish());
}

// A progress line while weights load, on a terminal only.
class LoadProgress {
 public:
  void update(uint64_t done, uint64_t total) {
    if (!terminal_ || total == 0) return;
    const auto now = std::chrono::steady_clock::now();
    if (done < total && now - last_ < std::chrono::milliseconds(100)) return;
    last_ = now;
    std::fprintf(stderr, "\rloading weights %3d%% of %s%s", static_cast<int>(done * 100 / total),
                 format_bytes(total).c_str(), done >= total ? "\n" : "");
  }

 private:
  const bool terminal_ = isatty(STDERR_FILENO) != 0;
  std::chrono::steady_clock::time_point last_{};
};

}  // namespace

Result<tensor::Isa> chosen_isa(const ModelOptions& options) {
  if (options.device != "auto" && options.device != "cpu")
    return invalid_argument("--device takes auto or cpu in this build, not '" + options.device + "'");
  if (options.isa == "auto") return tensor::best_isa();
  TESSERA_ASSIGN_OR_RETURN(tensor::Isa isa, tensor::parse_isa(options.isa));
  if (!tensor::isa_supported(isa)) return invalid_argument("this processor has no " + options.isa);
  return isa;
}

Result<OpenedModel> open_model(const ModelOptions& options) {
  TESSERA_RETURN_IF_ERROR(check_numbers(options));
  OpenedModel opened;
  TESSERA_ASSIGN_OR_RETURN(opened.path, find_model(options.model));
  opened.served_name = options.served_name.empty() ? served_name(options.model) : options.served_name;
  TESSERA_ASSIGN_OR_RETURN(opened.source, checkpoint::open_source(opened.path));
  TESSERA_ASSIGN_OR_RETURN(opened.spec,
                           model::read_spec(opened.source->config(), opened.source->generation_config()));
  // A folder may hold a tokenizer.json beside its GGUF, which then counts.
  const checkpoint::GgufFile* gguf = fs::is_directory(opened.path) ? nullptr : opened.source->gguf();
  TESSERA_ASSIGN_OR_RETURN(
      opened.text, gguf != nullptr ? text::load_model_text(*gguf) : text::load_model_text(opened.path));
  TESSERA_ASSIGN_OR_RETURN(opened.format, chosen_format(options, *opened.source));
  opened.exact_products = !options.quantize.empty() && options.dtype == "float32";
  TESSERA_ASSIGN_OR_RETURN(opened.kv_dtype, chosen_kv_dtype(options));
  const std::string whole = "0:" + std::to_string(opened.spec.num_blocks);
  TESSERA_ASSIGN_OR_RETURN(opened.ranges, parse_block_ranges(options.blocks.empty() ? whole : options.blocks,
                                                             opened.spec.num_blocks));
  if (options.context > opened.spec.context_length)
    return invalid_argument("--context " + std::to_string(options.context) + " is more than the " +
                            std::to_string(opened.spec.context_length) + " tokens that " + options.model +
                            " was made for");
  opened.context_length = options.context > 0 ? options.context : opened.spec.context_length;
  warn_of_quantised_weights(options, *opened.source);
  opened.identity = identity_of(*opened.source);
  return opened;
}

Status check_memory(const OpenedModel& opened, const ModelOptions& options) {
  const BlockRange whole{0, opened.spec.num_blocks};
  auto needed = model::estimate_weight_bytes(
      opened.spec, *opened.source, whole, opened.exact_products ? tensor::MatrixFormat::kF32 : opened.format);
  if (!needed.ok()) return needed.status();
  const uint64_t available = available_memory();
  if (*needed + (uint64_t{64} << 20) <= available) return {};
  std::string advice;
  for (auto [format, flag] : {std::pair{tensor::MatrixFormat::kInt8, "--quantize int8"},
                              {tensor::MatrixFormat::kInt4, "--quantize int4"}}) {
    auto smaller = model::estimate_weight_bytes(opened.spec, *opened.source, whole, format);
    if (!smaller.ok() || *smaller >= *needed) continue;
    advice += std::string(advice.empty() ? " " : ", ") + flag + " needs " + format_bytes(*smaller);
  }
  return resource_exhausted(
      "the weights of " + options.model + " need " + format_bytes(*needed) + ", " + format_bytes(available) +
      " of memory are free." +
      (advice.empty() ? " Use a smaller model or a machine with more memory." : advice + "."));
}

Result<std::unique_ptr<model::Model>> load_range(const OpenedModel& opened, BlockRange range,
                                                 tensor::Backend& backend) {
  LoadProgress progress;
  model::LoadOptions load;
  load.format = opened.format;
  load.exact_products = opened.exact_products;
  load.kv_dtype = opened.kv_dtype;
  load.progress = [&progress](uint64_t done, uint64_t total) { progress.update(done, total); };
  return model::Model::load(opened.spec, opened.source, range, backend, load);
}

}  // namespace tessera::app
