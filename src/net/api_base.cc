#include "net/api_base.h"

#include "net/url.h"

namespace tessera::net {

Result<std::string> api_base(const std::string& url) {
  TESSERA_ASSIGN_OR_RETURN(const Url parsed, parse_url(url));
  std::string base = parsed.to_string();
  const auto drop_slashes = [&] {
    while (base.ends_with('/')) base.pop_back();
  };
  drop_slashes();
  if (base.ends_with("/v1")) base.resize(base.size() - 3);
  drop_slashes();
  return base;
}

}  // namespace tessera::net
