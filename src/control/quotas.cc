#include "control/quotas.h"

#include <algorithm>
#include <charconv>
#include <functional>

#include "obs/log.h"

namespace tessera::control {
namespace {

constexpr int64_t kMinute_ms = 60'000;
constexpr int64_t kDay_ms = 24 * 60 * kMinute_ms;

}  // namespace

bool Quotas::degraded() const {
  MutexLock lock(mutex_);
  return degraded_;
}

void Quotas::note(const Status& status) {
  MutexLock lock(mutex_);
  if (status.ok() == !degraded_) return;
  degraded_ = !status.ok();
  if (degraded_)
    obs::log_warn("quotas", "limits are not enforced: the shared state does not answer",
                  {{"error", status.message()}});
  else
    obs::log_info("quotas", "limits are enforced again");
}

Quotas::Window Quotas::window(const std::string& name, char kind, int64_t span_ms, bool slides) const {
  const int64_t now_ms = clock_.unix_time_ms();
  const int64_t index = now_ms / span_ms;
  const std::string prefix = std::string("quota/") + kind + "/" + name + "/";
  return {prefix + std::to_string(index), prefix + std::to_string(index - 1), span_ms, now_ms % span_ms,
          slides};
}

int64_t Quotas::read(const std::string& key) {
  const auto text = state_.get(key);
  note(text.status());
  int64_t value = 0;
  if (text.ok() && text->has_value())
    std::from_chars((*text)->data(), (*text)->data() + (*text)->size(), value);
  return value;
}

int64_t Quotas::add(const Window& window, int64_t amount) {
  const auto sum = state_.increment(window.key, amount, std::chrono::milliseconds(2 * window.span_ms));
  note(sum.status());
  return sum.ok() ? *sum : 0;
}

bool Quotas::take(const Window& window, int64_t amount, int64_t limit, QuotaAnswer::Remaining& left,
                  int64_t& retry_ms) {
  const int64_t before = window.slides ? std::max<int64_t>(read(window.before), 0) : 0;
  const int64_t sum = add(window, amount);
  const int64_t left_ms = window.span_ms - window.into_ms;
  const int64_t faded = before * left_ms / window.span_ms;
  const int64_t remaining = limit - sum - faded;
  // The tightest of the kind is the one that the client hears of.
  if (left.limit == 0 || remaining < left.remaining) left = {limit, std::max<int64_t>(remaining, 0), left_ms};
  if (remaining >= 0) return true;
  add(window, -amount);
  left.remaining = std::max<int64_t>(remaining + amount, 0);
  const int64_t over = -remaining;
  if (amount > limit)
    retry_ms = 0;
  else if (window.slides && before > 0 && over <= faded)
    retry_ms = std::max<int64_t>(over * window.span_ms / before, 1);  // when so much has faded
  else
    retry_ms = left_ms;
  return false;
}

bool Quotas::take_slot(const QuotaSubject& subject, const std::string& holder, QuotaTicket& ticket) {
  // From a place of the holder's own, so that free slots are found at the first try while there are many.
  const auto count = static_cast<uint64_t>(subject.concurrent);
  const uint64_t first = std::hash<std::string>()(holder) % count;
  for (uint64_t i = 0; i < count; ++i) {
    const std::string key = "quota/c/" + subject.name + "/" + std::to_string((first + i) % count);
    const auto taken = state_.compare_and_set(key, std::nullopt, holder, kSlotLife);
    note(taken.status());
    if (!taken.ok()) return true;
    if (!*taken) continue;
    ticket.slots.push_back({key, holder});
    return true;
  }
  return false;
}

QuotaAnswer Quotas::admit(const std::vector<QuotaSubject>& subjects, int64_t tokens,
                          const std::string& holder) {
  QuotaAnswer answer;
  std::vector<std::pair<Window, int64_t>> taken;
  const auto refuse = [&](const std::string& what, const char* code) {
    for (const auto& [window, amount] : taken) add(window, -amount);
    for (const QuotaTicket::Slot& slot : answer.ticket.slots)
      (void)state_.compare_and_erase(slot.key, slot.holder);
    answer.ticket = {};
    answer.admitted = false;
    answer.refusal = what;
    answer.code = code;
  };
  const auto within = [&](const QuotaSubject& subject, char kind, int64_t span_ms, int64_t amount,
                          int64_t limit, QuotaAnswer::Remaining& left) {
    if (limit == 0) return true;
    const Window w = window(subject.name, kind, span_ms, span_ms == kMinute_ms);
    if (!take(w, amount, limit, left, answer.retry_ms)) return false;
    taken.emplace_back(w, amount);
    if (kind == 't') answer.ticket.tokens.push_back({w.key, amount});
    return true;
  };
  for (const QuotaSubject& s : subjects) {
    QuotaAnswer::Remaining day;
    if (!within(s, 'r', kMinute_ms, 1, s.requests_per_minute, answer.requests)) {
      refuse("Too many requests: the limit is " + std::to_string(s.requests_per_minute) + " per minute.",
             "requests_per_minute");
    } else if (!within(s, 'd', kDay_ms, 1, s.requests_per_day, day)) {
      refuse("Too many requests: the limit is " + std::to_string(s.requests_per_day) + " per day of UTC.",
             "requests_per_day");
    } else if (!within(s, 't', kMinute_ms, tokens, s.tokens_per_minute, answer.tokens)) {
      refuse(tokens > s.tokens_per_minute
                 ? "The request may use " + std::to_string(tokens) + " tokens, more than the limit of " +
                       std::to_string(s.tokens_per_minute) + " per minute: lower 'max_tokens'."
                 : "Too many tokens: the limit is " + std::to_string(s.tokens_per_minute) + " per minute.",
             "tokens_per_minute");
    } else if (s.concurrent > 0 && !take_slot(s, holder, answer.ticket)) {
      answer.retry_ms = 1000;
      refuse("Too many requests at a time: the limit is " + std::to_string(s.concurrent) + ".", "concurrent");
    }
    if (!answer.admitted) return answer;
  }
  return answer;
}

void Quotas::renew(const QuotaTicket& ticket) {
  for (const QuotaTicket::Slot& slot : ticket.slots) note(state_.expire(slot.key, kSlotLife).status());
}

void Quotas::release(const QuotaTicket& ticket, int64_t used_tokens) {
  for (const QuotaTicket::Slot& slot : ticket.slots)
    note(state_.compare_and_erase(slot.key, slot.holder).status());
  // Into the minute that they were taken from; should it be gone, nobody misses them.
  for (const QuotaTicket::Tokens& t : ticket.tokens)
    if (used_tokens != t.reserved)
      note(state_.increment(t.key, used_tokens - t.reserved, std::chrono::milliseconds(2 * kMinute_ms))
               .status());
}

}  // namespace tessera::control
