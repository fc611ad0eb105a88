#include "sim/cluster.h"

#include <algorithm>

namespace tessera::sim {

using namespace std::chrono_literals;

namespace {

constexpr Time kLongestRun = 400s;  // of simulated time (I8)
constexpr Time kQuiet = 30s;        // after the last request: closes arrive, leases renew, orphans go

}  // namespace

Cluster::Cluster(uint64_t seed, const ClusterOptions& options) : options_(options), world_(seed) {
  world_.gateway_meter = options_.gateway_meter;
  engine::toy::ToyOptions toy;
  toy.num_blocks = 6;
  toy.context_length = kContext;
  world_.models["a"] = toy;
  toy.num_blocks = 4;
  world_.models["b"] = toy;
  world_.net.on_reset([this](const ProcessRef& from, const ProcessRef& to, Channel channel, bool lost) {
    const bool to_gateway = to->node == kGatewayNode;
    const std::string& worker = to_gateway ? from->node : to->node;
    const ProcessRef& gateway = to_gateway ? to : from;
    if (channel == kDataChannel) {
      if (!to_gateway || !lost) return;
      world_.queue.after(Time(0), gateway, [this, worker] { gateway_->data_lost(worker); });
      return;
    }
    world_.queue.after(Time(0), gateway, [this, channel] { gateway_->stream_broken(channel); });
    world_.queue.after(Time(0), to_gateway ? from : to,
                       [this, worker, channel] { workers_.at(worker)->stream_broken(channel); });
  });
  world_.control_to_worker = [this](const std::string& worker, Channel connection,
                                    const ControlMessage& message) {
    world_.trace.add(worker);
    world_.trace.add(message.index());
    workers_.at(worker)->control_arrived(connection, message);
  };
  for (int i = 0; i < 48; ++i) shared_prompt_.push_back(static_cast<TokenId>(random().pick(3, 900)));
  start_gateway();
  for (int i = 0; i < options_.workers; ++i) add_worker();
}

Cluster::~Cluster() {
  workers_.clear();
  gateway_.reset();
}

void Cluster::start_gateway() {
  gateway_ = std::make_unique<GatewayNode>(world_, options_.gateway);
  world_.gateway = gateway_.get();
  gateway_->add_model("a", 2);
  if (options_.second_model) gateway_->add_model("b");
}

// The links of a machine that came to the others, both ways.
void Cluster::link_to_all(const std::string& node) {
  auto link = [this](const std::string& from, const std::string& to) {
    if (options_.wan)
      world_.net.set_link(from, to, {random().between(2ms, 60ms), random().between(0ms, 10ms), 3e6});
    else
      world_.net.set_link(from, to, {random().between(50us, 400us), random().between(0us, 200us), 1e8});
  };
  std::vector<std::string> others{kGatewayNode};
  for (const auto& [name, spec] : specs_) others.push_back(name);
  for (const std::string& other : others) {
    if (other == node) continue;
    link(other, node);
    link(node, other);
  }
}

std::string Cluster::add_worker(Lie lie, double disk_bytes_per_s) {
  WorkerSpec spec;
  spec.name = "w" + std::to_string(++last_worker_);
  spec.lie = lie;
  spec.disk_bytes_per_s = disk_bytes_per_s;
  spec.output_bytes = options_.output_bytes;
  spec.queue_capacity = options_.worker_queue;
  int blocks = options_.blocks_per_worker;
  int64_t speed = 100;
  if (options_.uneven) {
    blocks = static_cast<int>(random().pick(2, std::max(2, 2 * blocks - 2)));
    speed = random().pick(20, 400);
  }
  const uint64_t kv = static_cast<uint64_t>(options_.contexts_per_block) * kContext * sizeof(uint64_t);
  spec.capabilities.memory_bytes = static_cast<uint64_t>(blocks) * (kBlockBytes + kv);
  spec.capabilities.decode_bytes_per_s = 1e6 * static_cast<double>(speed);
  spec.capabilities.prefill_ops_per_s = 1e9 * static_cast<double>(speed);
  spec.row_time = std::chrono::microseconds(2000 / speed);
  specs_[spec.name] = spec;
  link_to_all(spec.name);
  workers_[spec.name] = std::make_unique<WorkerNode>(world_, spec);
  return spec.name;
}

// --- load
// ----------------------------------------------------------------------------------------------------

void Cluster::add_requests(int count, Time spread, int cancelled_percent, const std::string& model) {
  Random& random = world_.random;
  for (int i = 0; i < count; ++i) {
    auto client = std::make_unique<ClientRequest>();
    client->number = static_cast<int>(requests_.size());
    client->model = model;
    cluster::SessionRequest& request = client->request;
    if (random.chance(35)) request.prompt = shared_prompt_;
    for (int64_t left = random.pick(1, 50); left > 0; --left)
      request.prompt.push_back(static_cast<TokenId>(random.pick(3, 900)));
    SamplingParams& params = request.params;
    params.temperature = random.chance(40) ? 0.0f : 1.0f;
    params.seed = random.bits();
    params.max_tokens = static_cast<int>(random.pick(1, 50));
    params.ignore_eos = random.chance(20);
    if (random.chance(25)) params.frequency_penalty = 0.5f;
    if (random.chance(20)) params.top_logprobs = static_cast<int>(random.pick(0, 3));
    if (random.chance(8)) params.prompt_logprobs = true;
    if (random.chance(20)) {
      params.min_tokens = 4;
      for (int n = 0; n < 60; ++n) params.stop_token_ids.push_back(static_cast<TokenId>(random.pick(3, 996)));
    }
    request.priority = random.chance(15) ? 1 : 0;
    // One of several choices of the same prompt now and then.
    if (i > 0 && random.chance(20) && requests_.back()->model == model) {
      request = requests_.back()->request;
      ++request.params.choice;
    }
    client->expected = reference_answer(request, world_.models.at(model));
    ClientRequest* added = client.get();
    requests_.push_back(std::move(client));
    const Time begin = random.between(Time(0), spread);
    at(begin, [this, added] { submit(*added); });
    if (cancelled_percent > 0 && random.chance(cancelled_percent))
      at(begin + random.between(Time(0), 400ms), [this, added] {
        if (gateway_ == nullptr) return;
        world_.queue.after(Time(0), gateway_->process(), [this, added] { gateway_->cancel(*added); });
      });
  }
}

// As a client does it: it tries again when the gateway is away.
void Cluster::submit(ClientRequest& client) {
  if (client.outcome != Outcome::kPending) return;
  if (gateway_ == nullptr || !gateway_->has_model(client.model)) {
    at(300ms, [this, &client] { submit(client); });
    return;
  }
  world_.queue.after(Time(0), gateway_->process(), [this, &client] { gateway_->submit(client); });
}

bool Cluster::all_ended() {
  while (ended_ < requests_.size() && requests_[ended_]->outcome != Outcome::kPending) ++ended_;
  return ended_ == requests_.size();
}

// --- members and faults ------------------------------------------------------------------------------------

std::vector<std::string> Cluster::living() const {
  std::vector<std::string> names;
  for (const auto& [name, worker] : workers_)
    if (worker->process()->alive && !worker->left()) names.push_back(name);
  return names;
}

std::string Cluster::busy_worker() {
  const std::vector<std::string> all = living();
  std::vector<std::string> busy;
  for (const std::string& name : all)
    if (workers_.at(name)->hosts_sessions()) busy.push_back(name);
  if (all.empty()) return {};
  return random().one_of(busy.empty() ? all : busy);
}

void Cluster::crash(const std::string& name, Time back_after) {
  auto found = workers_.find(name);
  if (found == workers_.end()) return;
  workers_.erase(found);
  at(back_after, [this, name] {
    if (workers_.count(name) == 0) workers_[name] = std::make_unique<WorkerNode>(world_, specs_.at(name));
  });
}

void Cluster::crash_for_good(const std::string& name) {
  workers_.erase(name);
}

void Cluster::pause(const std::string& name, Time duration) {
  auto found = workers_.find(name);
  if (found == workers_.end()) return;
  const ProcessRef process = found->second->process();
  if (process->paused) return;
  process->paused = true;
  at(duration, [this, process] {
    if (process->alive && process->paused) world_.queue.resume(process);
  });
}

void Cluster::partition(const std::string& a, const std::string& b, bool one_way, Time duration) {
  world_.net.block(a, b);
  if (!one_way) world_.net.block(b, a);
  at(duration, [this, a, b, one_way] {
    world_.net.unblock(a, b);
    if (!one_way) world_.net.unblock(b, a);
  });
}

void Cluster::restart_gateway(Time down) {
  if (gateway_ == nullptr) return;
  gateway_.reset();
  world_.gateway = nullptr;
  // Their connections end: the clients ask again.
  for (auto& client : requests_)
    if (client->outcome == Outcome::kPending && client->session != 0) {
      client->session = 0;
      at(down + 10ms, [this, held = client.get()] { submit(*held); });
    }
  at(down, [this] { start_gateway(); });
}

void Cluster::drain(const std::string& name) {
  if (gateway_ == nullptr) return;
  world_.queue.after(Time(0), gateway_->process(),
                     [this, name] { gateway_->coordinator().drain(name, [](Status) {}); });
}

// --- the run -----------------------------------------------------------------------------------------------

void Cluster::run() {
  while (!all_ended() && world_.queue.now() < kLongestRun && world_.checker.violations().empty()) {
    world_.queue.run_one(kLongestRun);
    if (!std::exchange(world_.somebody_left, false)) continue;
    std::erase_if(workers_, [this](const auto& entry) {
      const WorkerNode& worker = *entry.second;
      if (!worker.left()) return false;
      if (!worker.left_because().ok())
        world_.checker.violation(entry.first + " was sent away: " + worker.left_because().to_string());
      return true;
    });
  }
  for (const auto& client : requests_)
    if (client->outcome == Outcome::kPending && world_.checker.violations().empty())
      world_.checker.violation("request " + std::to_string(client->number) + " (session " +
                               std::to_string(client->session) + ", " + std::to_string(client->heard) +
                               " tokens heard) never ended (I8)");
  if (!world_.checker.violations().empty()) return;
  const Time end = world_.queue.now() + kQuiet;
  while (world_.queue.run_one(end)) {
  }
  check_end();
}

void Cluster::check_end() {
  Checker& checker = world_.checker;
  int64_t recomputed = 0;
  for (const auto& [name, worker] : workers_) {
    const WorkerNode::Counts counts = worker->counts();
    if (counts.running != 0 || counts.kv_used != 0)
      checker.violation(name + " still holds " + std::to_string(counts.running) + " sessions and " +
                        std::to_string(counts.kv_used) + " KV pages (I6)");
    if (counts.kv_missing != 0) checker.violation(name + " lost KV pages (I6)");
    recomputed += counts.recomputed;
    if (options_.drains_end && drained_.count(worker->process()->number) > 0)
      checker.violation(name + " was drained and has not left");
  }
  if (recomputed > checker.recompute_allowance() && options_.output_bytes > 0)
    checker.violation("survivors computed " + std::to_string(recomputed) + " rows again, at most " +
                      std::to_string(checker.recompute_allowance()) + " were ahead of the gateway");
  if (gateway_ == nullptr) {
    checker.violation("the gateway is away");
    return;
  }
  const cluster::SessionStats stats = gateway_->stats();
  if (stats.running != 0 || stats.waiting != 0 || stats.broken != 0)
    checker.violation("the gateway still counts " + std::to_string(stats.running) + " running, " +
                      std::to_string(stats.waiting) + " waiting, " + std::to_string(stats.broken) +
                      " broken sessions");
}

std::string Cluster::describe() {
  std::string text = "t=" + std::to_string(world_.queue.now().count() / 1'000'000) + "ms";
  for (const auto& [name, worker] : workers_) text += "\n    " + worker->describe();
  return text;
}

}  // namespace tessera::sim
