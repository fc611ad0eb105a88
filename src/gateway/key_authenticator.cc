#include "gateway/key_authenticator.h"

#include "obs/log.h"

namespace tessera::gateway {
namespace {

constexpr std::string_view kAdminPrefix = "adm_";
constexpr size_t kShownPrefix = 10;  // as in control::ApiKey::prefix

// Keys that this program draws: a wrong one is a mistake and never means "no key".
bool could_be_ours(std::string_view key) {
  return key.starts_with(control::Tenants::kSecretPrefix) || key.starts_with(control::Users::kAccessPrefix) ||
         key.starts_with(kAdminPrefix);
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

KeyAuthenticator::KeyAuthenticator(KeyAuthenticatorOptions options, Sources sources, Executor& lookup,
                                   const Clock& clock)
    : options_(std::move(options)),
      static_keys_(options_.admin_keys),
      sources_(sources),
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
  known.must_sign = terms.require_signature;
  return known;
}

KeyAuthenticator::Known KeyAuthenticator::known_of(const std::optional<control::Users::Access>& found) {
  Known known;
  if (!found) return known;
  auto caller = std::make_shared<api::Caller>();
  caller->key = "user:" + found->user.name;
  for (const api::Role role : {api::Role::kViewer, api::Role::kOperator, api::Role::kAdmin})
    if (found->user.role == role_name(role)) caller->role = role;
  known.caller = std::move(caller);
  known.expires_unix_ms = found->expires_unix_ms;
  return known;
}

api::ApiResult<api::CallerPtr> KeyAuthenticator::judge(const Known& known, const net::HttpRequest& request,
                                                       bool is_signed) const {
  if (!known.caller) return unauthorized();
  if (known.revoked) return unauthorized("This API key was revoked.");
  if (known.expires_unix_ms != 0 && known.expires_unix_ms <= clock_.unix_time_ms())
    return unauthorized("This API key has expired.");
  if (known.must_sign && !is_signed) return unauthorized("This key must sign its requests.");
  if (known.inactive) return refused("The enterprise of this key is not active.", "enterprise_inactive");
  if (!known.addresses.empty() && !known.addresses.contains(request.remote_address))
    return refused("This key may not be used from " + request.remote_address + ".", "address_not_allowed");
  return known.caller;
}

std::shared_ptr<const KeyAuthenticator::Known> KeyAuthenticator::recall(const Digest& key, bool stale) {
  MutexLock lock(mutex_);
  const auto found = remembered_.find(key);
  if (found == remembered_.end()) return nullptr;
  const bool fresh = clock_.now() < found->second.until;
  return fresh || stale ? found->second.known : nullptr;
}

void KeyAuthenticator::authenticate(const std::shared_ptr<const net::HttpRequest>& request, Callback done) {
  if (is_signed(*request))
    return lookup_.post([this, request, done = std::move(done)] { done(check_signature(*request)); });
  const std::string key = sent_key(*request);
  if (!key.empty())
    if (api::CallerPtr caller = static_keys_.find(key)) return done(std::move(caller));
  if (!options_.key_required && !could_be_ours(key)) return done(open_caller());
  if (!could_be_ours(key) || key.starts_with(kAdminPrefix)) return done(unauthorized());
  const Digest digest = sha256(as_bytes(key));
  if (const auto known = recall(digest, false)) return done(judge(*known, *request, false));
  uint64_t changes = 0;
  {
    MutexLock lock(mutex_);
    changes = changes_;
  }
  lookup_.post([this, request, digest, changes, key, done = std::move(done)] {
    done(look_up(key, digest, changes, *request));
  });
}

api::ApiResult<api::CallerPtr> KeyAuthenticator::look_up(const std::string& key, const Digest& digest,
                                                         uint64_t changes, const net::HttpRequest& request) {
  // Who guesses keeps the beginning, which lists show.
  const std::string identity = "key/" + key.substr(0, kShownPrefix);
  if (sources_.lockout.locked(identity, request.remote_address)) return locked_out();
  Result<Known> found = Known();
  if (key.starts_with(control::Users::kAccessPrefix)) {
    const auto access = sources_.users.find_access(key);
    found = access.ok() ? Result<Known>(known_of(*access)) : access.status();
  } else {
    const auto secret = sources_.tenants.find_secret(key);
    found = secret.ok() ? Result<Known>(known_of(*secret)) : secret.status();
  }
  if (!found.ok()) {
    // Answers go on without the database, for those that it knew.
    if (const auto known = recall(digest, true); known && known->caller) return judge(*known, request, false);
    obs::log_warn("auth", "a key could not be looked up", {{"error", found.status().message()}});
    return api::service_unavailable("Keys cannot be checked at the moment.");
  }
  const auto known = std::make_shared<const Known>(std::move(*found));
  {
    MutexLock lock(mutex_);
    if (remembered_.size() >= options_.most_remembered) remembered_.clear();
    if (changes == changes_) remembered_[digest] = {known, clock_.now() + options_.believed};
  }
  if (known->caller == nullptr && sources_.lockout.failed(identity, request.remote_address))
    return locked_out();
  return judge(*known, request, false);
}

api::ApiResult<api::CallerPtr> KeyAuthenticator::check_signature(const net::HttpRequest& request) {
  auto read = read_signature(request, clock_.unix_time_ms());
  if (auto* error = std::get_if<api::ApiError>(&read)) return std::move(*error);
  const auto& sent = std::get<SignedRequest>(read);
  const std::string identity = "signature/" + sent.key;
  if (sources_.lockout.locked(identity, request.remote_address)) return locked_out();
  const auto key = sources_.tenants.find_signing_key(sent.key);
  if (!key.ok()) {
    obs::log_warn("auth", "a key could not be looked up", {{"error", key.status().message()}});
    return api::service_unavailable("Keys cannot be checked at the moment.");
  }
  bool right = false;
  if (key->has_value())
    for (const Digest& secret : (*key)->secrets) right = signature_is_right(sent, secret) || right;
  if (!right) {
    if (sources_.lockout.failed(identity, request.remote_address)) return locked_out();
    return unauthorized("The signature is wrong.");
  }
  // Longer than the window on both sides: what is forgotten is too old to come again.
  const auto first =
      sources_.state.compare_and_set("nonce/" + sent.key + "/" + sent.nonce, std::nullopt, "",
                                     std::chrono::milliseconds(2 * kSignatureWindow_ms + 1000));
  if (!first.ok()) return api::service_unavailable("Signatures cannot be checked at the moment.");
  if (!*first) {
    api::ApiError error = unauthorized("This request was sent before: a nonce counts once.");
    error.code = "replayed";
    return error;
  }
  return judge(known_of(std::optional<control::KnownKey>((*key)->known)), request, true);
}

}  // namespace tessera::gateway
