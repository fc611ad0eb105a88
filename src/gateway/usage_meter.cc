#include "gateway/usage_meter.h"

#include "obs/log.h"

namespace tessera::gateway {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kGather{5};  // so that many requests share one commit
constexpr milliseconds kRetry{1000};

// Tokens and the end may come from different threads.
class Measured final : public api::CompletionObserver {
 public:
  Measured(UsageMeter& meter, const Clock& clock, control::UsageRecord record,
           std::shared_ptr<api::CompletionObserver> inner, std::function<void(int64_t)> on_used)
      : meter_(meter),
        clock_(clock),
        inner_(std::move(inner)),
        on_used_(std::move(on_used)),
        record_(std::move(record)) {}
  // Dropped unanswered: the server has told the client 500.
  ~Measured() override { end(500, {}); }

  void on_model(const std::string& model) override {
    {
      MutexLock lock(mutex_);
      record_.model = model;
    }
    inner_->on_model(model);
  }
  void on_prompt(int tokens) override {
    {
      MutexLock lock(mutex_);
      record_.prompt_tokens = tokens;
    }
    inner_->on_prompt(tokens);
  }
  void on_tokens(int choice, int count) override {
    {
      MutexLock lock(mutex_);
      record_.completion_tokens += count;
    }
    inner_->on_tokens(choice, count);
  }
  void on_end(int status, const api::Usage& usage) override {
    end(status, usage);
    inner_->on_end(status, usage);
  }

 private:
  void end(int status, const api::Usage& usage) {
    control::UsageRecord record;
    {
      MutexLock lock(mutex_);
      if (std::exchange(ended_, true)) return;
      record = record_;
    }
    // The completer's own count, where the answer came whole.
    if (usage.prompt_tokens > 0) record.prompt_tokens = usage.prompt_tokens;
    if (usage.completion_tokens > 0) record.completion_tokens = usage.completion_tokens;
    record.cached_tokens = usage.cached_tokens;
    record.status = status;
    record.quantity = record.prompt_tokens + record.completion_tokens;
    record.ended_unix_ms = clock_.unix_time_ms();
    if (record.quantity == 0 && status == 200) {  // an engine that counts no tokens
      record.type = control::UsageType::kLlmRequests;
      record.quantity = 1;
    }
    const int64_t tokens = record.prompt_tokens + record.completion_tokens;
    if (!record.model.empty()) meter_.add(std::move(record));
    if (on_used_) on_used_(tokens);
  }

  UsageMeter& meter_;
  const Clock& clock_;
  const std::shared_ptr<api::CompletionObserver> inner_;
  const std::function<void(int64_t)> on_used_;
  Mutex mutex_;
  control::UsageRecord record_ TESSERA_GUARDED_BY(mutex_);
  bool ended_ TESSERA_GUARDED_BY(mutex_) = false;
};

}  // namespace

UsageMeter::UsageMeter(control::Usage& usage, Executor& work, const Clock& clock)
    : usage_(usage), work_(work), clock_(clock) {}

std::shared_ptr<api::CompletionObserver> UsageMeter::measure(const api::Caller& caller,
                                                             const std::string& request_id,
                                                             std::shared_ptr<api::CompletionObserver> inner,
                                                             std::function<void(int64_t)> on_used) {
  control::UsageRecord record;
  if (auto id = control::Usage::draw_id(); id.ok()) record.id = *id;
  record.request_id = request_id;
  record.enterprise = caller.tenant;
  record.key = caller.key;
  record.started_unix_ms = clock_.unix_time_ms();
  return std::make_shared<Measured>(*this, clock_, std::move(record), std::move(inner), std::move(on_used));
}

void UsageMeter::add(control::UsageRecord record) {
  MutexLock lock(mutex_);
  if (pending_.size() >= kMostPending) {
    obs::log_error("usage", "a usage record is lost: the database has been away for too long",
                   {{"usage", pending_.front().id}, {"enterprise", pending_.front().enterprise}});
    pending_.pop_front();
  }
  pending_.push_back(std::move(record));
  if (std::exchange(scheduled_, true)) return;
  schedule(kGather);
}

void UsageMeter::schedule(milliseconds delay) {
  work_.post_after(delay, [this] {
    const Status status = write_batch();
    if (!status.ok())
      obs::log_warn("usage", "usage could not be written; it is tried again", {{"error", status.message()}});
    MutexLock lock(mutex_);
    scheduled_ = !pending_.empty();
    if (scheduled_) schedule(status.ok() ? milliseconds(0) : kRetry);
  });
}

Status UsageMeter::write_batch() {
  MutexLock writing(writing_);
  std::vector<control::UsageRecord> batch;
  {
    MutexLock lock(mutex_);
    const size_t count = std::min(pending_.size(), kBatch);
    batch.assign(pending_.begin(), pending_.begin() + static_cast<std::ptrdiff_t>(count));
  }
  if (batch.empty()) return {};
  const size_t count = batch.size();
  const std::string first = batch.front().id;
  TESSERA_RETURN_IF_ERROR(usage_.record(std::move(batch)));
  MutexLock lock(mutex_);
  // Not the whole batch where some were dropped for want of room meanwhile: records written twice count once.
  if (!pending_.empty() && pending_.front().id == first)
    pending_.erase(pending_.begin(), pending_.begin() + static_cast<std::ptrdiff_t>(count));
  return {};
}

Status UsageMeter::flush() {
  while (pending() > 0) TESSERA_RETURN_IF_ERROR(write_batch());
  return {};
}

size_t UsageMeter::pending() const {
  MutexLock lock(mutex_);
  return pending_.size();
}

}  // namespace tessera::gateway
