#include "control/placement_search.h"

#include <algorithm>
#include <numeric>

namespace tessera::control {
namespace {

constexpr int kAllSubsets = 8;     // up to so many candidates every subset is tried
constexpr int kPoolSubsets = 6;    // of each list where there are more
constexpr int kAllOrders = 4;      // stages whose every order is tried; longer routes go to the nearest next
constexpr int kSeeds = 4;          // fast workers whose neighbourhoods are tried
constexpr int kNearestLimit = 32;  // routes longer than this keep their list's order
constexpr double kNearlyBest = 1.05;

// Keeps the routes of nearly least latency; hands out the one that makes most of its workers' time: the time
// of its slowest stage times its workers is what a token costs when many sessions fill the pipeline.
class Contest {
 public:
  void offer(const std::vector<Stage>& route, double token_s, double cost_s) {
    if (entries_.empty() || token_s < best_s_) {
      best_s_ = token_s;
      std::erase_if(entries_, [&](const Entry& e) { return e.token_s > best_s_ * kNearlyBest; });
    }
    if (token_s > best_s_ * kNearlyBest) return;
    // Among the kept, one that loses both ways cannot win.
    for (const Entry& e : entries_)
      if (e.cost_s <= cost_s && e.token_s <= token_s) return;
    std::erase_if(entries_, [&](const Entry& e) { return e.cost_s >= cost_s && e.token_s >= token_s; });
    entries_.push_back({route, token_s, cost_s});
  }
  // Empty route if nothing was offered.
  std::vector<Stage> winner(double& token_s) const {
    if (entries_.empty()) return {};
    auto best = std::min_element(entries_.begin(), entries_.end(), [](const Entry& a, const Entry& b) {
      return a.cost_s != b.cost_s ? a.cost_s < b.cost_s : a.token_s < b.token_s;
    });
    token_s = best->token_s;
    return best->route;
  }

 private:
  struct Entry {
    std::vector<Stage> route;
    double token_s, cost_s;
  };
  std::vector<Entry> entries_;
  double best_s_ = 0;
};

class Search {
 public:
  Search(const PlacementView& view, const SearchQuery& query)
      : view_(view), query_(query), shape_(view.shape(query.model)) {
    // Nobody who cannot hold a block of the range's inside.
    const int middle = query.range.first + query.range.size() / 2;
    for (int worker : query.candidates)
      if (query.room[worker] >= smallest_need(middle)) usable_.push_back(worker);
  }

  SearchResult run() {
    if (query_.range.size() > 0 && !usable_.empty()) {
      if (usable_.size() <= kAllSubsets)
        try_subsets(usable_);
      else
        try_lists();
    }
    SearchResult result;
    result.one = one_.winner(result.one_s);
    result.cut = cut_.winner(result.cut_s);
    return result;
  }

 private:
  uint64_t smallest_need(int block) const {
    // An inner block where there is one: the ends need more.
    return std::min(shape_.needed_bytes({block, block + 1}),
                    shape_.needed_bytes({query_.range.first, query_.range.first + 1}));
  }
  double speed(int worker) const {
    return view_.decode_rate(query_.model, worker) / (1 + query_.crowd[worker]);
  }

  void try_subsets(const std::vector<int>& pool) {
    for (uint32_t mask = 1; mask < (1u << pool.size()); ++mask) {
      std::vector<int> chosen;
      for (size_t i = 0; i < pool.size(); ++i)
        if (mask >> i & 1) chosen.push_back(pool[i]);
      if (chosen.size() > static_cast<size_t>(query_.range.size()) || !may_fit(chosen)) continue;
      if (chosen.size() > kAllOrders) {
        try_nearest_orders(chosen, static_cast<int>(chosen.size()));
        continue;
      }
      do try_route(chosen);
      while (std::next_permutation(chosen.begin(), chosen.end()));
    }
  }

