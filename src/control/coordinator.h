// Coordinator: who is in the cluster, who hosts what, and which way a session goes. It holds leases, carries
// out what placement decides, routes sessions over ready instances and tells SessionManagers what broke. A
// state machine on injected Executor, Clock and ControlSink: no threads, no sockets.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/clock.h"
#include "base/executor.h"
#include "base/lru_map.h"
#include "base/mutex.h"
#include "base/sha256.h"
#include "cluster/session_manager.h"
#include "control/engine_directory.h"
#include "control/placement.h"
#include "control/route_search.h"
#include "core/control_messages.h"

namespace tessera::control {

// Carries control messages to a worker's current stream. Thread-safe; must not block.
class ControlSink {
 public:
  virtual ~ControlSink() = default;
  virtual void send(const std::string& worker, ControlMessage message) = 0;
};

struct CoordinatorOptions {
  std::string gateway = "gateway";
  uint64_t incarnation = 1;  // drawn when the gateway starts
  ProtocolRange protocol;
  std::chrono::milliseconds lease{3000};         // a silent worker is lost after so long
  std::chrono::milliseconds cool_down{10'000};   // a worker that failed is a last resort for so long
  std::chrono::milliseconds load_retry{30'000};  // a worker that could not load a range is asked again
  std::chrono::milliseconds settle{400};         // workers that join together are placed together
  EngineDirectory* engines = nullptr;  // hears of other engines; outlives the coordinator's last task
};

// A model as the gateway serves it.
struct ServedModel {
  ModelShape shape;
  std::string load_options;                       // LoadInstance::load_options
  RowEncoding encoding = RowEncoding::kLossless;  // between workers
  cluster::SessionManager* sessions = nullptr;    // outlives the coordinator's last task
};

// For people and scripts: `tessera status`.
struct InstanceView {
  InstanceReport report;
  bool retiring = false;
};
struct WorkerView {
  std::string name;
  std::string address;
  std::string version;
  std::string state;  // "ready", "loading", "idle", "draining", "cooling", "lost"
  std::string lost_because;
  WorkerCapabilities capabilities;
  std::vector<InstanceView> instances;
  std::vector<LinkReport> links;
  std::optional<EngineReport> engine;  // of a worker that stands for another engine
  int64_t lost_count = 0;
};
struct ModelView {
  std::string name;
  int num_blocks = 0;
  int uncovered = -1;  // first block that no ready instance chain reaches; -1: a route exists
  std::string reason;  // of the plan
  cluster::SessionStats sessions;
  double tokens_per_s = 0;  // of all sessions, over the last seconds
};
struct ClusterView {
  std::vector<WorkerView> workers;
  std::vector<ModelView> models;
  ClusterSnapshot snapshot;  // now
};

// Thread-safe: every public function posts to the executor, which must be the SessionManagers' own, so that
// routers need no lock. The destructor must run when the executor runs nothing more.
class Coordinator {
 public:
  Coordinator(CoordinatorOptions options, ControlSink& sink, Executor& executor, const Clock& clock);
  ~Coordinator();

  // --- models ---
  void add_model(ServedModel model);
  // Its instances are unloaded; its sessions must have ended.
  void remove_model(const std::string& name);
  // The router of a model; may be asked for before add_model(). Lives as long as the coordinator.
  cluster::Router& router(const std::string& model);

  // --- what the workers' streams say; `connection` tells streams of one worker apart ---
  void attach(uint64_t connection, Hello hello);
  void receive(const std::string& worker, uint64_t connection, ControlMessage message);
  void detach(const std::string& worker, uint64_t connection, Status cause);

  // --- what people ask for ---
  // Calls back on the executor: not found, or ok; progress shows in the view.
  void drain(const std::string& worker, std::function<void(Status)> done);
  void view(std::function<void(ClusterView)> done);

 private:
  struct Instance {
    InstanceReport report;
    uint64_t bytes = 0;  // weights and KV
    uint64_t kv_bytes = 0;
    bool retiring = false;   // the plan does without it
    bool moved = false;      // its sessions were told to move
    bool unloading = false;  // UnloadInstance was sent
    int opened = 0;          // sessions and tokens routed here since the last heartbeat
    int64_t opened_tokens = 0;
  };
  struct Member {
    Hello hello;
    uint64_t connection = 0;
    uint64_t lease = 0;
    bool alive = false;
    bool draining = false;
    bool told_to_go = false;  // Drain was sent
    Status lost;
    MonotonicTime last_heard{};
    MonotonicTime cool_until{};
    int64_t lost_count = 0;
    std::map<std::string, Instance> instances;  // by id
    std::vector<LoadInstance> waiting;          // for memory that retiring instances hold
    std::vector<LinkReport> links;              // in order of peers
    double gateway_rtt_s = 0;
  };
  // Ready instances that a route may lead over, and what search_route() reads of them.
  struct Candidates {
    struct Owner {
      const std::string* worker;
      const Member* member;
      const std::string* id;
    };
    std::vector<Owner> owners;
    std::vector<RouteCandidate> costs;
    std::string inbox(size_t index) const { return *owners[index].worker + "/" + *owners[index].id; }
  };
  class ModelRouter;
  struct Model {
    ServedModel served;
    int64_t tokens = 0;  // when they were last counted
    double tokens_per_s = 0;
    std::map<std::string, MonotonicTime> failed_loads;  // worker → when it may be asked again
  };

  void on_attach(uint64_t connection, Hello hello);
  void on_heartbeat(Member& member, Heartbeat heartbeat);
  void tell_engine(const Member& member);
  void lose(const std::string& worker, Status cause);
  void check_leases();
  void count_tokens();
  void ask_for_probes(const std::string& worker);
  void plan_soon(std::chrono::milliseconds delay);
  void plan_now();
  ClusterSnapshot snapshot() const;
  void apply(const Plan& plan);
  void advance();
  bool advance(const std::string& name, Member& member);
  void send_load(const std::string& worker, Member& member, const LoadInstance& load);
  void tell_all_routes_changed();
  bool covered_without_retiring(const Model& model) const;
  Candidates candidates(const std::string& model, const cluster::RouteQuery* query) const;
  void take_links(Member& member, std::vector<LinkReport> links) const;
  double hop_seconds(const std::string& from, const Member& from_member, const std::string& to,
                     const Member& to_member) const;
  Result<cluster::RouteChoice> choose(const std::string& model, const cluster::RouteQuery& query);
  void hop_failed(const std::string& inbox, const Status& cause);
  void cool(Member& member);
  void remember_prefix(const cluster::RouteQuery& query, const std::string& model, const Route& route);
  std::vector<std::string> inboxes_with_prefix(const cluster::RouteQuery& query,
                                               const std::string& model) const;
  ClusterView make_view() const;

  const CoordinatorOptions options_;
  ControlSink& sink_;
  Executor& executor_;
  const Clock& clock_;
  Mutex routers_mutex_;
  std::map<std::string, std::unique_ptr<ModelRouter>> routers_ TESSERA_GUARDED_BY(routers_mutex_);
  // Executor only from here.
  std::map<std::string, Model> models_;
  std::map<std::string, Member> members_;
  std::unordered_map<std::string, std::string> numerics_;  // by inbox, of instances that were ever ready
  // Which inboxes a prompt's beginning went to last: (model, blocks of the prefix) → inboxes.
  LruMap<std::string, std::vector<std::string>> prefixes_{4096};
  Plan plan_;
  uint64_t last_lease_ = 0;
  uint64_t last_instance_ = 0;
  TimerId plan_timer_ = 0;
  bool plan_pending_ = false;
  MonotonicTime plan_due_{};
  TimerId lease_timer_ = 0;
  MonotonicTime counted_at_{};
};

}  // namespace tessera::control
