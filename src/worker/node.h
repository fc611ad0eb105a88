// Node: a worker process in a cluster. Joins with an invitation or as whom it was before, keeps its stream to
// the gateway, serves its neighbours, hosts what it is asked to.
#pragma once

#include <filesystem>
#include <functional>
#include <future>
#include <memory>
#include <string>

#include "core/control_messages.h"
#include "engine/engine.h"
#include "worker/instances.h"

namespace tessera::worker {

// When neighbours reach this worker through the gateway: when the gateway does not reach it, always, or never
// (then a worker that cannot be reached does not join).
enum class RelayMode { kAuto, kAlways, kNever };

struct NodeOptions {
  std::string join;                  // tessera://HOST:PORT[,HOST:PORT…]/TOKEN
  std::string name;                  // wanted; empty: after the host
  std::string listen = "0.0.0.0:0";  // of the data plane
  std::string advertise;  // "HOST[:PORT],…" that neighbours dial; empty: this machine's addresses
  RelayMode relay = RelayMode::kAuto;
  std::filesystem::path home;  // TESSERA_HOME
  std::string version;
  WorkerCapabilities capabilities;
  std::filesystem::path models;  // where whole models may lie already, by name; empty: nowhere
  std::string hf_endpoint = "https://huggingface.co";  // where a hub model's bytes are, too
  std::string hf_token;
  std::function<Result<std::vector<std::string>>(const std::filesystem::path& model, BlockRange blocks)>
      needed_tensors;
  std::function<Result<std::unique_ptr<engine::Engine>>(const LoadInstance& load,
                                                        const std::filesystem::path& model,
                                                        const std::string& inbox, MessageSink& sink)>
      make_engine;
};

class Node {
 public:
  // Joins, if it is no member yet: waits for the gateway. PermissionDenied: the token is refused;
  // kUnavailable: nobody reaches this worker, and it may not be relayed.
  static Result<std::unique_ptr<Node>> start(NodeOptions options);
  virtual ~Node() = default;

  virtual const std::string& name() const = 0;
  virtual std::string address() const = 0;  // what it advertises, or "relay:NAME"
  // Asks the gateway to move its sessions elsewhere; ended() follows.
  virtual void drain() = 0;
  // The membership is over: ok after a drain, else why. Once.
  virtual std::future<Status> ended() = 0;
};

}  // namespace tessera::worker
