#include "gateway/cors.h"

#include <algorithm>

namespace tessera::gateway {
namespace {

class HeaderWriter final : public net::ResponseWriter {
 public:
  HeaderWriter(std::shared_ptr<net::ResponseWriter> inner, net::Headers extra)
      : inner_(std::move(inner)), extra_(std::move(extra)) {}

  void send(net::HttpResponse response) override {
    response.headers.insert(response.headers.end(), extra_.begin(), extra_.end());
    inner_->send(std::move(response));
  }
  void begin_stream(int status, std::string content_type, net::Headers headers) override {
    headers.insert(headers.end(), extra_.begin(), extra_.end());
    inner_->begin_stream(status, std::move(content_type), std::move(headers));
  }
  bool write(std::string chunk) override { return inner_->write(std::move(chunk)); }
  void end_stream() override { inner_->end_stream(); }
  bool client_gone() const override { return inner_->client_gone(); }
  void on_client_gone(std::function<void()> callback) override {
    inner_->on_client_gone(std::move(callback));
  }

 private:
  const std::shared_ptr<net::ResponseWriter> inner_;
  const net::Headers extra_;
};

}  // namespace

Cors::Cors(std::vector<std::string> origins) : origins_(std::move(origins)) {}

net::Headers Cors::headers_for(const net::HttpRequest& request) const {
  const std::string* origin = request.header("origin");
  if (!origin) return {};
  const auto allowed = [&](const std::string& o) { return o == "*" || o == *origin; };
  const auto match = std::find_if(origins_.begin(), origins_.end(), allowed);
  if (match == origins_.end()) return {};
  return {{"Access-Control-Allow-Origin", *match},
          {"Vary", "Origin"},
          {"Access-Control-Expose-Headers", "X-Request-Id, Retry-After"}};
}

std::optional<net::HttpResponse> Cors::preflight(const net::HttpRequest& request) const {
  if (request.method != "OPTIONS" || !request.header("access-control-request-method")) return std::nullopt;
  net::HttpResponse response;
  response.status = 204;
  response.content_type.clear();
  response.headers = headers_for(request);
  if (response.headers.empty()) return std::nullopt;
  const std::string* wanted = request.header("access-control-request-headers");
  response.headers.emplace_back("Access-Control-Allow-Methods", "GET, POST, OPTIONS");
  response.headers.emplace_back("Access-Control-Allow-Headers",
                                wanted ? *wanted : "Authorization, Content-Type");
  response.headers.emplace_back("Access-Control-Max-Age", "600");
  return response;
}

std::shared_ptr<net::ResponseWriter> Cors::wrap(const net::HttpRequest& request,
                                                std::shared_ptr<net::ResponseWriter> writer) const {
  net::Headers headers = headers_for(request);
  if (headers.empty()) return writer;
  return std::make_shared<HeaderWriter>(std::move(writer), std::move(headers));
}

}  // namespace tessera::gateway
