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
#include "control/lockout.h"
#include "control/tenants.h"
#include "control/users.h"
#include "gateway/authenticator.h"
#include "gateway/signature.h"
#include "store/state.h"

namespace tessera::gateway {

// The key that a request brings: "Authorization: Bearer KEY", else "X-API-Key: KEY"; empty: none.
std::string sent_key(const net::HttpRequest& request);

struct KeyAuthenticatorOptions {
  std::vector<std::string> admin_keys;  // the command line's, and the gateway's own
  // False: who brings no key, or one that could not be ours, is the administrator (loopback only).
  bool key_required = true;
  // How long what the database said of a key is believed: another gateway may have revoked it since. While
  // the database does not answer it is believed longer.
  std::chrono::milliseconds believed{2000};
  size_t most_remembered = 50'000;  // keys, wrong ones included
};

// Thread-safe. Keys that were seen lately are answered within the call, others from `lookup`, which may wait
// for the disk. All references outlive it, and `lookup` runs nothing of it any more when it is destroyed.
class KeyAuthenticator final : public Authenticator {
 public:
  // What it asks; `state` remembers nonces.
  struct Sources {
    control::Tenants& tenants;
    control::Users& users;
    control::Lockout& lockout;
    store::State& state;
  };
  KeyAuthenticator(KeyAuthenticatorOptions options, Sources sources, Executor& lookup, const Clock& clock);

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
    bool must_sign = false;
  };
  struct Remembered {
    std::shared_ptr<const Known> known;
    MonotonicTime until{};
  };
  static Known known_of(const std::optional<control::KnownKey>& found);
  static Known known_of(const std::optional<control::Users::Access>& found);
  api::ApiResult<api::CallerPtr> judge(const Known& known, const net::HttpRequest& request,
                                       bool is_signed) const;
  api::ApiResult<api::CallerPtr> look_up(const std::string& key, const Digest& digest, uint64_t changes,
                                         const net::HttpRequest& request);
  api::ApiResult<api::CallerPtr> check_signature(const net::HttpRequest& request);
  std::shared_ptr<const Known> recall(const Digest& key, bool stale);

  const KeyAuthenticatorOptions options_;
  const StaticKeys static_keys_;
  const Sources sources_;
  Executor& lookup_;
  const Clock& clock_;
  Mutex mutex_;
  std::map<Digest, Remembered> remembered_ TESSERA_GUARDED_BY(mutex_);
  uint64_t changes_ TESSERA_GUARDED_BY(mutex_) = 0;  // forget() so far
};

}  // namespace tessera::gateway
