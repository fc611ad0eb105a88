#include "gateway/key_authenticator.h"

#include "obs/log.h"

namespace tessera::gateway {
namespace {

constexpr std::string_view kAdminPrefix = "adm_";

// Keys that this program draws: a wrong one is a mistake and never means "no key".
bool could_be_ours(std::string_view key) {
  return key.starts_with(control::Tenants::kSecretPrefix) || key.starts_with(kAdminPrefix);
}

api::ApiError refused(std::string message, std::string code) {
  api::ApiError error = api::error_from_status({Code::kPermissionDenied, std::move(message)});
  error.code = std::move(code);
  return error;
}

int64_t earlier(int64_t a, int64_t b) {
  if (a == 0 || b == 0) return std::max(a, b);
  return std::min(a, b);
}

}  // namespace

std::string sent_key(const net::HttpRequest& request) {
  std::string key = bearer_key(request);
  if (!key.empty()) return key;
  const std::string* header = request.header("x-api-key");
  return header ? *header : std::string();
}

KeyAuthenticator::KeyAuthenticator(KeyAuthenticatorOptions options, control::Tenants& tenants,
                                   Executor& lookup, const Clock& clock)
    : options_(std::move(options)),
      static_keys_(options_.admin_keys),
      tenants_(tenants),
      lookup_(lookup),
      clock_(clock) {}

void KeyAuthenticator::forget() {
  MutexLock lock(mutex_);
  remembered_.clear();
  ++changes_;
}

KeyAuthenticator::Known KeyAuthenticator::known_of(const std::optional<control::KnownKey>& found) {
  Known known;
  if (!found) return known;
  const control::ApiKeyTerms& terms = found->key.terms;
  const control::EnterpriseProfile& enterprise = found->enterprise.profile;
  auto caller = std::make_shared<api::Caller>();
  caller->tenant = found->enterprise.id;
  caller->key = found->key.id;
  caller->models = terms.models;
  caller->types = terms.types;
  caller->limits = {terms.requests_per_minute, terms.tokens_per_minute, terms.requests_per_day,
                    terms.max_concurrent};
  caller->tenant_limits = {enterprise.requests_per_minute, enterprise.tokens_per_minute, 0,
                           enterprise.max_concurrent};
  caller->weight = enterprise.weight;
  known.caller = std::move(caller);
  // Checked when the key was made; should it not parse now, the empty set would open it to all.
  Result<control::AddressSet> addresses = control::AddressSet::parse(terms.addresses);
  if (addresses.ok()) known.addresses = std::move(*addresses);
  known.expires_unix_ms = earlier(terms.expires_unix_ms, found->secret_expires_unix_ms);
  known.revoked = found->key.revoked_unix_ms != 0 || !addresses.ok();
  known.inactive = !enterprise.is_active;
  return known;
}

api::ApiResult<api::CallerPtr> KeyAuthenticator::judge(const Known& known,
                                                       const net::HttpRequest& request) const {
  if (!known.caller) return unauthorized();
  if (known.revoked) return unauthorized("This API key was revoked.");
  if (known.expires_unix_ms != 0 && known.expires_unix_ms <= clock_.unix_time_ms())
    return unauthorized("This API key has expired.");
  if (known.inactive) return refused("The enterprise of this key is not active.", "enterprise_inactive");
  if (!known.addresses.empty() && !known.addresses.contains(request.remote_address))
    return refused("This key may not be used from " + request.remote_address + ".", "address_not_allowed");
  return known.caller;
}

std::shared_ptr<const KeyAuthenticator::Known> KeyAuthenticator::recall(const Digest& key) {
  MutexLock lock(mutex_);
  const auto found = remembered_.find(key);
  if (found == remembered_.end()) return nullptr;
  if (clock_.now() < found->second.until) return found->second.known;
  remembered_.erase(found);
  return nullptr;
}

void KeyAuthenticator::authenticate(const std::shared_ptr<const net::HttpRequest>& request, Callback done) {
  const std::string key = sent_key(*request);
  if (!key.empty())
    if (api::CallerPtr caller = static_keys_.find(key)) return done(std::move(caller));
  if (!options_.key_required && !could_be_ours(key)) return done(open_caller());
  if (!key.starts_with(control::Tenants::kSecretPrefix)) return done(unauthorized());
  const Digest digest = sha256(as_bytes(key));
  if (const auto known = recall(digest)) return done(judge(*known, *request));
  uint64_t changes = 0;
  {
    MutexLock lock(mutex_);
    changes = changes_;
  }
  lookup_.post([this, request, digest, changes, key, done = std::move(done)] {
    auto found = tenants_.find_secret(key);
    if (!found.ok()) {
      obs::log_warn("auth", "a key could not be looked up", {{"error", found.status().message()}});
      return done(api::service_unavailable("Keys cannot be checked at the moment."));
    }
    const auto known = std::make_shared<const Known>(known_of(*found));
    {
      MutexLock lock(mutex_);
      if (remembered_.size() >= options_.most_remembered) remembered_.clear();
      if (changes == changes_) remembered_[digest] = {known, clock_.now() + options_.believed};
    }
    done(judge(*known, *request));
  });
}

}  // namespace tessera::gateway
