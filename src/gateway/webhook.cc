#include "gateway/webhook.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/sha256.h"
#include "gateway/job_json.h"
#include "net/http_client.h"

namespace tessera::gateway {
namespace {

constexpr std::chrono::seconds kTimeout{10};
constexpr uint64_t kMostReplyBytes = 1 << 20;

}  // namespace

Status check_webhook(const std::string& url, const std::vector<std::string>& allowed_hosts) {
  TESSERA_ASSIGN_OR_RETURN(const net::Url parts, net::parse_url(url));
  if (allowed_hosts.empty())
    return invalid_argument("this gateway sends no webhooks: its operator allows hosts with --webhook-host");
  const bool allowed = std::any_of(allowed_hosts.begin(), allowed_hosts.end(), [&](const std::string& host) {
    return host == "*" || host == parts.host;
  });
  if (!allowed) return invalid_argument("webhooks may not go to the host '" + parts.host + "'");
  return {};
}

std::string webhook_signature(std::string_view secret, int64_t unix_s, std::string_view body) {
  const std::string time = std::to_string(unix_s);
  const Digest sum = hmac_sha256(as_bytes(secret), as_bytes(time + "." + std::string(body)));
  return "t=" + time + ",v1=" + to_hex(sum);
}

Status deliver_webhook(const control::WebhookDelivery& delivery, int64_t unix_s) {
  const control::Job& job = delivery.job;
  net::HttpClientRequest request;
  request.method = "POST";
  request.url = job.request.webhook_url;
  request.body = dump_json(
      Json{{"event", std::string("job.") + control::job_state_name(job.state)}, {"job", job_json(job)}});
  request.headers = {
      {"Content-Type", "application/json"},
      {"X-Tessera-Delivery", job.id},  // the same at every attempt
      {"X-Tessera-Attempt", std::to_string(delivery.attempt)},
      {"X-Tessera-Signature", webhook_signature(job.request.webhook_secret, unix_s, request.body)}};
  request.connect_timeout = request.idle_timeout = request.total_timeout = kTimeout;
  request.max_redirects = 0;  // would lead to hosts that nobody allowed
  request.max_body_bytes = kMostReplyBytes;
  TESSERA_ASSIGN_OR_RETURN(const net::HttpReply reply, net::http_request(request));
  if (reply.status < 200 || reply.status > 299)
    return unavailable("the webhook's server answered " + std::to_string(reply.status));
  return {};
}

}  // namespace tessera::gateway
