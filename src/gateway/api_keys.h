// The keys that open the HTTP API.
#pragma once

#include <string>
#include <vector>

#include "base/sha256.h"

namespace tessera::gateway {

// Immutable; thread-safe.
class ApiKeys {
 public:
  // No keys: everybody may come in.
  explicit ApiKeys(const std::vector<std::string>& keys);
  // Whether an Authorization header opens the API: "Bearer KEY", the scheme in any case; nullptr = no header.
  // The time taken does not depend on how much of a key was guessed.
  bool allows(const std::string* authorization) const;

 private:
  std::vector<Digest> digests_;  // comparing digests tells nothing about the keys
};

}  // namespace tessera::gateway
