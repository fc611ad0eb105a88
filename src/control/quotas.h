// Rate limits in the State that the gateways share: requests and tokens per minute, requests per day, and
// requests at a time, each of a key and of its whole tenant.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/mutex.h"
#include "store/state.h"

namespace tessera::control {

// Whose limits; 0: none of that kind.
struct QuotaSubject {
  std::string name;  // unique among all subjects: "key/key_…", "tenant/org_…"
  int64_t requests_per_minute = 0;
  int64_t tokens_per_minute = 0;
  int64_t requests_per_day = 0;
  int64_t concurrent = 0;
  bool any() const {
    return requests_per_minute > 0 || tokens_per_minute > 0 || requests_per_day > 0 || concurrent > 0;
  }
};

// What one request holds until it is released.
struct QuotaTicket {
  struct Slot {
    std::string key;  // in the State
    std::string holder;
  };
  struct Tokens {
    std::string key;
    int64_t reserved = 0;
  };
  std::vector<Slot> slots;
  std::vector<Tokens> tokens;
};

struct QuotaAnswer {
  // Of the tightest limit of a kind, for the client's headers; limit 0: none.
  struct Remaining {
    int64_t limit = 0;
    int64_t remaining = 0;
    int64_t reset_ms = 0;  // until it is whole again
  };
  bool admitted = true;
  std::string refusal;   // one sentence, when it was not
  std::string code;      // likewise: "requests_per_minute", …
  int64_t retry_ms = 0;  // likewise; 0: waiting does not help
  Remaining requests, tokens;
  QuotaTicket ticket;
};

// Thread-safe; calls wait for the State. Minutes slide: what the last minute has used fades as this one goes
// on. A State that is away or full limits nothing (and `degraded()` says so): limits protect the workers, and
// must not take the service down. State and clock outlive it.
class Quotas {
 public:
  static constexpr std::chrono::milliseconds kSlotLife{60'000};  // renew() within it

  Quotas(store::State& state, const Clock& clock) : state_(state), clock_(clock) {}

  // Takes from every subject or from none. `tokens`: what the request may use, returned in part by release().
  // `holder` is unique to the request.
  QuotaAnswer admit(const std::vector<QuotaSubject>& subjects, int64_t tokens, const std::string& holder);
  void renew(const QuotaTicket& ticket);
  void release(const QuotaTicket& ticket, int64_t used_tokens);
  bool degraded() const;

 private:
  struct Window {
    std::string key, before;  // of this span and of the one before
    int64_t span_ms = 0;
    int64_t into_ms = 0;  // how much of this one is over
    bool slides = false;
  };
  Window window(const std::string& name, char kind, int64_t span_ms, bool slides) const;
  int64_t read(const std::string& key);
  int64_t add(const Window& window, int64_t amount);
  bool take(const Window& window, int64_t amount, int64_t limit, QuotaAnswer::Remaining& left,
            int64_t& retry_ms);
  bool take_slot(const QuotaSubject& subject, const std::string& holder, QuotaTicket& ticket);
  void note(const Status& status);

  store::State& state_;
  const Clock& clock_;
  mutable Mutex mutex_;
  bool degraded_ TESSERA_GUARDED_BY(mutex_) = false;
};

}  // namespace tessera::control
