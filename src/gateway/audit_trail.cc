#include "gateway/audit_trail.h"

#include <atomic>

#include "obs/log.h"

namespace tessera::gateway {
namespace {

constexpr std::chrono::seconds kRetry{1};

// Hears the answer's status, which the caller may not have kept from being sent.
class Followed final : public api::CompletionObserver {
 public:
  Followed(AuditTrail& trail, control::AuditEntry entry, std::shared_ptr<api::CompletionObserver> inner)
      : trail_(trail), entry_(std::move(entry)), inner_(std::move(inner)) {}
  ~Followed() override { write(500); }
  void on_model(const std::string& model) override { inner_->on_model(model); }
  void on_prompt(int tokens) override { inner_->on_prompt(tokens); }
  void on_tokens(int choice, int count) override { inner_->on_tokens(choice, count); }
  void on_end(int status, const api::Usage& usage) override {
    write(status);
    inner_->on_end(status, usage);
  }

 private:
  void write(int status) {
    if (written_.exchange(true)) return;
    entry_.status = status;
    trail_.write(std::move(entry_));
  }
  AuditTrail& trail_;
  control::AuditEntry entry_;
  const std::shared_ptr<api::CompletionObserver> inner_;
  std::atomic<bool> written_{false};
};

}  // namespace

Call AuditTrail::follow(const Route& route, Call call) {
  if (route.method == "GET" ||
      (!route.audited && (route.access == Access::kOpen || route.access == Access::kClient)))
    return call;
  control::AuditEntry entry;
  if (call.caller) entry.actor = call.caller->key;
  entry.address = call.request->remote_address;
  entry.action = route.method + " " + route.path;
  entry.target = call.request->path;
  call.record = std::make_shared<Followed>(*this, std::move(entry), std::move(call.record));
  return call;
}

void AuditTrail::write(control::AuditEntry entry) {
  work_.post([this, entry = std::move(entry)] {
    const Status status = audit_.append(entry);
    if (status.ok()) return;
    // Never silently: the log has it even if the database comes back too late.
    obs::log_error("audit", "an entry could not be written; it is tried again",
                   {{"actor", entry.actor},
                    {"action", entry.action},
                    {"target", entry.target},
                    {"status", entry.status},
                    {"error", status.message()}});
    work_.post_after(kRetry, [this, entry] { write(entry); });
  });
}

}  // namespace tessera::gateway