  void try_lists() {
    for (int worker : usable_) try_route({worker});
    std::vector<std::vector<int>> lists;
    auto sorted_by = [&](auto&& key) {
      std::vector<std::pair<double, int>> keyed;
      for (int worker : usable_) keyed.emplace_back(key(worker), worker);
      std::sort(keyed.begin(), keyed.end());
      auto& list = lists.emplace_back();
      for (auto& [value, worker] : keyed) list.push_back(worker);
    };
    auto room = [&](int worker) {
      return std::min(static_cast<double>(query_.room[worker]),
                      static_cast<double>(shape_.needed_bytes(query_.range)));
    };
    sorted_by([&](int w) { return -speed(w); });
    const std::vector<int> fastest(lists[0].begin(), lists[0].begin() + kSeeds);
    sorted_by([&](int w) { return -room(w); });
    sorted_by([&](int w) { return -speed(w) * room(w); });
    sorted_by([&](int w) { return view_.worker(w).gateway_rtt_s - 1e-15 * speed(w); });
    for (int seed : fastest) {
      // What a stage at w costs beside the seed: the hop, and the seconds for its share of the blocks.
      sorted_by([&](int w) {
        if (w == seed) return -1.0;
        const double share = std::min(room(w), shape_.decode_read_bytes(query_.range));
        return view_.row_s(query_.model, seed, w) + share / speed(w);
      });
    }
    for (const auto& list : lists) {
      try_subsets({list.begin(), list.begin() + kPoolSubsets});
      const int shortest = shortest_prefix(list);
      for (int extra = 0; extra < 3; ++extra) {
        const int count = shortest + extra;
        if (count <= kPoolSubsets || count > static_cast<int>(list.size()) || count > query_.range.size())
          continue;
        std::vector<int> chosen(list.begin(), list.begin() + count);
        try_route(chosen);
        if (count <= kNearestLimit) try_nearest_orders(chosen, kSeeds);
      }
    }
  }

  // Blocks that fit on the first n of the list reach the range's; size() + 1 if never.
  int shortest_prefix(const std::vector<int>& list) const {
    int blocks = 0, count = 0;
    const int start = query_.range.first;
    for (int worker : list) {
      ++count;
      blocks += shape_.longest_from(start, query_.range.last, query_.room[worker]) - start;
      if (blocks >= query_.range.size()) return count;
    }
    return count + 1;
  }

  bool may_fit(const std::vector<int>& chosen) const {
    const uint64_t needed = shape_.needed_bytes(query_.range);
    uint64_t room = 0;
    for (int worker : chosen) room += std::min(query_.room[worker], needed);
    return room >= needed;
  }

  // From each of the first `starts` members along the shortest hops.
  void try_nearest_orders(const std::vector<int>& chosen, int starts) {
    for (int start = 0; start < std::min<int>(starts, static_cast<int>(chosen.size())); ++start) {
      std::vector<int> order = chosen;
      std::swap(order[0], order[start]);
      for (size_t i = 1; i + 1 < order.size(); ++i) {
        auto nearest = std::min_element(order.begin() + i, order.end(), [&](int a, int b) {
          return view_.row_s(query_.model, order[i - 1], a) < view_.row_s(query_.model, order[i - 1], b);
        });
        std::iter_swap(order.begin() + i, nearest);
      }
      try_route(order);
    }
  }

  void try_route(const std::vector<int>& order) {
    if (order.size() == 1) {
      if (shape_.needed_bytes(query_.range) <= query_.room[order[0]]) offer({{order[0], query_.range}});
      return;
    }
    if (!may_fit(order)) return;
    for (bool fastest_first : {false, true}) {
      std::vector<Stage> route = cut(order, shares(order, fastest_first));
      if (!route.empty()) offer(route);
    }
  }

