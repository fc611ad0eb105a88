// From options to a running model: resolves the name, reads the spec, checks that it fits, loads the block
// ranges.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "app/model_options.h"
#include "base/clock.h"
#include "base/executor.h"
#include "checkpoint/source.h"
#include "cluster/session_manager.h"
#include "gateway/session_completer.h"
#include "model/model.h"
#include "obs/metrics.h"
#include "tensor/cpu/cpu_backend.h"
#include "text/model_text.h"
#include "worker/engine_host.h"

namespace tessera::app {

// A model found and understood, no weight read yet.
struct OpenedModel {
  std::filesystem::path path;
  std::string served_name;  // what --model was given; a path's base name without .gguf
  std::shared_ptr<const checkpoint::Source> source;
  model::ModelSpec spec;
  text::ModelText text;
  tensor::MatrixFormat format = tensor::MatrixFormat::kAuto;
  DType kv_dtype = DType::kF16;
  std::vector<BlockRange> ranges;
  int context_length = 0;
  std::string identity;  // hash of config and tensor table: enters every KV identity
};

// Finds a model by path or name; NotFound says how to pull it.
Result<std::filesystem::path> find_model(const std::string& name);
Result<OpenedModel> open_model(const ModelOptions& options);

// One backend on the shared pool.
Result<tensor::Isa> chosen_isa(const ModelOptions& options);

// Loads [first, last) with a progress line on a terminal.
Result<std::unique_ptr<model::Model>> load_range(const OpenedModel& opened, BlockRange range,
                                                 tensor::Backend& backend);

// Refuses before loading what cannot fit, and says what would.
Status check_memory(const OpenedModel& opened, const ModelOptions& options);

// Gateway and workers of one model in this process: what `serve` and `run` are made of.
class LocalCluster {
 public:
  static Result<std::unique_ptr<LocalCluster>> start(const ModelOptions& options, obs::Metrics* metrics);
  ~LocalCluster();

  const std::shared_ptr<api::Completer>& completer() const { return completer_; }
  const OpenedModel& model() const { return opened_; }
  cluster::SessionManager& sessions() { return *sessions_; }
  std::vector<std::unique_ptr<worker::EngineHost>>& workers() { return workers_; }
  // Sends one real token through every hop; calls back once, with the reason when it failed.
  void probe(std::function<void(Status)> done);

 private:
  LocalCluster() = default;

  OpenedModel opened_;
  std::shared_ptr<tensor::ThreadPool> pool_;
  cluster::InProcessTransport transport_;
  std::unique_ptr<cluster::Router> router_;
  std::unique_ptr<Executor> session_executor_;  // thread "sessions"
  std::unique_ptr<Executor> prepare_executor_;  // thread "prepare": templates and tokenizers
  std::unique_ptr<cluster::SessionManager> sessions_;
  std::shared_ptr<api::Completer> completer_;
  std::vector<std::unique_ptr<worker::EngineHost>> workers_;
};

}  // namespace tessera::app
