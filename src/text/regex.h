// Regular expressions of tokenizers, read as Oniguruma reads them (the engine that their files are written
// for). PCRE2's compiled code does the work where both engines agree; Oniguruma does it where they do not.
#pragma once

#include <functional>
#include <memory>
#include <string_view>

#include "base/status.h"

namespace tessera::text {

// Immutable, shareable between threads.
class Regex {
 public:
  // Unsupported, with the engine's reason, when neither reads the pattern.
  static Result<Regex> compile(std::string_view pattern);

  // Receives the byte range of a match; an error ends the search.
  using OnMatch = std::function<Status(size_t begin, size_t end)>;
  // All matches from left to right, without overlap; an empty match right behind another match does not
  // count. `text` is valid UTF-8. ResourceExhausted when the pattern backtracks beyond the engine's limit.
  Status for_each_match(std::string_view text, const OnMatch& on_match) const;

  class Engine;

 private:
  Regex() = default;
  std::shared_ptr<const Engine> fast_;  // null: the pattern means something else to PCRE2
  std::shared_ptr<const Engine> exact_;
};

}  // namespace tessera::text
