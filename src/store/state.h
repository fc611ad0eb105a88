// Fast shared state of the gateways: leases, rate limits, nonces. Keys and values are bytes; any key may be
// lost at any time (eviction, restart), so nothing that must last lives here alone. Shaped for Redis; each
// call is atomic.
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "base/clock.h"
#include "base/status.h"

namespace tessera::store {

using Ttl = std::optional<std::chrono::milliseconds>;  // nullopt: for ever; ≤ 0: gone at once

// Thread-safe. kUnavailable if the server is away; kResourceExhausted if it is full.
class State {
 public:
  virtual ~State() = default;
  // nullopt: no such key, or it has expired.
  virtual Result<std::optional<std::string>> get(std::string_view key) = 0;
  // The time to live replaces the earlier one.
  virtual Status set(std::string_view key, std::string_view value, Ttl ttl = {}) = 0;
  // Sets if the present value is `expected` (nullopt: if there is none); says whether it did.
  virtual Result<bool> compare_and_set(std::string_view key, std::optional<std::string_view> expected,
                                       std::string_view value, Ttl ttl = {}) = 0;
  // Removes if the present value is `expected`; says whether it did.
  virtual Result<bool> compare_and_erase(std::string_view key, std::string_view expected) = 0;
  // The new value; a missing key counts as 0 and gets `ttl_if_new`, an existing one keeps its time to live.
  // kInvalidArgument if the value is no decimal integer or the sum does not fit 64 bits.
  virtual Result<int64_t> increment(std::string_view key, int64_t by, Ttl ttl_if_new = {}) = 0;
  // New time to live; false if there is no such key.
  virtual Result<bool> expire(std::string_view key, Ttl ttl) = 0;
  virtual Status erase(std::string_view key) = 0;
};

struct MemoryStateOptions {
  size_t max_entries = 1'000'000;  // then new keys are refused
};

// Within one process. The clock outlives it.
std::unique_ptr<State> make_memory_state(const Clock& clock, MemoryStateOptions options = {});

// `shared`, and while that is away or full a state in memory: limits and leases are then each gateway's own.
// Both references outlive it.
std::unique_ptr<State> make_fallback_state(State& shared, const Clock& clock);

}  // namespace tessera::store
