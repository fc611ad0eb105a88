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
#include "obs/log.h"
#include "weights/needed.h"
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

int run_worker(const WorkerOptions& options) {
  if (options.join.empty())
    return report(
        invalid_argument("say which cluster to join: --join tessera://HOST:PORT/TOKEN, the line that "
                         "`tessera gateway` prints"));
  Status status = start_logging(options.log_level, options.log_format, options.log_file);
  if (!status.ok()) return report(status);
  StopSignals signals;
  auto node = start_node(options);
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
  return {"worker", "joins a cluster and computes block ranges for it",
          "  tessera worker --join tessera://gateway.lan:8443/TOKEN\n"
          "  tessera worker --join … --name attic --memory 8GiB",
          fields_of(*options), [options] { return run_worker(*options); }};
}

}  // namespace tessera::app
