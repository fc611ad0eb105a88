// The ways of sessions over a coordinator's workers, and what people see of it.
#include <algorithm>

#include "control/coordinator.h"

namespace tessera::control {
namespace {

const auto by_peer = [](const LinkReport& a, const LinkReport& b) { return a.peer < b.peer; };

const LinkReport* link_to(const std::vector<LinkReport>& links, std::string_view peer) {
  const auto found =
      std::lower_bound(links.begin(), links.end(), peer,
                       [](const LinkReport& link, std::string_view p) { return link.peer < p; });
  return found != links.end() && found->peer == peer ? &*found : nullptr;
}

// inbox == worker + "/" + id
bool is_inbox(std::string_view inbox, std::string_view worker, std::string_view id) {
  return inbox.size() == worker.size() + 1 + id.size() && inbox.starts_with(worker) &&
         inbox[worker.size()] == '/' && inbox.ends_with(id);
}

}  // namespace

// --- routing
// ---------------------------------------------------------------------------------------------------------

void Coordinator::take_links(Member& member, std::vector<LinkReport> links) const {
  std::sort(links.begin(), links.end(), by_peer);
  member.links = std::move(links);
  const LinkReport* gateway = link_to(member.links, kGatewayPeer);
  member.gateway_rtt_s = gateway != nullptr ? gateway->rtt_s : 0;
}

double Coordinator::hop_seconds(const std::string& from, const Member& from_member, const std::string& to,
                                const Member& to_member) const {
  if (&from_member == &to_member) return 0;
  if (const LinkReport* link = link_to(from_member.links, to)) return link->rtt_s / 2;
  if (const LinkReport* link = link_to(to_member.links, from)) return link->rtt_s / 2;
  return std::max(from_member.gateway_rtt_s, to_member.gateway_rtt_s) / 2;
}

// Ready instances with their costs. Without a query: those that stay, for coverage. One look at each instance
// of the cluster for every session: nothing here allocates but the result.
Coordinator::Candidates Coordinator::candidates(const std::string& model_name,
                                                const cluster::RouteQuery* query) const {
  // Dearer than any real hop, in this order: what is wrong with a candidate decides before what it costs.
  constexpr double kOtherClass = 1e3, kNoRoom = 1e4, kRetiring = 1e5, kCooling = 1e6;
  Candidates result;
  const auto add = [&result](const std::string& worker, const Member& member, const std::string& id,
                             BlockRange blocks, double cost) {
    result.owners.push_back({&worker, &member, &id});
    result.costs.push_back({blocks, cost});
  };
  const MonotonicTime now = clock_.now();
  std::vector<std::string> warm;
  if (query != nullptr && query->previous == nullptr) warm = inboxes_with_prefix(*query, model_name);
  for (const auto& [name, member] : members_) {
    if (!member.alive) continue;
    for (const auto& [id, instance] : member.instances) {
      const InstanceReport& report = instance.report;
      if (report.state != InstanceState::kReady || instance.unloading || report.model != model_name) continue;
      if (query == nullptr) {
        if (!instance.retiring && !member.draining) add(name, member, id, report.blocks, 0);
        continue;
      }
      const Hop* before = nullptr;  // the hop of these blocks on the route that is given up
      if (query->previous != nullptr)
        for (const Hop& hop : *query->previous)
          if (hop.blocks == report.blocks) before = &hop;
      const bool stays = before != nullptr && is_inbox(before->worker, name, id);
      if (member.draining && query->previous == nullptr) continue;  // no new sessions
      if (!query->leaving.empty() && (query->leaving == name || is_inbox(query->leaving, name, id))) continue;
      if (report.kv_tokens > 0 && query->max_length > report.kv_tokens) continue;
      double cost = report.decode_step_s;
      if (cost <= 0 && member.hello.capabilities.decode_bytes_per_s > 0)
        cost = static_cast<double>(instance.bytes - instance.kv_bytes) /
               member.hello.capabilities.decode_bytes_per_s;
      cost = std::max(cost, 1e-6 * report.blocks.size()) * (1 + 0.1 * (report.running + instance.opened));
      const bool is_warm = std::any_of(warm.begin(), warm.end(),
                                       [&](const std::string& inbox) { return is_inbox(inbox, name, id); });
      if (stays || is_warm) cost *= 0.25;  // its cache is worth a queue
      if (!stays && report.kv_tokens_free - instance.opened_tokens < query->max_length) cost += kNoRoom;
      if (before != nullptr && !stays)
        if (auto old = numerics_.find(before->worker);
            old != numerics_.end() && old->second != report.numerics)
          cost += kOtherClass;
      if ((instance.retiring || member.draining) && !stays) cost += kRetiring;
      if (now < member.cool_until && !stays) cost += kCooling;
      if (!query->failed.empty() && (query->failed == name || is_inbox(query->failed, name, id)))
        cost += kCooling;
      add(name, member, id, report.blocks, cost);
    }
  }
  return result;
}

Result<cluster::RouteChoice> Coordinator::choose(const std::string& model_name,
                                                 const cluster::RouteQuery& query) {
  auto model = models_.find(model_name);
  if (model == models_.end()) return unavailable("the model " + model_name + " is not loaded");
  const ModelShape& shape = model->second.served.shape;
  const Candidates all = candidates(model_name, &query);
  int uncovered = 0;
  const std::vector<size_t> chain = cheapest_chain(
      all.costs, shape.num_blocks,
      [&](size_t from, size_t to) {
        const Candidates::Owner &a = all.owners[from], &b = all.owners[to];
        return hop_seconds(*a.worker, *a.member, *b.worker, *b.member);
      },
      &uncovered);
  if (chain.empty()) {
    std::string reason =
        "no worker can take blocks from " + std::to_string(uncovered) + " on of " + model_name;
    for (const ModelPlan& plan : plan_.models)
      if (plan.model == model_name && plan.cuts.empty()) reason += ": " + plan.reason;
    return unavailable(reason);
  }
  cluster::RouteChoice choice;
  for (size_t i : chain) {
    Member& member = members_.at(*all.owners[i].worker);
    Instance& instance = member.instances.at(*all.owners[i].id);
    ++instance.opened;
    instance.opened_tokens += query.max_length;
    choice.route.push_back(
        {all.inbox(i), all.costs[i].blocks, model->second.served.encoding, member.hello.address});
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
  for (const std::string& name : prefix_names(query, model)) prefixes_.touch(name) = inboxes;
}

std::vector<std::string> Coordinator::inboxes_with_prefix(const cluster::RouteQuery& query,
                                                          const std::string& model) const {
  for (const std::string& name : prefix_names(query, model))
    if (const std::vector<std::string>* inboxes = prefixes_.find(name)) return *inboxes;
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
    worker.engine = member.hello.engine;
    worker.lost_count = member.lost_count;
    worker.lost_because = member.lost.message();
    bool ready = false, loading = !member.waiting.empty();
    for (const auto& [id, instance] : member.instances) {
      worker.instances.push_back({instance.report, instance.retiring});
      ready |= instance.report.state == InstanceState::kReady;
      loading |= instance.report.state == InstanceState::kFetching ||
                 instance.report.state == InstanceState::kLoading;
    }
    if (worker.engine) {
      ready = worker.engine->state == EngineState::kReady;
      loading = worker.engine->state == EngineState::kStarting;
    }
    worker.state = !member.alive             ? "lost"
                   : member.draining         ? "draining"
                   : now < member.cool_until ? "cooling"
                   : loading                 ? "loading"
                   : ready                   ? "ready"
                   : worker.engine           ? "down"
                                             : "idle";
    view.workers.push_back(std::move(worker));
  }
  for (const auto& [name, model] : models_) {
    ModelView entry;
    entry.name = name;
    entry.num_blocks = model.served.shape.num_blocks;
    int uncovered = 0;
    if (cheapest_chain(
            candidates(name, nullptr).costs, entry.num_blocks, [](size_t, size_t) { return 0.0; }, &uncovered)
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
