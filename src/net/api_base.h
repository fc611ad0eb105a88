// Where an OpenAI-compatible server's paths begin.
#pragma once

#include <string>

#include "base/status.h"

namespace tessera::net {

// What "/v1/…" is appended to: the URL without its last slashes and without "/v1". InvalidArgument for what
// is no http(s) URL.
Result<std::string> api_base(const std::string& url);

}  // namespace tessera::net
