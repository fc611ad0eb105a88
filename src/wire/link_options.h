// Limits and times of a connection, the same for all kinds of links.
#pragma once

#include <chrono>
#include <cstdint>

#include "wire/codec.h"

namespace tessera::wire {

struct LinkOptions {
  // A peer that answers nothing for keepalive_time + keepalive_timeout is dead; a closed socket (a killed
  // process) is noticed at once.
  std::chrono::milliseconds keepalive_time{1000};
  std::chrono::milliseconds keepalive_timeout{2000};
  std::chrono::milliseconds connect_timeout{3000};  // of one address, until the peer's first message
  std::chrono::milliseconds first_backoff{100};     // doubles with each failure, ±25 % jitter
  std::chrono::milliseconds longest_backoff{5000};
  uint64_t max_message_bytes = kMaxBundleBytes;    // received
  uint64_t max_queue_bytes = uint64_t{128} << 20;  // waiting to be sent on one stream
};

}  // namespace tessera::wire
