// ClusterGateway: the gateway of a cluster of workers: the control port, who may join, who hosts what, and
// the sessions of every model that it serves. HTTP is in front of it (HttpFront, ClusterRoutes).
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "checkpoint/source.h"
#include "cluster/session_manager.h"
#include "control/coordinator.h"
#include "control/identities.h"
#include "store/database.h"
#include "wire/relay.h"

namespace tessera::gateway {

class EngineHub;

struct ClusterGatewayOptions {
  std::filesystem::path home;           // TESSERA_HOME: tls/, state/
  std::string database_url;             // PostgreSQL; empty: SQLite in state/
  std::string listen = "0.0.0.0:8443";  // control port
  std::string advertise;                // "HOST[:PORT],…" of the join command; empty: this machine's name
  std::string version;
  std::chrono::milliseconds lease{3000};
  std::chrono::seconds token_life{24 * 3600};
  std::chrono::milliseconds failover_timeout{60'000};
  EngineHub* engines = nullptr;  // where other engines' workers belong; outlives the gateway
  std::chrono::seconds certificate_life{30 * 24 * 3600};  // of workers and of the gateway itself; all renew
};

// A model that workers shall host.
struct ClusterModel {
  control::ModelShape shape;
  std::shared_ptr<const checkpoint::Source> source;
  std::string origin;        // on a hub, else empty
  std::string load_options;  // LoadInstance::load_options
  RowEncoding encoding = RowEncoding::kLossless;
  TokenId probe_token = 0;
};

// Thread-safe.
class ClusterGateway {
 public:
  static Result<std::unique_ptr<ClusterGateway>> start(ClusterGatewayOptions options);
  virtual ~ClusterGateway() = default;

  // "tessera://HOST:PORT/TOKEN" with a new token. Rotating revokes all older ones.
  virtual Result<std::string> make_join_url(bool rotate) = 0;
  virtual int control_port() const = 0;
  virtual wire::RelayStats relay_stats() const = 0;

  // The sessions of the model from now on; they stay valid until the gateway ends.
  virtual cluster::SessionManager& add_model(ClusterModel model) = 0;
  virtual void remove_model(const std::string& name) = 0;
  // A real token over every hop of every model. NotFound: no model is loaded.
  virtual void probe(std::function<void(Status)> done) = 0;

  // Up to `most` sessions of each model, by model; where the time of a session's next steps goes
  // (SessionManager::trace). Called back on the sessions' executor.
  using Sessions = std::vector<std::pair<std::string, std::vector<cluster::SessionView>>>;
  virtual void list_sessions(size_t most, std::function<void(Sessions)> done) = 0;
  virtual void trace(SessionId session, int steps, cluster::TraceCollector::Done done) = 0;

  // Returns when what the sessions were asked before is done: a cancelled one is silent from then on.
  virtual void settle() = 0;

  virtual control::Coordinator& coordinator() = 0;
  virtual control::Identities& identities() = 0;
  virtual store::Database& database() = 0;
};

}  // namespace tessera::gateway
