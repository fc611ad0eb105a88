#include "gateway/api_keys.h"

#include <strings.h>

#include <cstring>

namespace tessera::gateway {
namespace {

bool same_digest(const Digest& a, const Digest& b) {
  uint8_t difference = 0;
  for (size_t i = 0; i < a.size(); ++i) difference |= a[i] ^ b[i];
  return difference == 0;
}

}  // namespace

ApiKeys::ApiKeys(const std::vector<std::string>& keys) {
  for (const std::string& key : keys) digests_.push_back(sha256(as_bytes(key)));
}

bool ApiKeys::allows(const std::string* authorization) const {
  if (digests_.empty()) return true;
  constexpr char kScheme[] = "Bearer ";
  constexpr size_t kSchemeLength = sizeof(kScheme) - 1;
  if (!authorization || strncasecmp(authorization->c_str(), kScheme, kSchemeLength) != 0) return false;
  const size_t start = authorization->find_first_not_of(' ', kSchemeLength);
  if (start == std::string::npos) return false;
  const Digest digest = sha256(as_bytes(std::string_view(*authorization).substr(start)));
  bool found = false;
  for (const Digest& known : digests_) found |= same_digest(known, digest);
  return found;
}

}  // namespace tessera::gateway
