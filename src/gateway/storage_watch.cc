#include "gateway/storage_watch.h"

#include <utility>

#include "obs/log.h"

namespace tessera::gateway {

StorageWatch::StorageWatch(store::Database* database, store::State* shared, obs::Health& health,
                           std::chrono::milliseconds period)
    : database_(database), shared_(shared), health_(health), period_(period) {
  if (database_ || shared_) thread_->post([this] { look(); });
}

StorageWatch::~StorageWatch() {
  thread_->stop();
}

void StorageWatch::look() {
  if (database_)
    tell("database", database_ok_, database_->execute("SELECT 1").status(),
         "away: nothing that must be kept is taken; running answers go on");
  if (shared_)
    tell("redis", shared_ok_, shared_->get("tessera:watch").status(),
         "away: limits hold for each gateway alone");
  thread_->post_after(period_, [this] { look(); });
}

void StorageWatch::tell(const std::string& part, bool& was_ok, const Status& status,
                        const std::string& meaning) {
  // The reason for people who administer is in the log; /health is open to everybody.
  health_.set_optional(part, status.ok(), meaning);
  if (std::exchange(was_ok, status.ok()) == status.ok()) return;
  if (status.ok())
    obs::log_info("storage", "the " + part + " is back");
  else
    obs::log_warn("storage", "the " + part + " is " + meaning, {{"error", status.message()}});
}

}  // namespace tessera::gateway
