// What keys and tokens are made of: random bytes, their text, comparing without telling how much was right.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "base/status.h"

namespace tessera {

// Fresh random bytes of the operating system's quality.
Result<std::string> random_bytes(size_t count);

// base64url (RFC 4648, section 5) without padding.
std::string base64url(std::span<const uint8_t> bytes);
// InvalidArgument unless `text` is the canonical encoding of something.
Result<std::string> base64url_decode(std::string_view text);

// `count` random bytes as base64url.
Result<std::string> random_text(size_t count);

// Takes the same time wherever they differ; only their lengths show.
bool same_secret(std::span<const uint8_t> a, std::span<const uint8_t> b);

}  // namespace tessera
