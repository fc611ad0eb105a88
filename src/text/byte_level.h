// The byte-level alphabet: every byte as one printable character, so that any text is a text of the
// vocabulary.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace tessera::text {

void append_byte_level(std::string& out, std::string_view bytes);
// The bytes that the characters stand for; nullopt when one of them stands for none.
std::optional<std::string> from_byte_level(std::string_view text);
// "<0x0A>" for 10, the name of a byte's own piece in vocabularies with byte fallback.
std::string byte_piece(unsigned char byte);
std::optional<char> byte_of_piece(std::string_view piece);

}  // namespace tessera::text
