#include "app/model_runtime.h"

#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <fstream>
#include <nlohmann/json.hpp>

#include "base/sha256.h"
#include "fetch/model_names.h"

namespace tessera::app {
namespace {

namespace fs = std::filesystem;

Result<tensor::MatrixFormat> chosen_format(const ModelOptions& options, const checkpoint::Source& source) {
  if (!options.quantize.empty() && options.dtype == "float32")
    return invalid_argument("--quantize and --dtype float32 contradict each other");
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
  std::string name = fs::path(given).lexically_normal().filename().string();
  if (name.empty()) name = fs::path(given).lexically_normal().parent_path().filename().string();
  if (name.ends_with(".gguf")) name.resize(name.size() - 5);
  return name;
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

uint64_t available_memory() {
  std::ifstream info("/proc/meminfo");
  std::string key, unit;
  uint64_t kilobytes = 0;
  uint64_t available = 0;
  while (info >> key >> kilobytes >> unit)
    if (key == "MemAvailable:") available = kilobytes * 1024;
  std::ifstream limit_file("/sys/fs/cgroup/memory.max"), used_file("/sys/fs/cgroup/memory.current");
  uint64_t limit = 0, used = 0;
  if (limit_file >> limit && used_file >> used && limit > used) available = std::min(available, limit - used);
  return available;
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

// Ends with the first token of a session, or with its failure.
class ProbeObserver final : public cluster::SessionObserver {
 public:
  explicit ProbeObserver(std::function<void(Status)> done) : done_(std::move(done)) {}
  void on_started(int) override {}
  void on_token(const Token&) override { finish(Status()); }
  void on_failed(const Status& reason) override { finish(reason); }

 private:
  void finish(const Status& status) {
    if (done_) std::exchange(done_, nullptr)(status);
  }
  std::function<void(Status)> done_;
};

}  // namespace

Result<fs::path> find_model(const std::string& name) {
  if (name.empty())
    return invalid_argument("say which model: --model NAME, for example --model smollm2:135m");
  return fetch::locate_model(name, fs::path(tessera_home()) / "models");
}

Result<tensor::Isa> chosen_isa(const ModelOptions& options) {
  if (options.device != "auto" && options.device != "cpu")
    return invalid_argument("--device takes auto or cpu in this build, not '" + options.device + "'");
  if (options.isa == "auto") return tensor::best_isa();
  TESSERA_ASSIGN_OR_RETURN(tensor::Isa isa, tensor::parse_isa(options.isa));
  if (!tensor::isa_supported(isa)) return invalid_argument("this processor has no " + options.isa);
  return isa;
}

Result<OpenedModel> open_model(const ModelOptions& options) {
  OpenedModel opened;
  TESSERA_ASSIGN_OR_RETURN(opened.path, find_model(options.model));
  opened.served_name = served_name(options.model);
  TESSERA_ASSIGN_OR_RETURN(opened.source, checkpoint::open_source(opened.path));
  TESSERA_ASSIGN_OR_RETURN(opened.spec,
                           model::read_spec(opened.source->config(), opened.source->generation_config()));
  TESSERA_ASSIGN_OR_RETURN(opened.text, text::load_model_text(opened.path));
  TESSERA_ASSIGN_OR_RETURN(opened.format, chosen_format(options, *opened.source));
  TESSERA_ASSIGN_OR_RETURN(opened.kv_dtype, chosen_kv_dtype(options));
  const std::string whole = "0:" + std::to_string(opened.spec.num_blocks);
  TESSERA_ASSIGN_OR_RETURN(opened.ranges, parse_block_ranges(options.blocks.empty() ? whole : options.blocks,
                                                             opened.spec.num_blocks));
  opened.context_length = opened.spec.context_length;
  if (options.context < 0) return invalid_argument("--context must not be negative");
  if (options.context > 0) opened.context_length = std::min(options.context, opened.spec.context_length);
  opened.identity = identity_of(*opened.source);
  return opened;
}

Status check_memory(const OpenedModel& opened, const ModelOptions& options) {
  const BlockRange whole{0, opened.spec.num_blocks};
  auto needed = model::estimate_weight_bytes(opened.spec, *opened.source, whole, opened.format);
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
  load.progress = [&progress](uint64_t done, uint64_t total) { progress.update(done, total); };
  return model::Model::load(opened.spec, opened.source, range, backend, load);
}

Result<std::unique_ptr<LocalCluster>> LocalCluster::start(const ModelOptions& options,
                                                          obs::Metrics* metrics) {
  std::unique_ptr<LocalCluster> local(new LocalCluster);
  TESSERA_ASSIGN_OR_RETURN(local->opened_, open_model(options));
  const OpenedModel& opened = local->opened_;
  TESSERA_RETURN_IF_ERROR(check_memory(opened, options));
  TESSERA_ASSIGN_OR_RETURN(tensor::Isa isa, chosen_isa(options));
  local->pool_ = tensor::make_thread_pool(options.threads);

  Route route;
  std::string fingerprint;
  for (size_t i = 0; i < opened.ranges.size(); ++i) {
    auto backend = tensor::make_cpu_backend(local->pool_, {.isa = isa});
    TESSERA_ASSIGN_OR_RETURN(auto model, load_range(opened, opened.ranges[i], *backend));
    engine::EngineOptions engine_options;
    engine_options.worker_name = "local-" + std::to_string(i);
    engine_options.model_identity = opened.identity;
    engine_options.kv_memory_bytes = options.kv_memory.bytes *
                                     static_cast<uint64_t>(opened.ranges[i].size()) /
                                     static_cast<uint64_t>(opened.spec.num_blocks);
    engine_options.kv_dtype = opened.kv_dtype;
    engine_options.context_length = opened.context_length;
    engine_options.max_batch_tokens = options.max_batch_tokens;
    engine_options.max_sequences = options.max_sequences;
    TESSERA_ASSIGN_OR_RETURN(auto engine, engine::Engine::create(std::move(model), std::move(backend),
                                                                 engine_options, local->transport_, metrics));
    fingerprint = engine->numerics().to_string();
    local->opened_.context_length = std::min(local->opened_.context_length, engine->context_length());
    route.push_back({engine_options.worker_name, opened.ranges[i]});
    local->workers_.push_back(std::make_unique<worker::EngineHost>(engine_options.worker_name,
                                                                   std::move(engine), local->transport_));
  }

  local->router_ = std::make_unique<cluster::FixedRouter>(std::move(route));
  local->session_executor_ = make_thread_executor("sessions");
  local->prepare_executor_ = make_thread_executor("prepare");
  local->sessions_ = std::make_unique<cluster::SessionManager>(
      cluster::SessionManagerOptions{}, local->transport_, *local->session_executor_, *local->router_);
  local->transport_.add("gateway", *local->sessions_);

  gateway::ServedModel served;
  served.info.id = opened.served_name;
  served.info.created = SystemClock().unix_time_ms() / 1000;
  served.info.context_length = opened.context_length;
  served.info.vocab_size = opened.spec.vocab;
  served.info.has_tokenizer = opened.text.tokenizer != nullptr;
  served.info.has_chat_template = opened.text.chat_template != nullptr;
  served.text = opened.text;
  served.system_fingerprint = "fp_" + to_hex(sha256(as_bytes(fingerprint))).substr(0, 12);
  local->completer_ =
      gateway::make_session_completer(std::move(served), *local->sessions_, *local->prepare_executor_);
  return local;
}

void LocalCluster::probe(std::function<void(Status)> done) {
  cluster::SessionRequest request;
  request.prompt = {opened_.spec.bos_token >= 0 && opened_.spec.bos_token < opened_.spec.vocab
                        ? opened_.spec.bos_token
                        : 0};
  request.params.temperature = 0;
  request.params.max_tokens = 1;
  auto observer = std::make_shared<ProbeObserver>(std::move(done));
  auto submitted = sessions_->submit(std::move(request), observer);
  if (!submitted.ok()) observer->on_failed(submitted.status());
}

LocalCluster::~LocalCluster() {
  transport_.remove("gateway");
  workers_.clear();           // no more tokens
  prepare_executor_.reset();  // no more submits
  session_executor_.reset();
}

}  // namespace tessera::app
