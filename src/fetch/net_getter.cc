#include "fetch/http.h"
#include "net/http_client.h"

namespace tessera::fetch {
namespace {

constexpr uint64_t kMaxRefusalBytes = 1 << 20;

class NetGetter final : public HttpGetter {
 public:
  Result<HttpHead> get(const HttpGet& request, const BodySink& sink) override {
    net::HttpClientRequest sent;
    sent.url = request.url;
    sent.headers = request.headers;
    sent.range_from = request.range_from;
    sent.max_redirects = 0;
    sent.max_body_bytes = kMaxRefusalBytes;  // of what is not 2xx
    HttpHead head;
    Status refused;
    sent.on_head = [&](const net::HttpReply& reply) {
      head = {reply.status, reply.headers};
      return true;
    };
    sent.on_body = [&](std::string_view piece) {
      refused = sink(head, piece);
      return refused.ok();
    };
    auto reply = net::http_request(sent);
    if (!refused.ok()) return refused;
    if (!reply.ok()) return reply.status();
    return HttpHead{reply->status, std::move(reply->headers)};
  }
};

}  // namespace

std::unique_ptr<HttpGetter> make_net_getter() {
  return std::make_unique<NetGetter>();
}

}  // namespace tessera::fetch
