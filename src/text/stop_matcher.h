// Ends a streamed text at the first stop string, however the text is cut into deltas.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace tessera::text {

// The stop that ends first wins, of those the one that begins first. Empty stop strings are ignored.
class StopMatcher {
 public:
  explicit StopMatcher(std::vector<std::string> stops);

  struct Out {
    std::string text;  // certain to stay; never part of a stop string
    bool stopped;      // a stop string came: nothing follows
  };
  // Not `armed`: a stop string that ends within `delta` is text like any other (min_tokens is not reached).
  Out push(std::string_view delta, bool armed = true);
  // What was held back because it might have become a stop string.
  std::string finish();

 private:
  // One stop string with the failure links of Knuth, Morris and Pratt: links[i] is the length of the longest
  // proper prefix of `text` that ends at its byte i.
  struct Stop {
    std::string text;
    std::vector<size_t> links;
    size_t matched = 0;  // bytes of `text` that the input ends with
  };
  std::vector<Stop> stops_;
  std::string held_;
  bool stopped_ = false;
};

}  // namespace tessera::text
