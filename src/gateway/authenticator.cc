#include "gateway/authenticator.h"

#include <strings.h>

#include "base/secrets.h"
#include "control/lockout.h"

namespace tessera::gateway {
namespace {

api::CallerPtr administrator(std::string key) {
  auto caller = std::make_shared<api::Caller>();
  caller->key = std::move(key);
  caller->role = api::Role::kAdmin;
  return caller;
}

}  // namespace

std::string bearer_key(const net::HttpRequest& request) {
  constexpr char kScheme[] = "Bearer ";
  constexpr size_t kSchemeLength = sizeof(kScheme) - 1;
  const std::string* header = request.header("authorization");
  if (!header || strncasecmp(header->c_str(), kScheme, kSchemeLength) != 0) return {};
  const size_t start = header->find_first_not_of(' ', kSchemeLength);
  return start == std::string::npos ? std::string() : header->substr(start);
}

api::ApiError unauthorized(std::string message) {
  if (message.empty()) message = "A valid API key is needed: send 'Authorization: Bearer KEY'.";
  api::ApiError error = api::invalid_request(std::move(message), {}, "invalid_api_key");
  error.status = 401;
  error.type = "authentication_error";
  return error;
}

api::ApiError locked_out() {
  api::ApiError error = api::error_from_status(
      resource_exhausted("Too many wrong attempts: try again in a quarter of an hour."));
  error.code = "locked_out";
  error.retry_after_s = static_cast<int>(control::Lockout::kLocked.count() / 1000);
  return error;
}

api::CallerPtr open_caller() {
  static const api::CallerPtr caller = administrator({});
  return caller;
}

StaticKeys::StaticKeys(const std::vector<std::string>& keys) {
  for (const std::string& key : keys) {
    const Digest digest = sha256(as_bytes(key));
    keys_.push_back({digest, administrator("flag-" + to_hex(std::span(digest).first(4)))});
  }
}

api::CallerPtr StaticKeys::find(const std::string& key) const {
  const Digest digest = sha256(as_bytes(key));
  api::CallerPtr found;
  for (const Entry& entry : keys_)
    if (same_secret(entry.digest, digest)) found = entry.caller;
  return found;
}

void StaticAuthenticator::authenticate(const std::shared_ptr<const net::HttpRequest>& request,
                                       Callback done) {
  if (keys_.empty()) return done(open_caller());
  if (api::CallerPtr caller = keys_.find(bearer_key(*request))) return done(std::move(caller));
  done(unauthorized());
}

}  // namespace tessera::gateway
