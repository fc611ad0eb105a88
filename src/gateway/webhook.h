// Telling other people's servers that a job has ended.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "control/jobs.h"

namespace tessera::gateway {

// InvalidArgument with a sentence unless it is an http(s) URL of one of these hosts ("*": of any).
Status check_webhook(const std::string& url, const std::vector<std::string>& allowed_hosts);

// "t=UNIX_SECONDS,v1=HEX": HMAC-SHA256 with the job's webhook secret over "UNIX_SECONDS.BODY".
std::string webhook_signature(std::string_view secret, int64_t unix_s, std::string_view body);

// Posts the job; ok when the other side answered 2xx. Blocks, for ten seconds at most.
Status deliver_webhook(const control::WebhookDelivery& delivery, int64_t unix_s);

}  // namespace tessera::gateway
