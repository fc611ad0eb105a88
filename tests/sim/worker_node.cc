#include "sim/worker_node.h"

#include <algorithm>

#include "sim/gateway_node.h"

namespace tessera::sim {

using namespace std::chrono_literals;

// An engine that takes simulated time for its steps.
class WorkerNode::Instance final : public MessageSink, public std::enable_shared_from_this<Instance> {
 public:
  Instance(WorkerNode& owner, LoadInstance load) : owner_(owner), load_(std::move(load)) {
    report_.id = load_.id;
    report_.model = load_.model;
    report_.blocks = load_.blocks;
    report_.state = InstanceState::kFetching;
  }
  ~Instance() override { stop(); }

  Status open_engine() {
    const engine::toy::ToyOptions& toy = owner_.world_.models.at(load_.model);
    engine::EngineOptions options;
    options.worker_name = owner_.spec_.name;
    options.model_identity = load_.model;
    options.kv_memory_bytes = load_.kv_bytes;
    options.context_length = load_.context_length;
    options.max_batch_tokens = 32;
    options.max_sequences = 64;
    options.output_memory_bytes = owner_.spec_.output_bytes;
    options.queue_capacity = owner_.spec_.queue_capacity;
    auto engine =
        engine::Engine::create(std::make_unique<engine::toy::ToyModel>(toy, load_.blocks),
                               std::make_unique<engine::toy::ToyBackend>(), options, *this, nullptr);
    TESSERA_RETURN_IF_ERROR(engine.status());
    engine_ = std::move(engine).value();
    report_.numerics = engine_->numerics().to_string();
    report_.kv_tokens = engine_->stats().kv_total * kKvBlockTokens;
    return {};
  }
  // What it still says on the way out is sent.
  void stop() {
    if (engine_ == nullptr) return;
    engine_->stop();
    engine_.reset();
    flush();
  }
  bool deliver(Message message) {
    if (engine_ == nullptr || !engine_->post(std::move(message))) return false;
    step_soon(Time(0));
    return true;
  }
  void send(const std::string& to, Message message) override { out_.emplace_back(to, std::move(message)); }

  engine::Engine* engine() const { return engine_.get(); }
  const LoadInstance& load() const { return load_; }
  InstanceReport report() const {
    InstanceReport report = report_;
    if (engine_ == nullptr) return report;
    const engine::EngineStats stats = engine_->stats();
    report.kv_tokens_free = (stats.kv_free + stats.kv_cached) * kKvBlockTokens;
    report.running = static_cast<int>(stats.running);
    report.tokens_replayed = stats.replayed_tokens;
    report.tokens_recomputed = stats.recomputed_tokens;
    return report;
  }
  void set_state(InstanceState state, std::string error = {}) {
    report_.state = state;
    report_.error = std::move(error);
  }

 private:
  void step_soon(Time delay) {
    if (scheduled_) return;
    scheduled_ = true;
    owner_.world_.queue.after(delay, owner_.process_, [weak = weak_from_this()] {
      if (auto self = weak.lock()) self->step();
    });
  }
  // Results are known when the step began and leave when its time is over.
  void step() {
    scheduled_ = false;
    flush();
    if (engine_ == nullptr) return;
    const int64_t steps = engine_->stats().steps;
    if (!engine_->run_once() && out_.empty()) return;
    const engine::EngineStats stats = engine_->stats();
    const int64_t rows = stats.steps > steps ? stats.last_batch_rows : 0;
    step_soon(20us + owner_.spec_.row_time * (rows * load_.blocks.size()));
  }
  void flush() {
    for (auto& [to, message] : std::exchange(out_, {}))
      owner_.wire_.send(
          to, owner_.spec_.lie == Lie::kNone ? std::move(message) : owner_.spoil(std::move(message)));
  }

