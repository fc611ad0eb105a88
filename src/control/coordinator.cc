#include "control/coordinator.h"

#include <algorithm>

#include "obs/log.h"

namespace tessera::control {

class Coordinator::ModelRouter final : public cluster::Router {
 public:
  ModelRouter(Coordinator& owner, std::string model) : owner_(owner), model_(std::move(model)) {}
  Result<cluster::RouteChoice> choose(const cluster::RouteQuery& query) override {
    return owner_.choose(model_, query);
  }
  void on_hop_failed(const std::string& inbox, const Status& cause) override {
    owner_.hop_failed(inbox, cause);
  }

 private:
  Coordinator& owner_;
  const std::string model_;
};

Coordinator::Coordinator(CoordinatorOptions options, ControlSink& sink, Executor& executor,
                         const Clock& clock)
    : options_(std::move(options)), sink_(sink), executor_(executor), clock_(clock) {
  executor_.post([this] { check_leases(); });
}

Coordinator::~Coordinator() {
  executor_.cancel(lease_timer_);
  executor_.cancel(plan_timer_);
}

cluster::Router& Coordinator::router(const std::string& model) {
  MutexLock lock(routers_mutex_);
  auto& router = routers_[model];
  if (router == nullptr) router = std::make_unique<ModelRouter>(*this, model);
  return *router;
}

void Coordinator::add_model(ServedModel model) {
  executor_.post([this, model = std::move(model)] {
    Model& entry = models_[model.shape.name];
    entry = Model();
    entry.served = model;
    if (model.sessions != nullptr) entry.tokens = model.sessions->stats().tokens;
    plan_soon(std::chrono::milliseconds(0));
  });
}

void Coordinator::remove_model(const std::string& name) {
  executor_.post([this, name] {
    if (models_.erase(name) > 0) plan_soon(std::chrono::milliseconds(0));
  });
}

void Coordinator::attach(uint64_t connection, Hello hello) {
  executor_.post([this, connection, hello = std::move(hello)] { on_attach(connection, hello); });
}

void Coordinator::receive(const std::string& worker, uint64_t connection, ControlMessage message) {
  executor_.post([this, worker, connection, message = std::move(message)] {
    auto found = members_.find(worker);
    if (found == members_.end() || found->second.connection != connection) return;
    if (const auto* heartbeat = std::get_if<Heartbeat>(&message)) on_heartbeat(found->second, *heartbeat);
  });
}

void Coordinator::detach(const std::string& worker, uint64_t connection, Status cause) {
  executor_.post([this, worker, connection, cause = std::move(cause)] {
    auto found = members_.find(worker);
    if (found == members_.end() || found->second.connection != connection) return;
    lose(worker, cause);
    if (found->second.hello.engine && found->second.told_to_go && options_.engines != nullptr)
      options_.engines->engine_lost(worker, cause, true);
    // A worker that was asked to go, and has gone, is no member any more.
    if (found->second.told_to_go) members_.erase(found);
  });
}

void Coordinator::drain(const std::string& worker, std::function<void(Status)> done) {
  executor_.post([this, worker, done = std::move(done)] {
    auto found = members_.find(worker);
    if (found == members_.end() || !found->second.alive) {
      done(not_found("no worker named " + worker + " is in the cluster; `tessera status` lists them"));
      return;
    }
    found->second.draining = true;
    obs::log_info("cluster", "a worker drains", {{"worker", worker}});
    tell_engine(found->second);
    plan_now();
    done(Status());
  });
}

void Coordinator::view(std::function<void(ClusterView)> done) {
  executor_.post([this, done = std::move(done)] { done(make_view()); });
}

// --- membership
// ------------------------------------------------------------------------------------------------------

void Coordinator::on_attach(uint64_t connection, Hello hello) {
  const std::string worker = hello.worker;
  if (hello.protocol.lowest > options_.protocol.highest ||
      hello.protocol.highest < options_.protocol.lowest) {
    auto range = [](const ProtocolRange& r) {
      return std::to_string(r.lowest) + " to " + std::to_string(r.highest);
    };
    sink_.send(worker, Goodbye{"this gateway speaks protocol versions " + range(options_.protocol) +
                                   ", the worker (tessera " + hello.version + ") speaks " +
                                   range(hello.protocol) + ": install the same version of tessera on both",
                               true});
    return;
  }
  Member& member = members_[worker];
  const bool restarted = member.connection != 0 && member.hello.incarnation != hello.incarnation;
  if (member.alive) lose(worker, unavailable(restarted ? "it restarted" : "it connected again"));
  if (restarted) {
    member.instances.clear();
    member.waiting.clear();
    member.draining = false;
    for (auto& [name, model] : models_) model.failed_loads.erase(worker);
  }
  member.connection = connection;
  member.lease = ++last_lease_;
  member.alive = true;
  member.lost = Status();
  member.last_heard = clock_.now();
  take_links(member, {});
  // What it hosts already goes on: after a gateway's restart, too.
  std::map<std::string, Instance> kept;
  for (const InstanceReport& report : hello.instances) {
    Instance instance;
    if (auto known = member.instances.find(report.id); known != member.instances.end())
      instance = known->second;
    instance.report = report;
    if (report.state == InstanceState::kReady) numerics_[worker + "/" + report.id] = report.numerics;
    if (auto model = models_.find(report.model); model != models_.end() && instance.bytes == 0) {
      instance.kv_bytes = static_cast<uint64_t>(report.kv_tokens) *
                          model->second.served.shape.kv_bytes_per_token *
                          static_cast<uint64_t>(report.blocks.size());
      instance.bytes = weight_bytes(model->second.served.shape, report.blocks) + instance.kv_bytes;
    }
    kept[report.id] = instance;
  }
  member.instances = std::move(kept);
  member.hello = std::move(hello);
  sink_.send(worker, Welcome{options_.protocol, options_.gateway, options_.incarnation, member.lease,
                             static_cast<int>(options_.lease.count())});
  obs::log_info("cluster", "a worker joined",
                {{"worker", worker}, {"device", member.hello.capabilities.device}, {"lease", member.lease}});
  tell_engine(member);
  for (auto& [name, model] : models_)
    if (model.served.sessions != nullptr) model.served.sessions->worker_back(worker);
  ask_for_probes(worker);
  plan_soon(options_.settle);
  advance();
  tell_all_routes_changed();
}

void Coordinator::tell_engine(const Member& member) {
  if (member.hello.engine && options_.engines != nullptr)
    options_.engines->engine_reported(member.hello.worker, *member.hello.engine, member.draining);
}

// The new worker measures its way to the others, as many as tell placement something.
void Coordinator::ask_for_probes(const std::string& worker) {
  constexpr int kProbes = 16;
  int asked = 0;
  for (const auto& [name, other] : members_) {
    if (name == worker || !other.alive || other.hello.address.empty()) continue;
    if (++asked > kProbes) break;
    sink_.send(worker, ProbePeer{name, other.hello.address});
  }
}

void Coordinator::on_heartbeat(Member& member, Heartbeat heartbeat) {
  const std::string& worker = member.hello.worker;
  if (heartbeat.lease != member.lease || !member.alive) {
    // Its lease ran out, or another one began: what it says of sessions is void (I5).
    sink_.send(worker, Goodbye{"the lease ended; join again", false});
    return;
  }
  member.last_heard = clock_.now();
  take_links(member, std::move(heartbeat.links));
  sink_.send(worker, HeartbeatAck{heartbeat.number});
  if (heartbeat.draining && !member.draining) {
    member.draining = true;
    plan_soon(std::chrono::milliseconds(0));
  }
  if (member.hello.engine && heartbeat.engine) member.hello.engine = std::move(heartbeat.engine);
  tell_engine(member);
  bool changed = false;
  bool failed = false;
  std::set<std::string> reported;
  for (InstanceReport& report : heartbeat.instances) {
    reported.insert(report.id);
    auto found = member.instances.find(report.id);
    if (found == member.instances.end()) {
      if (report.state != InstanceState::kUnloaded) sink_.send(worker, UnloadInstance{report.id});
      continue;
    }
    Instance& instance = found->second;
    if (report.model != instance.report.model || report.blocks != instance.report.blocks) {
      // Not what it was asked for: no session may rely on it.
      report.state = InstanceState::kFailed;
      report.error = "it reports other blocks than it was given";
      report.model = instance.report.model;
    }
    changed |= instance.report.state != report.state;
    instance.opened = 0;
    instance.opened_tokens = 0;
    if (report.state == InstanceState::kReady) numerics_[worker + "/" + report.id] = report.numerics;
    instance.report = std::move(report);
    if (instance.report.state == InstanceState::kFailed) {
      obs::log_warn("cluster", "a worker could not load a block range",
                    {{"worker", worker}, {"model", instance.report.model}, {"error", instance.report.error}});
      if (auto model = models_.find(instance.report.model); model != models_.end())
        model->second.failed_loads[worker] = clock_.now() + options_.load_retry;
      sink_.send(worker, UnloadInstance{instance.report.id});
      member.instances.erase(found);
      failed = true;
    } else if (instance.report.state == InstanceState::kUnloaded) {
      member.instances.erase(found);
      changed = true;
    }
  }
  // What it no longer speaks of is gone.
  for (auto it = member.instances.begin(); it != member.instances.end();) {
    const bool gone = it->second.unloading && reported.count(it->first) == 0;
    changed |= gone;
    it = gone ? member.instances.erase(it) : std::next(it);
  }
  if (failed) plan_soon(options_.settle);
  // What others wait for changes only when an instance here does: most heartbeats concern this worker alone.
  if (changed || failed)
    advance();
  else
    changed = advance(worker, member);
  if (changed) tell_all_routes_changed();
}

void Coordinator::lose(const std::string& worker, Status cause) {
  Member& member = members_.at(worker);
  if (!member.alive) return;
  member.alive = false;
  member.lost = cause;
  ++member.lost_count;
  cool(member);
  member.waiting.clear();
  obs::log_warn("cluster", "a worker was lost", {{"worker", worker}, {"cause", cause.message()}});
  if (member.hello.engine && options_.engines != nullptr) options_.engines->engine_lost(worker, cause, false);
  for (auto& [name, model] : models_)
    if (model.served.sessions != nullptr) model.served.sessions->worker_lost(worker, cause);
  plan_soon(std::chrono::milliseconds(0));
}

void Coordinator::cool(Member& member) {
  member.cool_until = clock_.now() + options_.cool_down;
}

void Coordinator::count_tokens() {
  const MonotonicTime now = clock_.now();
  const double seconds = std::chrono::duration<double>(now - counted_at_).count();
  for (auto& [name, model] : models_) {
    if (model.served.sessions == nullptr) continue;
    const int64_t tokens = model.served.sessions->stats().tokens;
    const double rate = seconds > 0 ? static_cast<double>(tokens - model.tokens) / seconds : 0;
    model.tokens_per_s = 0.7 * model.tokens_per_s + 0.3 * rate;
    model.tokens = tokens;
  }
  counted_at_ = now;
}

void Coordinator::check_leases() {
  count_tokens();
  std::vector<std::string> silent;
  for (const auto& [name, member] : members_)
    if (member.alive && clock_.now() - member.last_heard > options_.lease) silent.push_back(name);
  for (const std::string& worker : silent) {
    const auto ms =
        std::chrono::duration_cast<std::chrono::milliseconds>(clock_.now() - members_.at(worker).last_heard);
    lose(worker, deadline_exceeded("it was silent for " + std::to_string(ms.count()) + " ms"));
    sink_.send(worker, Goodbye{"the lease ended; join again", false});
  }
  // What failed may have been the network's fault, or the disk's: it is tried again, but not again and again.
  size_t forgiven = 0;
  for (auto& [name, model] : models_)
    forgiven += std::erase_if(model.failed_loads,
                              [now = clock_.now()](const auto& entry) { return entry.second <= now; });
  if (forgiven > 0) plan_soon(std::chrono::milliseconds(0));
  lease_timer_ = executor_.post_after(options_.lease / 6, [this] { check_leases(); });
}

// A session met trouble there; the worker may still be alive.
void Coordinator::hop_failed(const std::string& inbox, const Status& cause) {
  auto found = members_.find(inbox.substr(0, inbox.find('/')));
  if (found == members_.end()) return;
  if (clock_.now() >= found->second.cool_until)
    obs::log_warn("cluster", "sessions cannot use a worker", {{"worker", inbox}, {"cause", cause.message()}});
  cool(found->second);
}

// --- placement
// -------------------------------------------------------------------------------------------------------

void Coordinator::plan_soon(std::chrono::milliseconds delay) {
  const MonotonicTime due = clock_.now() + delay;
  if (plan_pending_ && plan_due_ <= due) return;
  if (plan_pending_) executor_.cancel(plan_timer_);
  plan_pending_ = true;
  plan_due_ = due;
  plan_timer_ = executor_.post_after(delay, [this] { plan_now(); });
}

ClusterSnapshot Coordinator::snapshot() const {
  ClusterSnapshot snapshot;
  for (const auto& [name, model] : models_) snapshot.models.push_back(model.served.shape);
  const MonotonicTime now = clock_.now();
  for (const auto& [name, member] : members_) {
    if (!member.alive || member.hello.engine) continue;  // another engine takes no blocks
    WorkerSnapshot worker;
    worker.name = name;
    worker.capabilities = member.hello.capabilities;
    worker.accepts = !member.draining;
    // A worker that failed a moment ago hosts nothing new while others can.
    if (now < member.cool_until && member.instances.empty() && !member.lost.ok()) worker.accepts = false;
    for (const auto& [id, instance] : member.instances) {
      if (instance.unloading) continue;
      worker.hosted.push_back({id, instance.report.model, instance.report.blocks,
                               instance.report.state == InstanceState::kReady, instance.kv_bytes,
                               instance.report.decode_step_s, instance.report.prefill_token_s});
    }
    worker.gateway_rtt_s = member.gateway_rtt_s;
    for (const LinkReport& link : member.links) {
      if (link.peer != kGatewayPeer) snapshot.links[{name, link.peer}] = {link.rtt_s, link.bytes_per_s};
    }
    snapshot.workers.push_back(std::move(worker));
  }
  return snapshot;
}

void Coordinator::plan_now() {
  if (plan_pending_) executor_.cancel(plan_timer_);
  plan_pending_ = false;
  plan_ = place(snapshot());
  apply(plan_);
  advance();
  tell_all_routes_changed();
}

// Instances that the plan keeps stay, new ones are asked for, the rest retires.
void Coordinator::apply(const Plan& plan) {
  std::set<std::pair<std::string, std::string>> kept;
  for (const Assignment& a : plan.assignments)
    if (!a.existing_id.empty()) kept.emplace(a.worker, a.existing_id);
  for (auto& [name, member] : members_) {
    for (auto& [id, instance] : member.instances) {
      // Of a worker that drains nothing is kept; what it hosts serves until others do.
      const bool keep = !member.draining && kept.count({name, id}) > 0;
      if (!keep && !instance.retiring)
        obs::log_info("cluster", "a block range is given up",
                      {{"worker", name},
                       {"model", instance.report.model},
                       {"first", instance.report.blocks.first},
                       {"last", instance.report.blocks.last}});
      instance.retiring = !keep;
      if (keep) instance.moved = false;
    }
    member.waiting.clear();
  }
  for (const Assignment& a : plan.assignments) {
    auto member = members_.find(a.worker);
    auto model = models_.find(a.model);
    if (!a.existing_id.empty() || member == members_.end() || model == models_.end()) continue;
    if (model->second.failed_loads.count(a.worker) > 0) continue;
    LoadInstance load;
    load.id = "i" + std::to_string(++last_instance_) + "-" + std::to_string(member->second.lease);
    load.model = a.model;
    load.blocks = a.blocks;
    load.kv_bytes = a.kv_bytes;
    load.context_length = model->second.served.shape.context_length;
    load.load_options = model->second.served.load_options;
    member->second.waiting.push_back(std::move(load));
  }
}

// Takes every step that memory and running sessions allow by now.
void Coordinator::advance() {
  bool changed = false;
  for (auto& [name, member] : members_) changed |= advance(name, member);
  if (changed) tell_all_routes_changed();
}

bool Coordinator::advance(const std::string& name, Member& member) {
  if (!member.alive) return false;
  bool changed = false;
  const bool memory_wanted = !member.waiting.empty();
  for (auto& [id, instance] : member.instances) {
    if (!instance.retiring || instance.unloading) continue;
    auto model = models_.find(instance.report.model);
    const bool needless = model == models_.end() || instance.report.state != InstanceState::kReady ||
                          covered_without_retiring(model->second);
    if (!needless && !memory_wanted) continue;
    if (model != models_.end() && model->second.served.sessions != nullptr && !instance.moved) {
      instance.moved = true;
      model->second.served.sessions->move_away(name + "/" + id);
      continue;  // the next heartbeat says who is left
    }
    if (instance.report.running > 0 && needless && model != models_.end()) {
      model->second.served.sessions->move_away(name + "/" + id);
      continue;
    }
    instance.unloading = true;
    sink_.send(name, UnloadInstance{id});
    changed = true;
  }
  uint64_t used = 0;
  for (const auto& [id, instance] : member.instances) used += instance.bytes;
  while (!member.waiting.empty()) {
    const LoadInstance load = member.waiting.front();
    auto model = models_.find(load.model);
    if (model == models_.end()) {
      member.waiting.erase(member.waiting.begin());
      continue;
    }
    const uint64_t bytes = weight_bytes(model->second.served.shape, load.blocks) + load.kv_bytes;
    const bool must_wait = used + bytes > member.hello.capabilities.memory_bytes &&
                           std::any_of(member.instances.begin(), member.instances.end(),
                                       [](const auto& entry) { return entry.second.retiring; });
    if (must_wait) break;
    used += bytes;
    member.waiting.erase(member.waiting.begin());
    send_load(name, member, load);
  }
  if (member.draining && member.instances.empty() && member.waiting.empty() && !member.told_to_go) {
    member.told_to_go = true;
    sink_.send(name, Drain{});
  }
  return changed;
}

void Coordinator::send_load(const std::string& worker, Member& member, const LoadInstance& load) {
  Instance instance;
  instance.report.id = load.id;
  instance.report.model = load.model;
  instance.report.blocks = load.blocks;
  instance.kv_bytes = load.kv_bytes;
  instance.bytes = weight_bytes(models_.at(load.model).served.shape, load.blocks) + load.kv_bytes;
  member.instances[load.id] = instance;
  LoadInstance message = load;
  // Peers that hold some of these tensors, the nearest first.
  std::vector<std::pair<double, std::string>> peers;
  for (const auto& [name, other] : members_) {
    if (name == worker || !other.alive || other.hello.address.empty()) continue;
    for (const auto& [id, hosted] : other.instances)
      if (hosted.report.model == load.model && hosted.report.state == InstanceState::kReady &&
          hosted.report.blocks.first < load.blocks.last && load.blocks.first < hosted.report.blocks.last) {
        peers.emplace_back(hop_seconds(worker, member, name, other), name + "=" + other.hello.address);
        break;
      }
  }
  std::sort(peers.begin(), peers.end());
  for (size_t i = 0; i < std::min<size_t>(peers.size(), 4); ++i) message.peers.push_back(peers[i].second);
  obs::log_info(
      "cluster", "a block range is placed",
      {{"worker", worker}, {"model", load.model}, {"first", load.blocks.first}, {"last", load.blocks.last}});
  sink_.send(worker, std::move(message));
}

void Coordinator::tell_all_routes_changed() {
  for (auto& [name, model] : models_)
    if (model.served.sessions != nullptr) model.served.sessions->routes_changed();
}

bool Coordinator::covered_without_retiring(const Model& model) const {
  const Candidates all = candidates(model.served.shape.name, nullptr);
  return !cheapest_chain(all.costs, model.served.shape.num_blocks, [](size_t, size_t) {
            return 0.0;
          }).empty();
}

}  // namespace tessera::control
