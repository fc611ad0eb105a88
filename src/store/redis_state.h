// store::State on a Redis server (7 or newer), for several gateways that share leases and limits.
#pragma once

#include <chrono>
#include <memory>
#include <string>

#include "store/state.h"

namespace tessera::store {

struct RedisOptions {
  std::chrono::milliseconds connect_timeout{1000};
  std::chrono::milliseconds command_timeout{1000};  // then the server counts as gone
  std::chrono::milliseconds retry_after{500};       // until then a failed connection is not tried again
  int connections = 4;                              // at most; calls beyond wait for one
};

// `url`: "redis://[USER:PASSWORD@]HOST[:PORT][/NUMBER]" or "unix:///PATH[?db=NUMBER]". Connections are made
// when they are needed, and again after they were lost: a call under way then is kUnavailable and never
// repeated by itself. kInvalidArgument: no such url; kUnsupported: rediss://, the client library has no TLS.
Result<std::unique_ptr<State>> open_redis(const std::string& url, RedisOptions options = {});

}  // namespace tessera::store
