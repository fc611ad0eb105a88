// Whose turn it is where tenants wait for each other: start-time fair queueing by tokens. Each request gets a
// place in line when it comes: after its tenant's earlier ones, by what those cost and the tenant's weight. A
// tenant that was idle begins where the line is, so it neither owes nor has saved anything.
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <string>

namespace tessera::cluster {

// One thread at a time. Places of one tenant grow from request to request: it is served in order.
class FairShare {
 public:
  using Place = uint64_t;

  // `cost` in tokens, 1 or more.
  Place take_place(const std::string& tenant, int64_t cost, int64_t weight) {
    if (last_.size() >= kMostTenants)
      std::erase_if(last_, [this](const auto& t) { return t.second <= now_; });
    Place& next = last_[tenant];
    const Place place = std::max(next, now_);
    const auto share = static_cast<uint64_t>(std::clamp<int64_t>(weight, 1, kUnit));
    next = place + static_cast<uint64_t>(std::clamp<int64_t>(cost, 1, kMostCost)) * kUnit / share;
    return place;
  }
  // The line has come so far.
  void serve(Place place) { now_ = std::max(now_, place); }

 private:
  static constexpr int64_t kUnit = 1 << 16;  // of a place, for one token at weight 1
  static constexpr int64_t kMostCost = int64_t{1} << 24;
  static constexpr size_t kMostTenants = 4096;
  Place now_ = 1;
  std::map<std::string, Place> last_;
};

}  // namespace tessera::cluster
