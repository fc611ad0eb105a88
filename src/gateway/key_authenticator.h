// KeyAuthenticator: the keys of enterprises in front of every route, beside the command line's.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>

#include "base/clock.h"
#include "base/executor.h"
#include "base/mutex.h"
#include "control/addresses.h"
#include "control/tenants.h"
#include "gateway/authenticator.h"

namespace tessera::gateway {

// The key that a request brings: "Authorization: Bearer KEY", else "X-API-Key: KEY"; empty: none.
std::string sent_key(const net::HttpRequest& request);

struct KeyAuthenticatorOptions {
  std::vector<std::string> admin_keys;  // the command line's, and the gateway's own
  // False: who brings no key, or one that could not be ours, is the administrator (loopback only).
  bool key_required = true;
  // How long what the database said of a key is believed: another gateway may have revoked it since.
  std::chrono::milliseconds believed{2000};
  size_t most_remembered = 50'000;  // keys, wrong ones included
};

// Thread-safe. Keys that were seen lately are answered within the call, others from `lookup`, which may wait
// for the disk. All references outlive it, and `lookup` runs nothing of it any more when it is destroyed.
class KeyAuthenticator final : public Authenticator {
 public:
  KeyAuthenticator(KeyAuthenticatorOptions options, control::Tenants& tenants, Executor& lookup,
                   const Clock& clock);

  void authenticate(const std::shared_ptr<const net::HttpRequest>& request, Callback done) override;
  // Something about keys or enterprises changed here: ask the database again.
  void forget();

 private:
  // What the database said. Immutable.
  struct Known {
    api::CallerPtr caller;  // null: nobody's key
    control::AddressSet addresses;
    int64_t expires_unix_ms = 0;  // of key or secret, whichever is first; 0: never
    bool revoked = false;
    bool inactive = false;  // its enterprise is
  };
  struct Remembered {
    std::shared_ptr<const Known> known;
    MonotonicTime until{};
  };
  static Known known_of(const std::optional<control::KnownKey>& found);
  api::ApiResult<api::CallerPtr> judge(const Known& known, const net::HttpRequest& request) const;
  std::shared_ptr<const Known> recall(const Digest& key);

  const KeyAuthenticatorOptions options_;
  const StaticKeys static_keys_;
  control::Tenants& tenants_;
  Executor& lookup_;
  const Clock& clock_;
  Mutex mutex_;
  std::map<Digest, Remembered> remembered_ TESSERA_GUARDED_BY(mutex_);
  uint64_t changes_ TESSERA_GUARDED_BY(mutex_) = 0;  // forget() so far
};

}  // namespace tessera::gateway
