// worker: gives this machine's memory and compute to a cluster.
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <charconv>
#include <nlohmann/json.hpp>

#include "app/commands.h"
#include "app/http_service.h"
#include "app/measure_worker.h"
#include "app/memory.h"
#include "app/range_engine.h"
#include "net/api_base.h"
#include "obs/log.h"
#include "weights/needed.h"
#include "worker/external/external_node.h"
#include "worker/node.h"

namespace tessera::app {
namespace {

constexpr uint64_t kOutputShare = 16;  // a sixteenth of the memory keeps outputs for failovers
constexpr std::chrono::seconds kDrainTime{60};

struct WorkerOptions {
  std::string join;
  std::string name;
  ByteSize memory{0};
  std::string blocks;
  std::string listen = "0.0.0.0:0";
  std::string advertise;
  std::string relay = "auto";
  int threads = 0;
  std::string device = "auto";
  std::string isa = "auto";
  int max_batch_tokens = 512;
  int max_sequences = 256;
  std::string engine;
  std::string url;
  std::string command;
  std::string engine_model;
  std::string engine_key;
  std::string engine_ca;
  bool share_prefixes = false;
  int first_token_timeout = 300;
  int silence_timeout = 60;
  std::string log_level = "info";
  std::string log_format = "text";
  std::string log_file;
  template <typename V>
  void fields(V& v) {
    v("join", join, "the invitation that `tessera gateway` prints: tessera://HOST:PORT/TOKEN");
    v("name", name, "what `status` and `drain` call this worker; default: after the host");
    v("memory", memory, "memory for weights and KV; default: four fifths of what is free");
    v("blocks", blocks, "host this block range and no other, e.g. 0:8; default: the gateway decides");
    v("listen", listen, "address and port for the other workers; port 0 = any free one");
    v("advertise", advertise, "HOST[:PORT],… at which the other workers reach this one");
    v("relay", relay,
      "through the gateway: auto = when it does not reach this worker, always, or never (then it must)");
    v("threads", threads, "threads of the CPU backend; 0 = one per core");
    v("device", device, "auto or cpu");
    v("isa", isa, "auto, portable, avx2 or avx512: force a kernel path");
    v("max-batch-tokens", max_batch_tokens, "rows of one step");
    v("max-sequences", max_sequences, "sequences that run at once");
    v("engine", engine,
      "stand for another engine that serves whole models: vllm, sglang, tensorrt-llm, llama.cpp, ollama, "
      "tessera or "
      "openai (any other server of that format)");
    v("url", url,
      "where the engine's server listens, e.g. http://127.0.0.1:8000; with --command, where it will");
    v("command", command, "starts the engine's server, watches it, and starts it again when it ends");
    v("engine-model", engine_model, "of the engine's models only this one");
    v("engine-key", engine_key, "the API key that the engine's server wants");
    v("engine-ca", engine_ca, "PEM certificates to trust for an https URL; default: the system's");
    v("share-prefixes", share_prefixes,
      "tenants may share the cache of an engine that cannot keep them apart");
    v("first-token-timeout", first_token_timeout, "seconds that the engine may take for a first token");
    v("silence-timeout", silence_timeout, "seconds that it may take from one token to the next");
    v("log-level", log_level, "debug, info, warn, error or off");
    v("log-format", log_format, "text or json");
    v("log-file", log_file, "also write the log here");
  }
};

Result<BlockRange> parse_pinned(const std::string& text) {
  BlockRange range;
  const char* const end = text.data() + text.size();
  auto first = std::from_chars(text.data(), end, range.first);
  if (first.ec == std::errc() && first.ptr != end && *first.ptr == ':') {
    auto last = std::from_chars(first.ptr + 1, end, range.last);
    if (last.ec == std::errc() && last.ptr == end && range.first >= 0 && range.last > range.first)
      return range;
  }
  return invalid_argument("--blocks takes one range such as 0:8, not '" + text + "'");
}

Result<worker::RelayMode> parse_relay(const std::string& text) {
  if (text == "auto") return worker::RelayMode::kAuto;
  if (text == "always") return worker::RelayMode::kAlways;
  if (text == "never") return worker::RelayMode::kNever;
  return invalid_argument("--relay takes auto, always or never, not '" + text + "'");
}

// The gateway's words on how a model is held, as this process's options.
Result<ModelOptions> model_options(const WorkerOptions& options, const LoadInstance& load,
                                   const std::string& path) {
  ModelOptions model;
  model.model = path;
  model.served_name = load.model;
  model.isa = options.isa;
  model.device = options.device;
  model.max_batch_tokens = options.max_batch_tokens;
  model.max_sequences = options.max_sequences;
  TESSERA_ASSIGN_OR_RETURN(Json json, parse_json(load.load_options.empty() ? "{}" : load.load_options));
  if (!json.is_object()) return corrupt("the gateway sent load options that are no object");
  for (auto& [key, target] : std::map<std::string, std::string*>{
           {"dtype", &model.dtype}, {"quantize", &model.quantize}, {"kv_dtype", &model.kv_dtype}}) {
    if (!json.contains(key)) continue;
    if (!json[key].is_string()) return corrupt("the gateway sent a load option that is no text: " + key);
    *target = json[key].get<std::string>();
  }
  return model;
}

Result<std::unique_ptr<worker::Node>> start_node(const WorkerOptions& options) {
  ModelOptions probe;
  probe.isa = options.isa;
  probe.device = options.device;
  TESSERA_ASSIGN_OR_RETURN(tensor::Isa isa, chosen_isa(probe));
  auto pool = tensor::make_thread_pool(options.threads);
  worker::NodeOptions node;
  node.join = options.join;
  node.name = options.name;
  node.listen = options.listen;
  node.advertise = options.advertise;
  TESSERA_ASSIGN_OR_RETURN(node.relay, parse_relay(options.relay));
  node.home = tessera_home();
  node.models = node.home / "models";
  node.version = TESSERA_VERSION;
  node.hf_endpoint = environment("HF_ENDPOINT").value_or(node.hf_endpoint);
  node.hf_token = environment("HF_TOKEN").value_or("");
  obs::log_info("worker", "measuring this machine");
  TESSERA_ASSIGN_OR_RETURN(node.capabilities, measure_worker(pool, isa));
  const uint64_t memory = options.memory.bytes > 0 ? options.memory.bytes : available_memory() / 5 * 4;
  const uint64_t outputs = memory / kOutputShare;
  node.capabilities.memory_bytes = memory - outputs;
  if (!options.blocks.empty()) {
    TESSERA_ASSIGN_OR_RETURN(node.capabilities.pinned_blocks, parse_pinned(options.blocks));
  }
  node.needed_tensors = [](const std::filesystem::path& path,
                           BlockRange blocks) -> Result<std::vector<std::string>> {
    TESSERA_ASSIGN_OR_RETURN(auto source, checkpoint::open_source(path));
    TESSERA_ASSIGN_OR_RETURN(model::ModelSpec spec,
                             model::read_spec(source->config(), source->generation_config()));
    if (blocks.first < 0 || blocks.last > spec.num_blocks || blocks.size() <= 0)
      return corrupt("the gateway asks for blocks that the model does not have");
    return weights::needed_tensors(spec, *source, blocks);
  };
  node.make_engine = [options, pool, outputs](const LoadInstance& load, const std::filesystem::path& path,
                                              const std::string& inbox,
                                              MessageSink& sink) -> Result<std::unique_ptr<engine::Engine>> {
    TESSERA_ASSIGN_OR_RETURN(ModelOptions model, model_options(options, load, path.string()));
    TESSERA_ASSIGN_OR_RETURN(OpenedModel opened, open_model(model));
    RangeEngine what;
    what.range = load.blocks;
    what.worker_name = inbox;
    what.kv_memory_bytes = load.kv_bytes;
    what.output_memory_bytes = outputs;
    what.context_length = load.context_length;
    return make_range_engine(opened, what, model, pool, sink, nullptr);
  };
  return worker::Node::start(std::move(node));
}

// What an engine's server listens on where nobody says: its own default.
std::string default_url(const std::string& engine) {
  const std::map<std::string, int> ports{{"vllm", 8000},      {"sglang", 30000}, {"tensorrt-llm", 8000},
                                         {"llama.cpp", 8080}, {"ollama", 11434}, {"tessera", 8080}};
  const auto found = ports.find(engine);
  return found == ports.end() ? "" : "http://127.0.0.1:" + std::to_string(found->second);
}

Result<worker::external::ExternalEngineOptions> engine_options(const WorkerOptions& options) {
  worker::external::ExternalEngineOptions engine;
  engine.profile = worker::external::find_profile(options.engine);
  if (engine.profile == nullptr)
    return invalid_argument("--engine takes " + worker::external::profile_names() + ", not '" +
                            options.engine + "'");
  if (options.url.empty() && options.command.empty())
    return invalid_argument("--engine needs --url (a server that runs) or --command (one to start)");
  if (!options.blocks.empty())
    return invalid_argument("--blocks is for our own engine: another takes whole models");
  const std::string url = options.url.empty() ? default_url(options.engine) : options.url;
  if (url.empty()) return invalid_argument("--command needs --url: where the server will listen");
  auto base = net::api_base(url);
  if (!base.ok()) return base.status().with_context("--url");
  engine.address = {*base, options.engine_key, options.engine_ca};
  engine.model = options.engine_model;
  if (!options.command.empty()) {
    auto words = worker::external::split_command(options.command);
    if (!words.ok()) return words.status().with_context("--command");
    engine.command = *words;
  }
  engine.share_prefixes = options.share_prefixes;
  if (options.first_token_timeout < 1 || options.silence_timeout < 1)
    return invalid_argument("--first-token-timeout and --silence-timeout are at least 1 second");
  engine.first_token = std::chrono::seconds(options.first_token_timeout);
  engine.silence = std::chrono::seconds(options.silence_timeout);
  return engine;
}

Result<std::unique_ptr<worker::Node>> start_external_node(const WorkerOptions& options) {
  worker::external::ExternalNodeOptions node;
  node.join = options.join;
  node.name = options.name;
  node.home = tessera_home();
  node.version = TESSERA_VERSION;
  TESSERA_ASSIGN_OR_RETURN(node.engine, engine_options(options));
  return worker::external::start_external_node(std::move(node));
}

int run_worker(const WorkerOptions& options) {
  if (options.engine.empty() && !(options.url.empty() && options.command.empty()))
    return report(
        invalid_argument("--url and --command need --engine: " + worker::external::profile_names()));
  if (!options.engine.empty())
    if (const Status wrong = engine_options(options).status(); !wrong.ok()) return report(wrong);
  if (options.join.empty())
    return report(
        invalid_argument("say which cluster to join: --join tessera://HOST:PORT/TOKEN, the line that "
                         "`tessera gateway` prints"));
  Status status = start_logging(options.log_level, options.log_format, options.log_file);
  if (!status.ok()) return report(status);
  StopSignals signals;
  auto node = options.engine.empty() ? start_node(options) : start_external_node(options);
  if (!node.ok()) return report(node.status());
  signals.arm();
  obs::log_info("worker", "joined as " + (*node)->name(), {{"address", (*node)->address()}});
  std::atomic<bool> over{false};
  Status end;
  std::thread waiter([&, ended = (*node)->ended()]() mutable {
    end = ended.get();
    over = true;
    signals.raise();
  });
  signals.wait();
  if (!over) {
    // A first signal drains: streams move elsewhere. A second one, or a limit, ends at once.
    obs::log_info("worker", "leaving: sessions move to other workers; once more to leave at once");
    (*node)->drain();
    signals.wait_for(kDrainTime);
    if (!over) std::_Exit(kInterrupted);
  }
  waiter.join();
  if (!end.ok()) return report(end) == kDone ? kDone : kFailed;
  obs::log_info("worker", "left the cluster");
  return kDone;
}

}  // namespace

Command worker_command() {
  auto options = std::make_shared<WorkerOptions>();
  return {
      "worker", "joins a cluster and computes block ranges for it",
      "  tessera worker --join tessera://gateway.lan:8443/TOKEN\n"
      "  tessera worker --join … --name attic --memory 8GiB\n"
      "  tessera worker --join … --engine vllm --url http://127.0.0.1:8000\n"
      "  tessera worker --join … --engine sglang --command \"python -m sglang.launch_server --model-path …\"",
      fields_of(*options), [options] { return run_worker(*options); }};
}

}  // namespace tessera::app
