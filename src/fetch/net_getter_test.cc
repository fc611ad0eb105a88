// The whole road over real sockets: a hub that speaks raw HTTP, and breaks off, pulled through net's client.
#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <nlohmann/json.hpp>
#include <thread>

#include "base/files.h"
#include "base/sha256.h"
#include "fetch/fake_hub.h"
#include "fetch/pull.h"

namespace tessera::fetch {
namespace {

namespace fs = std::filesystem;

std::string answer(const std::string& status, const std::string& headers, const std::string& body) {
  return "HTTP/1.1 " + status + "\r\nConnection: close\r\n" + headers +
         "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body;
}

// Serves one model of two files, one connection for each request. The weights answer with a redirect, then an
// error, then a transfer that breaks off half way, then with the range asked for.
class SocketHub {
 public:
  explicit SocketHub(std::string weights) : weights_(std::move(weights)) {
    listener_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    auto* generic = reinterpret_cast<sockaddr*>(&address);
    if (::bind(listener_, generic, size) != 0 || ::listen(listener_, 16) != 0) ADD_FAILURE() << "no socket";
    ::getsockname(listener_, generic, &size);
    port_ = ntohs(address.sin_port);
    thread_ = std::thread([this] { run(); });
  }
  ~SocketHub() { stop(); }
  void stop() {
    if (!thread_.joinable()) return;
    ::shutdown(listener_, SHUT_RDWR);
    thread_.join();
    ::close(listener_);
  }
  std::string endpoint() const { return "http://127.0.0.1:" + std::to_string(port_); }
  size_t resumed_at() const { return resumed_at_; }

 private:
  void run() {
    for (;;) {
      const int fd = ::accept(listener_, nullptr, nullptr);
      if (fd < 0) return;
      std::string request;
      char buffer[4096];
      while (request.find("\r\n\r\n") == std::string::npos) {
        const ssize_t got = ::read(fd, buffer, sizeof buffer);
        if (got <= 0) break;
        request.append(buffer, static_cast<size_t>(got));
      }
      const std::string reply = reply_to(request);
      for (size_t sent = 0; sent < reply.size();) {
        const ssize_t put = ::send(fd, reply.data() + sent, reply.size() - sent, MSG_NOSIGNAL);
        if (put <= 0) break;
        sent += static_cast<size_t>(put);
      }
      ::close(fd);
    }
  }

  std::string reply_to(const std::string& request) {
    const std::string target = request.substr(0, request.find(" HTTP/")).substr(4);
    if (request.find("Authorization: Bearer t0ken\r\n") == std::string::npos)
      return answer("401 Unauthorized", "", "{}");
    if (target.starts_with("/api/models/org/name/tree/main?")) return answer("200 OK", "", tree());
    if (target == "/org/name/resolve/main/config.json") return answer("200 OK", "", "{}");
    if (target == "/org/name/resolve/main/model.safetensors")
      return answer("302 Found", "Location: /blobs/w\r\n", "moved");
    if (target != "/blobs/w") return answer("404 Not Found", "", "");
    const int visit = visits_++;
    if (visit == 0) return answer("500 Internal Server Error", "", "oops");
    const std::string whole = answer("200 OK", "", weights_);
    if (visit == 1) return whole.substr(0, whole.size() / 2);
    const size_t range = request.find("Range: bytes=");
    if (range == std::string::npos) return whole;
    resumed_at_ = std::stoul(request.substr(range + 13));
    return answer("206 Partial Content",
                  "Content-Range: bytes " + std::to_string(resumed_at_) + "-" +
                      std::to_string(weights_.size() - 1) + "/" + std::to_string(weights_.size()) + "\r\n",
                  weights_.substr(resumed_at_));
  }

  std::string tree() const {
    nlohmann::json config = {{"type", "file"}, {"path", "config.json"}, {"size", 2}};
    config["oid"] = git_blob_id(as_bytes("{}"));
    nlohmann::json weights = {{"type", "file"}, {"path", "model.safetensors"}, {"oid", std::string(40, 'e')}};
    weights["lfs"] = {{"oid", to_hex(sha256(as_bytes(weights_)))}, {"size", weights_.size()}};
    return nlohmann::json::array({config, weights}).dump();
  }

  const std::string weights_;
  int listener_ = -1;
  uint16_t port_ = 0;
  int visits_ = 0;
  std::atomic<size_t> resumed_at_{0};
  std::thread thread_;
};

TEST(NetGetter, PullsAModelOverFaultySockets) {
  std::string weights(300'000, '\0');
  for (size_t i = 0; i < weights.size(); ++i) weights[i] = static_cast<char>(i * 31 >> 3);
  SocketHub hub(weights);
  const fs::path folder = fs::path(::testing::TempDir()) / ("net_getter_" + std::to_string(::getpid()));
  const ModelStore store{folder / "models"};
  PullOptions options;
  options.hf_endpoint = hub.endpoint();
  options.retry = FakeHub::quick();
  const Catalogue catalogue = Catalogue::built_in();
  EXPECT_EQ(pull_model("org/name", store, catalogue, options).status().code(), Code::kPermissionDenied);
  options.hf_token = "t0ken";
  auto path = pull_model("org/name", store, catalogue, options);
  ASSERT_TRUE(path.ok()) << path.status().to_string();
  EXPECT_EQ(*read_file(*path / "model.safetensors"), weights);
  EXPECT_GT(hub.resumed_at(), 0u);
  EXPECT_EQ(pull_model("org/other", store, catalogue, options).status().code(), Code::kNotFound);
  hub.stop();
  EXPECT_TRUE(resolve_model("org/name", store, catalogue).ok());
  EXPECT_EQ(pull_model("org/name", store, catalogue, options).status().code(), Code::kUnavailable);
  fs::remove_all(folder);
}

}  // namespace
}  // namespace tessera::fetch
