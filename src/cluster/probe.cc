#include "cluster/probe.h"

#include <utility>

namespace tessera::cluster {
namespace {

// Ends with the first token of a session, or with its failure.
class ProbeObserver final : public SessionObserver {
 public:
  explicit ProbeObserver(std::function<void(Status)> done) : done_(std::move(done)) {}
  void on_started(int) override {}
  void on_token(const Token&) override { finish(Status()); }
  void on_failed(const Status& reason) override { finish(reason); }

 private:
  void finish(const Status& status) {
    if (done_) std::exchange(done_, nullptr)(status);
  }
  std::function<void(Status)> done_;
};

}  // namespace

void probe(SessionManager& sessions, TokenId token, std::function<void(Status)> done) {
  SessionRequest request;
  request.prompt = {token};
  request.params.temperature = 0;
  request.params.max_tokens = 1;
  auto observer = std::make_shared<ProbeObserver>(std::move(done));
  auto submitted = sessions.submit(std::move(request), observer);
  if (!submitted.ok()) observer->on_failed(submitted.status());
}

}  // namespace tessera::cluster
