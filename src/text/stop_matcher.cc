#include "text/stop_matcher.h"

#include <algorithm>
#include <utility>

namespace tessera::text {

StopMatcher::StopMatcher(std::vector<std::string> stops) {
  for (std::string& text : stops) {
    if (text.empty()) continue;
    std::vector<size_t> links(text.size(), 0);
    for (size_t i = 1, k = 0; i < text.size(); ++i) {
      while (k > 0 && text[i] != text[k]) k = links[k - 1];
      if (text[i] == text[k]) ++k;
      links[i] = k;
    }
    stops_.push_back({std::move(text), std::move(links)});
  }
}

StopMatcher::Out StopMatcher::push(std::string_view delta, bool armed) {
  if (stopped_) return {"", true};
  for (const char byte : delta) {
    held_.push_back(byte);
    size_t longest = 0;  // of the stops that end here
    for (Stop& stop : stops_) {
      while (stop.matched > 0 && stop.text[stop.matched] != byte) stop.matched = stop.links[stop.matched - 1];
      if (stop.text[stop.matched] == byte) ++stop.matched;
      if (stop.matched < stop.text.size()) continue;
      longest = std::max(longest, stop.text.size());
      stop.matched = stop.links.back();
    }
    if (longest > 0 && armed) {
      stopped_ = true;
      held_.resize(held_.size() - longest);
      return {std::exchange(held_, {}), true};
    }
  }
  size_t maybe = 0;  // bytes at the end that may begin a stop
  for (const Stop& stop : stops_) maybe = std::max(maybe, stop.matched);
  Out out{held_.substr(0, held_.size() - maybe), false};
  held_.erase(0, out.text.size());
  return out;
}

std::string StopMatcher::finish() {
  return std::exchange(held_, {});
}

}  // namespace tessera::text
