#include "sim/gateway_node.h"

namespace tessera::sim {

using namespace std::chrono_literals;

// What the client hears of one attempt.
class GatewayNode::Stream final : public cluster::SessionObserver {
 public:
  Stream(World& world, ClientRequest& client) : world_(world), client_(client) {}
  void begin(SessionId session) { session_ = session; }
  void on_started(int) override { world_.trace.add(session_); }
  void on_inexact(const std::string& reason) override {
    world_.checker.violation("request " + std::to_string(client_.number) + " became inexact: " + reason);
  }
  void on_token(const Token& token) override {
    if (!world_.mutation.stream) {
      world_.checker.heard(client_, session_, token);
      return;
    }
    std::vector<Token> out;
    world_.mutation.stream(token, out);
    for (const Token& changed : out) world_.checker.heard(client_, session_, changed);
  }
  void on_failed(const Status& reason) override {
    world_.trace.add(reason.message());
    world_.checker.failed(client_, session_, reason);
  }

 private:
  World& world_;
  ClientRequest& client_;
  SessionId session_ = 0;
};

struct GatewayNode::Model {
  Model(const std::string& name, cluster::SessionManagerOptions options, GatewayNode& owner)
      : sessions(std::move(options), owner.wire_, owner.executor_, owner.coordinator_->router(name)) {}
  cluster::SessionManager sessions;
};

GatewayNode::GatewayNode(World& world, const GatewaySpec& spec)
    : world_(world),
      spec_(spec),
      process_(world.start_process(kGatewayNode)),
      executor_(world.queue, process_),
      wire_(world, process_, [this](const std::string& inbox, Message message) {
        const size_t slash = inbox.find('/');
        auto found = slash == std::string::npos ? models_.end() : models_.find(inbox.substr(slash + 1));
        return found != models_.end() && found->second->sessions.deliver(std::move(message));
      }) {
  control::CoordinatorOptions options;
  options.gateway = kGatewayNode;
  options.incarnation = ++world.last_incarnation;
  options.lease = spec.lease;
  options.cool_down = 3s;
  options.settle = 100ms;
  first_session_ = options.incarnation * 1'000'000;
  coordinator_ = std::make_unique<control::Coordinator>(options, *this, executor_, world.queue);
}

GatewayNode::~GatewayNode() {
  world_.net.stop(process_);
}

GatewayNode* GatewayNode::current(const World& world) {
  // The cluster keeps it where the world finds it.
  return world.gateway;
}

void GatewayNode::add_model(const std::string& name, double demand) {
  const engine::toy::ToyOptions& toy = world_.models.at(name);
  cluster::SessionManagerOptions options;
  options.name = std::string(kGatewayNode) + "/" + name;
  options.max_waiting = spec_.max_waiting;
  options.open_timeout = 4s;
  options.token_timeout = spec_.token_timeout;
  options.wait_timeout = 120s;
  options.failover_timeout = spec_.failover_timeout;
  options.first_id = first_session_ + 10'000 * models_.size() + 100'000 * retired_.size();
  options.wait_for_route = true;
  options.clock = &world_.queue;
  options.on_failover = [this](const cluster::Failover& failover) {
    ++failovers_;
    world_.trace.add(static_cast<uint64_t>(failover.stall.count()));
  };
  auto model = std::make_unique<Model>(name, options, *this);
  control::ServedModel served;
  served.shape.name = name;
  served.shape.num_blocks = toy.num_blocks;
  served.shape.block_bytes.assign(static_cast<size_t>(toy.num_blocks), kBlockBytes);
  served.shape.kv_bytes_per_token = sizeof(uint64_t);
  served.shape.row_bytes = engine::toy::kHidden * sizeof(float);
  served.shape.context_length = served.shape.min_context = kContext;
  served.shape.demand = demand;
  served.sessions = &model->sessions;
  models_[name] = std::move(model);
  coordinator_->add_model(std::move(served));
}

void GatewayNode::remove_model(const std::string& name) {
  auto found = models_.find(name);
  if (found == models_.end()) return;
  coordinator_->remove_model(name);
  retired_.push_back(std::move(found->second));
  models_.erase(found);
}

void GatewayNode::submit(ClientRequest& client) {
  auto found = models_.find(client.model);
  if (found == models_.end()) return;
  auto stream = std::make_shared<Stream>(world_, client);
  const Result<SessionId> session = found->second->sessions.submit(client.request, stream);
  if (!session.ok()) {
    client.outcome = Outcome::kRefused;
    if (session.status().code() != Code::kResourceExhausted || spec_.max_waiting >= 1024)
      world_.checker.violation("a request was refused: " + session.status().to_string());
    return;
  }
  stream->begin(*session);
  world_.checker.started(client, *session);
}

void GatewayNode::cancel(ClientRequest& client) {
  auto found = models_.find(client.model);
  if (found == models_.end() || client.outcome != Outcome::kPending || client.session == 0) return;
  client.outcome = Outcome::kCancelled;
  found->second->sessions.cancel(client.session);
}

cluster::SessionStats GatewayNode::stats() const {
  cluster::SessionStats sum;
  for (const auto& [name, model] : models_) {
    const cluster::SessionStats stats = model->sessions.stats();
    sum.running += stats.running;
    sum.waiting += stats.waiting;
    sum.broken += stats.broken;
    sum.failovers += stats.failovers;
    sum.reopened += stats.reopened;
  }
  return sum;
}

std::vector<std::string> GatewayNode::inboxes() const {
  std::vector<std::string> inboxes;
  for (const auto& [name, model] : models_) inboxes.push_back(std::string(kGatewayNode) + "/" + name);
  return inboxes;
}

// --- control streams
// -----------------------------------------------------------------------------------------

void GatewayNode::control_arrived(const std::string& worker, Channel connection,
                                  const ControlMessage& message) {
  world_.trace.add(worker);
  world_.trace.add(message.index());
  if (const auto* hello = std::get_if<Hello>(&message)) {
    // A new stream replaces the old one, as the wire does it.
    connections_[worker] = connection;
    coordinator_->attach(connection, *hello);
    return;
  }
  coordinator_->receive(worker, connection, message);
}

void GatewayNode::stream_broken(Channel connection) {
  for (auto it = connections_.begin(); it != connections_.end(); ++it)
    if (it->second == connection) {
      coordinator_->detach(it->first, connection, unavailable("its control stream broke"));
      connections_.erase(it);
      return;
    }
}

void GatewayNode::data_lost(const std::string& worker) {
  for (auto& [name, model] : models_)
    model->sessions.worker_lost(worker, unavailable("messages from it were lost"));
}

void GatewayNode::send(const std::string& worker, ControlMessage message) {
  auto found = connections_.find(worker);
  if (found == connections_.end()) return;
  if (const auto* load = std::get_if<LoadInstance>(&message))
    known_instances_.push_back(worker + "/" + load->id);
  const Channel connection = found->second;
  world_.net.send(
      process_, worker, connection, 400,
      [&world = world_, worker, connection, message = std::move(message)] {
        world.control_to_worker(worker, connection, message);
      },
      [this, connection] { stream_broken(connection); });
}

}  // namespace tessera::sim
