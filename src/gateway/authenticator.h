// The one place that decides who an HTTP request comes from.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "api/caller.h"
#include "api/errors.h"
#include "base/sha256.h"
#include "net/http.h"

namespace tessera::gateway {

// Thread-safe.
class Authenticator {
 public:
  using Callback = std::function<void(api::ApiResult<api::CallerPtr>)>;
  virtual ~Authenticator() = default;
  // Never blocks: calls back once, within the call or later from another thread. 401: not known.
  virtual void authenticate(const std::shared_ptr<const net::HttpRequest>& request, Callback done) = 0;
};

// The key of "Authorization: Bearer KEY", the scheme in any case; empty where there is none.
std::string bearer_key(const net::HttpRequest& request);
// 401, saying how to send a key.
api::ApiError unauthorized(std::string message = {});

// 429: too many wrong secrets came of this identity and address.
api::ApiError locked_out();

// The keys of the command line: administrators of the default tenant. Immutable; thread-safe.
class StaticKeys {
 public:
  explicit StaticKeys(const std::vector<std::string>& keys);
  bool empty() const { return keys_.empty(); }
  // Null: none of them. The time taken does not depend on how much of a key was guessed.
  api::CallerPtr find(const std::string& key) const;

 private:
  struct Entry {
    Digest digest;  // comparing digests tells nothing about the keys
    api::CallerPtr caller;
  };
  std::vector<Entry> keys_;
};

// Only the command line's keys, or none: then everybody who can connect is the administrator.
class StaticAuthenticator final : public Authenticator {
 public:
  explicit StaticAuthenticator(const std::vector<std::string>& keys) : keys_(keys) {}
  void authenticate(const std::shared_ptr<const net::HttpRequest>& request, Callback done) override;

 private:
  const StaticKeys keys_;
};

// Everybody, where no key is asked for.
api::CallerPtr open_caller();

}  // namespace tessera::gateway
