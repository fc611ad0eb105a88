#include "gateway/header_writer.h"

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

std::shared_ptr<net::ResponseWriter> with_headers(std::shared_ptr<net::ResponseWriter> inner,
                                                  net::Headers extra) {
  return std::make_shared<HeaderWriter>(std::move(inner), std::move(extra));
}

}  // namespace tessera::gateway