  void offer(const std::vector<Stage>& route) {
    double token_s = 0, slowest_s = 0;
    for (size_t i = 0; i < route.size(); ++i) {
      const double step_s = view_.decode_s(query_.model, route[i]) * (1 + query_.crowd[route[i].worker]);
      token_s += step_s;
      slowest_s = std::max(slowest_s, step_s);
      if (i + 1 < route.size()) token_s += view_.row_s(query_.model, route[i].worker, route[i + 1].worker);
    }
    const int head = route.front().worker, tail = route.back().worker;
    if (query_.before >= 0) token_s += view_.row_s(query_.model, query_.before, head);
    if (query_.after >= 0) token_s += view_.row_s(query_.model, tail, query_.after);
    if (query_.range == shape_.all() && head != tail) token_s += view_.link(tail, head).rtt_s / 2;
    (route.size() == 1 ? one_ : cut_).offer(route, token_s, slowest_s * static_cast<double>(route.size()));
  }

  // Bytes that a decode step shall read at each member: in proportion to speed, or as much as fits on the
  // fastest first. Nobody above what its room holds.
  std::vector<double> shares(const std::vector<int>& order, bool fastest_first) const {
    const double total = shape_.decode_read_bytes(query_.range);
    const double density = total / std::max(1.0, static_cast<double>(shape_.needed_bytes(query_.range)));
    std::vector<double> share(order.size(), -1);
    auto cap = [&](size_t i) { return static_cast<double>(query_.room[order[i]]) * density; };
    double left = total;
    if (fastest_first) {
      std::vector<size_t> by_speed(order.size());
      std::iota(by_speed.begin(), by_speed.end(), 0);
      std::stable_sort(by_speed.begin(), by_speed.end(),
                       [&](size_t a, size_t b) { return speed(order[a]) > speed(order[b]); });
      for (size_t i : by_speed) {
        share[i] = std::min(left, cap(i));
        left -= share[i];
      }
      return share;
    }
    for (bool capped = true; capped;) {
      double speeds = 0;
      for (size_t i = 0; i < order.size(); ++i)
        if (share[i] < 0) speeds += speed(order[i]);
      capped = false;
      const double round = left;
      for (size_t i = 0; i < order.size(); ++i) {
        if (share[i] >= 0 || round * speed(order[i]) / speeds <= cap(i)) continue;
        share[i] = cap(i);
        left -= share[i];
        capped = true;
      }
      if (capped) continue;
      for (size_t i = 0; i < order.size(); ++i)
        if (share[i] < 0) share[i] = round * speed(order[i]) / speeds;
    }
    return share;
  }

  // Contiguous cuts nearest to the shares under everybody's room, a block each at least; empty if none fits.
  std::vector<Stage> cut(const std::vector<int>& order, const std::vector<double>& share) const {
    const int count = static_cast<int>(order.size());
    const auto [first, last] = query_.range;
    // From the end: where a stage must begin so that those after it fit.
    std::vector<int> earliest(count + 1, last);
    for (int i = count - 1; i >= 0; --i) {
      const int limit = first + i;
      earliest[i] = std::max(limit, shape_.longest_until(earliest[i + 1], limit, query_.room[order[i]]));
      if (earliest[i] >= earliest[i + 1]) return {};
    }
    if (earliest[0] > first) return {};
    std::vector<Stage> route;
    int start = first;
    double wanted = 0;
    for (int i = 0; i < count; ++i) {
      wanted += share[i];
      const int most = shape_.longest_from(start, last - (count - 1 - i), query_.room[order[i]]);
      const int least = i + 1 == count ? last : std::max(start + 1, earliest[i + 1]);
      if (least > most) return {};
      const int end = std::clamp(shape_.position_of_read(query_.range, wanted), least, most);
      route.push_back({order[i], {start, end}});
      start = end;
    }
    return route;
  }

  const PlacementView& view_;
  const SearchQuery& query_;
  const ShapeIndex& shape_;
  std::vector<int> usable_;
  Contest one_, cut_;
};

}  // namespace

SearchResult search_stages(const PlacementView& view, const SearchQuery& query) {
  return Search(view, query).run();
}

}  // namespace tessera::control