  WorkerNode& owner_;
  const LoadInstance load_;
  InstanceReport report_;
  std::unique_ptr<engine::Engine> engine_;
  std::vector<std::pair<std::string, Message>> out_;
  bool scheduled_ = false;
};

WorkerNode::WorkerNode(World& world, const WorkerSpec& spec)
    : world_(world),
      spec_(spec),
      process_(world.start_process(spec.name)),
      executor_(world.queue, process_),
      wire_(world, process_, [this](const std::string& inbox, Message message) {
        return receive(inbox, std::move(message));
      }) {
  cluster::WorkerMemberOptions options;
  options.worker = spec.name;
  options.incarnation = ++world.last_incarnation;
  options.version = "sim";
  options.address = spec.name + ":1";
  options.capabilities = spec.capabilities;
  options.orphan_timeout = 20s;
  member_ = std::make_unique<cluster::WorkerMember>(options, *this, *this, executor_, world.queue,
                                                    [this](Status status) {
                                                      left_ = true;
                                                      world_.somebody_left = true;
                                                      left_because_ = std::move(status);
                                                    });
  dial(Time(0));
  if (spec_.lie == Lie::kForge) misbehave();
}

WorkerNode::~WorkerNode() {
  world_.net.stop(process_);
  instances_.clear();
}

bool WorkerNode::receive(const std::string& inbox, Message message) {
  const size_t slash = inbox.find('/');
  if (slash == std::string::npos) return false;
  const std::string id = inbox.substr(slash + 1);
  auto found = instances_.find(id);
  if (found == instances_.end()) return false;
  if (const auto* open = std::get_if<OpenSession>(&message))
    open_[id][open->session] = {open->gateway, open->epoch, open->hop};
  if (const auto* close = std::get_if<CloseSession>(&message))
    if (auto here = open_[id].find(close->session);
        here != open_[id].end() && here->second.epoch <= close->epoch)
      open_[id].erase(here);
  return found->second->deliver(std::move(message));
}

// --- what it hosts ---------------------------------------------------------------------------------------

uint64_t WorkerNode::bytes_in_use() const {
  uint64_t bytes = 0;
  for (const auto& [id, instance] : instances_) {
    const LoadInstance& load = instance->load();
    bytes += kBlockBytes * static_cast<uint64_t>(load.blocks.size()) + load.kv_bytes;
  }
  return bytes;
}

void WorkerNode::load(const LoadInstance& load) {
  if (instances_.count(load.id) > 0) return;
  instances_[load.id] = std::make_shared<Instance>(*this, load);
  const double seconds =
      static_cast<double>(kBlockBytes) * load.blocks.size() / std::max(spec_.disk_bytes_per_s, 1.0);
  executor_.post_after(Time(static_cast<int64_t>(seconds * 1e9)), [this, id = load.id] { finish_load(id); });
}

void WorkerNode::finish_load(const std::string& id) {
  auto found = instances_.find(id);
  if (found == instances_.end()) return;
  Instance& instance = *found->second;
  Status status = bytes_in_use() > spec_.capabilities.memory_bytes
                      ? resource_exhausted("the worker has no memory for this block range")
                      : instance.open_engine();
  if (status.ok())
    instance.set_state(InstanceState::kReady);
  else
    instance.set_state(InstanceState::kFailed, status.message());
  member_->instances_changed();
}

void WorkerNode::unload(const std::string& id) {
  auto found = instances_.find(id);
  if (found == instances_.end()) return;
  found->second->stop();
  instances_.erase(found);
  open_.erase(id);
  member_->instances_changed();
}

void WorkerNode::forget_sessions(const std::string& gateway) {
  for (auto& [id, sessions] : open_) {
    auto instance = instances_.find(id);
    if (instance == instances_.end()) continue;
    std::erase_if(sessions, [&](const auto& entry) {
      const auto& [session, here] = entry;
      if (node_of(here.gateway) != gateway) return false;
      instance->second->deliver(CloseSession{session, here.epoch});
      wire_.send(here.gateway, Failed{session, here.epoch, here.hop,
                                      unavailable("the worker forgot the sessions of a gateway")});
      return true;
    });
  }
}

std::vector<InstanceReport> WorkerNode::reports() const {
  std::vector<InstanceReport> reports;
  for (const auto& [id, instance] : instances_) {
    reports.push_back(instance->report());
    InstanceReport& report = reports.back();
    if (spec_.lie == Lie::kRange && report.state == InstanceState::kReady)
      report.blocks =
          report.blocks.first > 0 ? BlockRange{0, report.blocks.last} : BlockRange{0, report.blocks.last + 1};
  }
  return reports;
}

std::vector<LinkReport> WorkerNode::links() const {
  std::vector<LinkReport> links;
  for (const std::string& peer : probed_) {
    const LinkProfile &there = world_.net.link(spec_.name, peer), &back = world_.net.link(peer, spec_.name);
    links.push_back(
        {peer, std::chrono::duration<double>(there.latency + back.latency).count(), there.bytes_per_s});
  }
  return links;
}

WorkerNode::Counts WorkerNode::counts() const {
  Counts counts;
  for (const auto& [id, instance] : instances_) {
    if (instance->engine() == nullptr) continue;
    const engine::EngineStats stats = instance->engine()->stats();
    counts.running += stats.running;
    counts.kv_used += stats.kv_used;
    counts.kv_missing += stats.kv_total - stats.kv_free - stats.kv_cached - stats.kv_used;
    counts.recomputed += stats.recomputed_tokens;
    counts.replayed += stats.replayed_tokens;
    counts.preempted += stats.preemptions;
  }
  return counts;
}

std::string WorkerNode::describe() const {
  std::string text = spec_.name + ":";
  for (const auto& [id, instance] : instances_) {
    const InstanceReport report = instance->report();
    text += " " + id + "=" + report.model + " " + std::to_string(report.blocks.first) + ":" +
            std::to_string(report.blocks.last) + " state " + std::to_string(static_cast<int>(report.state)) +
            " running " + std::to_string(report.running) + " kv " + std::to_string(report.kv_tokens_free) +
            "/" + std::to_string(report.kv_tokens);
  }
  return text;
}

// --- control stream ----------------------------------------------------------------------------------------

void WorkerNode::dial(Time delay) {
  if (dialling_ || left_) return;
  dialling_ = true;
  executor_.post_after(delay, [this] {
    dialling_ = false;
    if (left_) return;
    const Channel connection = ++world_.last_connection;
    connection_ = connection;
    send(member_->hello());
  });
}

void WorkerNode::send(ControlMessage message) {
  if (connection_ == 0) return;
  const Channel connection = connection_;
  world_.net.send(
      process_, kGatewayNode, connection, 400,
      [&world = world_, name = spec_.name, connection, message = std::move(message)] {
        if (GatewayNode* gateway = GatewayNode::current(world))
          gateway->control_arrived(name, connection, message);
      },
      [this, connection] { stream_broken(connection); });
}

void WorkerNode::stream_broken(Channel connection) {
  if (connection != connection_) return;
  connection_ = 0;
  member_->disconnected();
  dial(world_.random.between(50ms, 250ms));
}

void WorkerNode::reconnect() {
  const Channel old = std::exchange(connection_, 0);
  if (const ProcessRef gateway = world_.net.process(kGatewayNode); gateway != nullptr && old != 0)
    world_.net.close(process_, gateway, old);
  dial(50ms);
}

void WorkerNode::control_arrived(Channel connection, const ControlMessage& message) {
  if (connection == connection_) member_->receive(message);
}

// --- lies --------------------------------------------------------------------------------------------------

// Speaks to sessions that were never opened here, and of routes that are over.
void WorkerNode::misbehave() {
  executor_.post_after(world_.random.between(5ms, 40ms), [this] {
    Random& random = world_.random;
    const GatewayNode* gateway = GatewayNode::current(world_);
    if (gateway != nullptr) {
      const SessionId session = gateway->first_session() + static_cast<SessionId>(random.pick(0, 12));
      Token forged;
      forged.session = session;
      forged.epoch = std::max<Epoch>(world_.checker.current_epoch(session), 1);
      forged.position = static_cast<int>(random.pick(1, 100));
      forged.sampled.token = 5;
      forged.ticket = kForgedTicket;
      forged.finish = random.chance(30) ? FinishReason::kStop : FinishReason::kNone;
      for (const std::string& inbox : gateway->inboxes()) wire_.send(inbox, forged);
      if (!sent_tokens_.empty())
        for (const std::string& inbox : gateway->inboxes()) wire_.send(inbox, random.one_of(sent_tokens_));
      Rows rows;
      rows.session = session;
      rows.epoch = forged.epoch;
      rows.start = forged.position;
      rows.tokens = {5};
      rows.hidden.assign(engine::toy::kHidden, 1.0f);
      rows.ticket = kForgedTicket;
      for (const std::string& inbox : gateway->known_instances()) {
        wire_.send(inbox, rows);
        wire_.send(inbox, forged);
      }
    }
    misbehave();
  });
}

Message WorkerNode::spoil(Message message) {
  if (spec_.lie == Lie::kForge)
    if (const auto* token = std::get_if<Token>(&message)) sent_tokens_.push_back(*token);
  if (spec_.lie != Lie::kGarbage || !world_.random.chance(10)) return message;
  const int64_t how = world_.random.pick(0, 3);
  if (auto* rows = std::get_if<Rows>(&message)) {
    if (how == 0) rows->hidden.resize(rows->hidden.size() / 2);
    if (how == 1) rows->start = static_cast<int>(world_.random.pick(-1'000'000, 1'000'000));
    if (how == 2) rows->tokens.assign(rows->tokens.size(), -7);
    if (how == 3) rows->tokens.clear();
  } else if (auto* opened = std::get_if<Opened>(&message)) {
    if (how == 0) opened->hop = 99;
    if (how == 1) opened->cached_tokens = 1 << 30;
    if (how == 2) opened->outputs_from = -5;
    if (how == 3) opened->cached_tokens = -1;
  } else if (auto* token = std::get_if<Token>(&message)) {
    if (how == 0) token->position = -3;
    if (how == 1) token->position += 1'000'000;
  }
  return message;
}

}  // namespace tessera::sim
