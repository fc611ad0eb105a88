#include "control/lockout.h"

#include <charconv>

#include "base/sha256.h"

namespace tessera::control {
namespace {

// Of one length, whatever the client calls itself.
std::string key_of(std::string_view identity, std::string_view address) {
  const std::string text =
      std::to_string(identity.size()) + "/" + std::string(identity) + "/" + std::string(address);
  return "lockout/" + to_hex(sha256(as_bytes(text)));
}

}  // namespace

bool Lockout::locked(std::string_view identity, std::string_view address) {
  const auto text = state_.get(key_of(identity, address));
  int failures = 0;
  if (text.ok() && text->has_value())
    std::from_chars((*text)->data(), (*text)->data() + (*text)->size(), failures);
  return failures >= kMostFailures;
}

bool Lockout::failed(std::string_view identity, std::string_view address) {
  const std::string key = key_of(identity, address);
  const auto failures = state_.increment(key, 1, kLocked);
  if (!failures.ok() || *failures < kMostFailures) return false;
  // The quarter of an hour begins with the last failure.
  (void)state_.expire(key, kLocked);
  return true;
}

void Lockout::succeeded(std::string_view identity, std::string_view address) {
  (void)state_.erase(key_of(identity, address));
}

}  // namespace tessera::control
