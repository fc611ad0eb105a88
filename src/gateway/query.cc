#include "gateway/query.h"

#include <algorithm>
#include <charconv>

#include "net/url.h"

namespace tessera::gateway {
namespace {

int64_t number_of(const Call& call, const char* name, int64_t usual, int64_t most) {
  const auto text = net::query_value(call.request->query, name);
  int64_t value = 0;
  if (!text || std::from_chars(text->data(), text->data() + text->size(), value).ec != std::errc())
    return usual;
  return std::clamp<int64_t>(value, 1, most);
}

}  // namespace

Page page_of(const Call& call, int64_t usual_size, int64_t most) {
  return {number_of(call, "page", 1, int64_t{1} << 40), number_of(call, "page_size", usual_size, most)};
}

}  // namespace tessera::gateway
