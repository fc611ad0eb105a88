// UTF-8 at the edges: bytes from tokens and users to text that JSON may carry.
#pragma once

#include <string>
#include <string_view>

namespace tessera {

// The same bytes where they are valid UTF-8; each maximal invalid part becomes U+FFFD (Unicode 15, 3.9, "best
// practice").
std::string replace_invalid_utf8(std::string_view bytes);
bool is_valid_utf8(std::string_view bytes);
// `c` is at most U+10FFFF.
void append_utf8(std::string& out, char32_t c);

}  // namespace tessera
