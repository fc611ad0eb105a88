#include "gateway/admission.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "api/errors.h"
#include "api/field_reader.h"
#include "gateway/header_writer.h"
#include "obs/log.h"

namespace tessera::gateway {
namespace {

constexpr std::chrono::milliseconds kSpendingBelieved{1000};
constexpr auto kRenewal = control::Quotas::kSlotLife / 3;
constexpr size_t kBytesPerToken = 4;  // of a prompt that nobody has tokenised yet

std::vector<control::QuotaSubject> subjects_of(const api::Caller& caller) {
  const auto subject = [](std::string name, const api::KeyLimits& l) {
    return control::QuotaSubject{std::move(name), l.requests_per_minute, l.tokens_per_minute,
                                 l.requests_per_day, l.concurrent};
  };
  std::vector<control::QuotaSubject> subjects;
  if (auto key = subject("key/" + caller.key, caller.limits); key.any()) subjects.push_back(std::move(key));
  if (auto tenant = subject("tenant/" + caller.tenant, caller.tenant_limits); tenant.any())
    subjects.push_back(std::move(tenant));
  return subjects;
}

// Guessed before anything is parsed in earnest; what was not used comes back when the request ends.
int64_t tokens_wanted(const std::string& body) {
  auto tokens = static_cast<int64_t>(body.size() / kBytesPerToken);
  const Result<Json> json = parse_json(body);
  if (!json.ok() || !json->is_object()) return tokens;
  for (const char* field : {"max_completion_tokens", "max_tokens"}) {
    const auto found = json->find(field);
    if (found == json->end()) continue;
    const auto most = api::json_integer(*found);
    if (most && *most > 0) return tokens + std::min<int64_t>(*most, 1 << 24);
  }
  return tokens;
}

// As OpenAI writes them: "1m0s", "250ms".
std::string duration_text(int64_t ms) {
  if (ms < 1000) return std::to_string(ms) + "ms";
  const int64_t s = (ms + 999) / 1000;
  return s < 60 ? std::to_string(s) + "s" : std::to_string(s / 60) + "m" + std::to_string(s % 60) + "s";
}

net::Headers limit_headers(const control::QuotaAnswer& answer) {
  net::Headers headers;
  const auto add = [&](const std::string& kind, const control::QuotaAnswer::Remaining& left) {
    if (left.limit == 0) return;
    headers.emplace_back("x-ratelimit-limit-" + kind, std::to_string(left.limit));
    headers.emplace_back("x-ratelimit-remaining-" + kind, std::to_string(left.remaining));
    headers.emplace_back("x-ratelimit-reset-" + kind, duration_text(left.reset_ms));
  };
  add("requests", answer.requests);
  add("tokens", answer.tokens);
  return headers;
}

api::ApiError too_many(const control::QuotaAnswer& answer) {
  api::ApiError error = api::error_from_status(resource_exhausted(answer.refusal));
  error.code = "rate_limit_exceeded";
  error.param = answer.code;
  error.retry_after_s.reset();
  if (answer.retry_ms > 0) error.retry_after_s = static_cast<int>((answer.retry_ms + 999) / 1000);
  return error;
}

api::ApiError nothing_left(std::string message, std::string code) {
  api::ApiError error = api::invalid_request(std::move(message), {}, std::move(code));
  error.status = 402;
  error.type = "insufficient_quota";
  return error;
}

}  // namespace

Admission::Admission(control::Quotas& quotas, control::Tenants& tenants, control::Usage& usage,
                     UsageMeter& meter, Executor& work, const Clock& clock)
    : quotas_(quotas), tenants_(tenants), usage_(usage), meter_(meter), work_(work), clock_(clock) {
  renewal_ = work_.post_after(kRenewal, [this] { renew(); });
}

Admission::~Admission() {
  MutexLock lock(mutex_);
  work_.cancel(renewal_);
}

void Admission::forget() {
  MutexLock lock(mutex_);
  for (auto& [enterprise, spending] : spending_) spending.until = {};
}

size_t Admission::running() const {
  MutexLock lock(mutex_);
  return held_.size();
}

void Admission::renew() {
  std::vector<control::QuotaTicket> tickets;
  {
    MutexLock lock(mutex_);
    for (const auto& [id, ticket] : held_) tickets.push_back(ticket);
    renewal_ = work_.post_after(kRenewal, [this] { renew(); });
  }
  for (const control::QuotaTicket& ticket : tickets) quotas_.renew(ticket);
}

void Admission::admit(const Call& call, std::function<void(const Call&)> go) {
  const api::Caller& caller = *call.caller;
  bool decided = subjects_of(caller).empty();
  if (decided) {
    // Known a moment ago to spend as it likes: nothing to wait for.
    MutexLock lock(mutex_);
    const auto known = spending_.find(caller.tenant);
    decided = known != spending_.end() && clock_.now() < known->second.until && !known->second.refusal;
  }
  if (!decided) return work_.post([this, call, go = std::move(go)] { decide(call, go); });
  Call measured = call;
  measured.record = meter_.measure(caller, call.request->id, call.record);
  go(measured);
}

void Admission::decide(const Call& call, const std::function<void(const Call&)>& go) {
  const api::Caller& caller = *call.caller;
  if (auto refusal = check_spending(caller.tenant)) return call.answer(api::error_response(*refusal));
  const auto subjects = subjects_of(caller);
  Call measured = call;
  if (subjects.empty()) {
    measured.record = meter_.measure(caller, call.request->id, call.record);
    return go(measured);
  }
  auto id = control::Usage::draw_id();
  control::QuotaAnswer answer =
      quotas_.admit(subjects, tokens_wanted(call.request->body), id.ok() ? *id : call.request->id);
  const net::Headers headers = limit_headers(answer);
  if (!answer.admitted) {
    net::HttpResponse response = api::error_response(too_many(answer));
    response.headers.insert(response.headers.end(), headers.begin(), headers.end());
    return call.answer(std::move(response));
  }
  uint64_t number = 0;
  {
    MutexLock lock(mutex_);
    number = ++last_;
    held_[number] = answer.ticket;
  }
  if (!headers.empty()) measured.writer = with_headers(call.writer, headers);
  measured.record = meter_.measure(caller, call.request->id, call.record, [this, number](int64_t tokens) {
    // The end may come from a thread that must not wait.
    work_.post([this, number, tokens] {
      control::QuotaTicket ticket;
      {
        MutexLock lock(mutex_);
        const auto held = held_.find(number);
        if (held == held_.end()) return;
        ticket = std::move(held->second);
        held_.erase(held);
      }
      quotas_.release(ticket, tokens);
    });
  });
  go(measured);
}

std::optional<api::ApiError> Admission::check_spending(const std::string& enterprise) {
  std::optional<api::ApiError> last;
  {
    MutexLock lock(mutex_);
    const auto known = spending_.find(enterprise);
    if (known != spending_.end()) last = known->second.refusal;
    if (known != spending_.end() && clock_.now() < known->second.until) return last;
  }
  Spending spending;
  const auto found = tenants_.find_enterprise(enterprise);
  const auto spent = usage_.spent_this_month(enterprise);
  if (!found.ok() || !spent.ok()) {
    // Usage is kept and counts when the database is back: nobody waits for it.
    obs::log_warn(
        "admission", "a budget could not be checked: what was known last holds",
        {{"enterprise", enterprise}, {"error", (found.ok() ? spent.status() : found.status()).message()}});
    return last;
  }
  const control::EnterpriseProfile& profile = found->profile;
  if (profile.monthly_budget > 0 && *spent >= profile.monthly_budget)
    spending.refusal = nothing_left("This month's budget is used up.", "budget_exceeded");
  else if (profile.prepaid && profile.credit_balance <= 0)
    spending.refusal = nothing_left("The credit is used up.", "insufficient_credit");
  spending.until = clock_.now() + kSpendingBelieved;
  MutexLock lock(mutex_);
  spending_[enterprise] = spending;
  return spending.refusal;
}

}  // namespace tessera::gateway
