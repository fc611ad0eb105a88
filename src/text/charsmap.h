// SentencePiece's precompiled character map: a double-array prefix tree from byte strings to replacements.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace tessera::text {

// Immutable. Default: maps nothing.
class Charsmap {
 public:
  // An empty blob maps nothing; Corrupt when the sizes inside do not fit.
  static Result<Charsmap> parse(std::span<const uint8_t> blob);

  struct Match {
    size_t length;  // bytes of the text that are replaced
    std::string_view replacement;
  };
  std::optional<Match> longest_prefix(std::string_view text) const { return find(text, true); }
  std::optional<Match> shortest_prefix(std::string_view text) const { return find(text, false); }

 private:
  std::optional<Match> find(std::string_view text, bool longest) const;

  std::vector<uint32_t> units_;
  std::string replacements_;  // each ends in a NUL
};

}  // namespace tessera::text
