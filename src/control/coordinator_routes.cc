// The ways of sessions over a coordinator's workers, and what people see of it.
#include <algorithm>

#include "control/coordinator.h"

namespace tessera::control {

// --- routing
// ---------------------------------------------------------------------------------------------------------

double Coordinator::hop_seconds(const std::string& from, const std::string& to) const {
  if (from == to) return 0;
  auto rtt_to = [this](const std::string& a, const std::string& b) -> const LinkReport* {
    auto member = members_.find(a);
    if (member == members_.end()) return nullptr;
    for (const LinkReport& link : member->second.links)
      if (link.peer == b) return &link;
    return nullptr;
  };
  if (const LinkReport* link = rtt_to(from, to)) return link->rtt_s / 2;
  if (const LinkReport* link = rtt_to(to, from)) return link->rtt_s / 2;
  double worse = 0;
  for (const std::string& worker : {from, to})
    if (const LinkReport* link = rtt_to(worker, "gateway")) worse = std::max(worse, link->rtt_s / 2);
  return worse;
}

// Ready instances with their costs. Without a query: those that stay, for coverage.
std::vector<RouteCandidate> Coordinator::candidates(const std::string& model_name,
                                                    const cluster::RouteQuery* query) const {
  // Dearer than any real hop, in this order: what is wrong with a candidate decides before what it costs.
  constexpr double kOtherClass = 1e3, kNoRoom = 1e4, kRetiring = 1e5, kCooling = 1e6;
  std::vector<RouteCandidate> result;
  const MonotonicTime now = clock_.now();
  std::set<std::string> warm;
  if (query != nullptr && query->previous == nullptr) warm = workers_with_prefix(*query, model_name);
  for (const auto& [name, member] : members_) {
    if (!member.alive) continue;
    for (const auto& [id, instance] : member.instances) {
      const InstanceReport& report = instance.report;
      if (report.model != model_name || report.state != InstanceState::kReady || instance.unloading) continue;
      if (query == nullptr) {
        if (!instance.retiring && !member.draining)
          result.push_back({name + "/" + id, name, report.blocks, 0});
        continue;
      }
      const std::string inbox = name + "/" + id;
      const Hop* before = nullptr;  // the hop of these blocks on the route that is given up
      if (query->previous != nullptr)
        for (const Hop& hop : *query->previous)
          if (hop.blocks == report.blocks) before = &hop;
      const bool stays = before != nullptr && before->worker == inbox;
      if (member.draining && query->previous == nullptr) continue;  // no new sessions
      if (!query->leaving.empty() && (query->leaving == name || query->leaving == inbox)) continue;
      if (report.kv_tokens > 0 && query->max_length > report.kv_tokens) continue;
      double cost = report.decode_step_s;
      if (cost <= 0 && member.hello.capabilities.decode_bytes_per_s > 0)
        cost = static_cast<double>(instance.bytes - instance.kv_bytes) /
               member.hello.capabilities.decode_bytes_per_s;
      cost = std::max(cost, 1e-6 * report.blocks.size()) * (1 + 0.1 * (report.running + instance.opened));
      if (stays || warm.count(inbox) > 0) cost *= 0.25;  // its cache is worth a queue
      if (!stays && report.kv_tokens_free - instance.opened_tokens < query->max_length) cost += kNoRoom;
      if (before != nullptr && !stays)
        if (auto old = numerics_.find(before->worker);
            old != numerics_.end() && old->second != report.numerics)
          cost += kOtherClass;
      if ((instance.retiring || member.draining) && !stays) cost += kRetiring;
      if (now < member.cool_until && !stays) cost += kCooling;
      if (!query->failed.empty() && (query->failed == inbox || query->failed == name)) cost += kCooling;
      result.push_back({inbox, name, report.blocks, cost});
    }
  }
  return result;
}

Result<cluster::RouteChoice> Coordinator::choose(const std::string& model_name,
                                                 const cluster::RouteQuery& query) {
  auto model = models_.find(model_name);
  if (model == models_.end()) return unavailable("the model " + model_name + " is not loaded");
  const ModelShape& shape = model->second.served.shape;
  const std::vector<RouteCandidate> all = candidates(model_name, &query);
  int uncovered = 0;
  const std::vector<size_t> chain = cheapest_chain(
      all, shape.num_blocks,
      [this](const std::string& from, const std::string& to) { return hop_seconds(from, to); }, &uncovered);
  if (chain.empty()) {
    std::string reason =
        "no worker can take blocks from " + std::to_string(uncovered) + " on of " + model_name;
    for (const ModelPlan& plan : plan_.models)
      if (plan.model == model_name && plan.cuts.empty()) reason += ": " + plan.reason;
    return unavailable(reason);
  }
  cluster::RouteChoice choice;
  for (size_t i : chain) {
    const RouteCandidate& c = all[i];
    Member& member = members_.at(c.worker);
    Instance& instance = member.instances.at(c.inbox.substr(c.worker.size() + 1));
    ++instance.opened;
    instance.opened_tokens += query.max_length;
    choice.route.push_back({c.inbox, c.blocks, model->second.served.encoding, member.hello.address});
  }
  if (choice.route.size() > 1 && model->second.served.encoding != RowEncoding::kLossless)
    choice.inexact = "activations are compressed between workers";
  if (query.previous != nullptr) {
    auto classes = [this](const Route& route) {
      std::set<std::string> names;
      for (const Hop& hop : route)
        if (auto found = numerics_.find(hop.worker); found != numerics_.end()) names.insert(found->second);
      return names;
    };
    if (classes(*query.previous) != classes(choice.route))
      choice.inexact = "the session went on on a worker of another numerics class";
  }
  remember_prefix(query, model_name, choice.route);
  return choice;
}

namespace {

constexpr size_t kRememberedPrefixes = 4096;

// Names of a prompt's beginnings, the longest first: 8, 4, 2 and 1 blocks.
std::vector<std::string> prefix_names(const cluster::RouteQuery& query, const std::string& model) {
  std::vector<std::string> names;
  for (size_t blocks : {8, 4, 2, 1}) {
    const size_t count = blocks * kKvBlockTokens;
    if (query.tokens.size() <= count) continue;
    const auto* bytes = reinterpret_cast<const uint8_t*>(query.tokens.data());
    const Digest digest = sha256({bytes, count * sizeof(TokenId)});
    names.push_back(model + '\0' + query.request.salt + '\0' + to_hex(digest));
  }
  return names;
}

}  // namespace

void Coordinator::remember_prefix(const cluster::RouteQuery& query, const std::string& model,
                                  const Route& route) {
  std::vector<std::string> inboxes;
  for (const Hop& hop : route) inboxes.push_back(hop.worker);
  for (const std::string& name : prefix_names(query, model)) {
    if (auto found = prefix_index_.find(name); found != prefix_index_.end()) {
      prefixes_.splice(prefixes_.begin(), prefixes_, found->second);
      found->second->inboxes = inboxes;
      continue;
    }
    prefixes_.push_front({name, inboxes});
    prefix_index_[name] = prefixes_.begin();
    if (prefixes_.size() > kRememberedPrefixes) {
      prefix_index_.erase(prefixes_.back().key);
      prefixes_.pop_back();
    }
  }
}

std::set<std::string> Coordinator::workers_with_prefix(const cluster::RouteQuery& query,
                                                       const std::string& model) const {
  for (const std::string& name : prefix_names(query, model))
    if (auto found = prefix_index_.find(name); found != prefix_index_.end())
      return {found->second->inboxes.begin(), found->second->inboxes.end()};
  return {};
}

// --- view
// ------------------------------------------------------------------------------------------------------------

ClusterView Coordinator::make_view() const {
  ClusterView view;
  view.snapshot = snapshot();
  const MonotonicTime now = clock_.now();
  for (const auto& [name, member] : members_) {
    WorkerView worker;
    worker.name = name;
    worker.address = member.hello.address;
    worker.version = member.hello.version;
    worker.capabilities = member.hello.capabilities;
    worker.links = member.links;
    worker.lost_count = member.lost_count;
    worker.lost_because = member.lost.message();
    bool ready = false, loading = !member.waiting.empty();
    for (const auto& [id, instance] : member.instances) {
      worker.instances.push_back({instance.report, instance.retiring});
      ready |= instance.report.state == InstanceState::kReady;
      loading |= instance.report.state == InstanceState::kFetching ||
                 instance.report.state == InstanceState::kLoading;
    }
    worker.state = !member.alive             ? "lost"
                   : member.draining         ? "draining"
                   : now < member.cool_until ? "cooling"
                   : loading                 ? "loading"
                   : ready                   ? "ready"
                                             : "idle";
    view.workers.push_back(std::move(worker));
  }
  for (const auto& [name, model] : models_) {
    ModelView entry;
    entry.name = name;
    entry.num_blocks = model.served.shape.num_blocks;
    int uncovered = 0;
    if (cheapest_chain(
            candidates(name, nullptr), entry.num_blocks, [](auto&, auto&) { return 0.0; }, &uncovered)
            .empty())
      entry.uncovered = uncovered;
    for (const ModelPlan& plan : plan_.models)
      if (plan.model == name) entry.reason = plan.reason;
    if (model.served.sessions != nullptr) entry.sessions = model.served.sessions->stats();
    entry.tokens_per_s = model.tokens_per_s < 0.05 ? 0 : model.tokens_per_s;
    view.models.push_back(std::move(entry));
  }
  return view;
}

}  // namespace tessera::control
