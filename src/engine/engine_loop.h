// EngineLoop: the Engine. Messages change sequences (engine_messages.cc), steps advance them (engine.cc).
#pragma once

#include <chrono>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <unordered_map>
#include <vector>

#include "base/queue.h"
#include "engine/engine.h"
#include "engine/engine_metrics.h"
#include "engine/epoch_fence.h"
#include "engine/output_store.h"
#include "engine/scheduler.h"
#include "engine/sequence.h"
#include "engine/stage.h"

namespace tessera::engine {

class EngineLoop final : public Engine {
 public:
  EngineLoop(std::unique_ptr<Stage> stage, EngineOptions options, MessageSink& sink, obs::Metrics* metrics);
  ~EngineLoop() override { EngineLoop::stop(); }

  const model::ModelSpec& spec() const override { return stage_->model().spec(); }
  BlockRange range() const override { return stage_->model().range(); }
  int context_length() const override { return options_.context_length; }
  const NumericsClass& numerics() const override { return stage_->model().numerics(); }

  void start() override;
  bool post(Message message) override {
    return queue_.try_push({std::move(message), std::chrono::steady_clock::now()});
  }
  EngineStats stats() const override;
  void stop() override;
  bool run_once() override;

 private:
  // Where an item's requests and answers are in the step.
  struct Samples {
    int first = 0;
    int scored = 0;  // prompt tokens
    bool next = false;
  };

  struct Posted {
    Message message;
    std::chrono::steady_clock::time_point at;
  };

  void loop();
  void end_all(const Status& reason);

  // --- messages (engine_messages.cc) ---
  void handle(Posted posted);
  void on(const OpenSession& message);
  void on(const StartSession& message);
  void on(Rows& message);
  void on(const Token& message);
  void on(const CloseSession& message);
  void on(const TraceSteps& message);
  Status validate(const OpenSession& message) const;
  Status open(const OpenSession& message);
  Status open_anew(const OpenSession& message);
  bool resume(Sequence& sequence, const OpenSession& message);
  Status start(Sequence& sequence, const StartSession& message);
  bool replay(Sequence& sequence, int last);
  Status accept_rows(Sequence& sequence, Rows& rows);
  Sequence* find(SessionId session, Epoch epoch);
  void fail(Sequence& sequence, Status reason);
  void give_up(Sequence& sequence);
  void forget(Sequence& sequence);

  // --- steps (engine.cc) ---
  struct StepTimes {
    std::chrono::steady_clock::time_point begin, end;
  };
  bool step();
  void bound_prefill(std::span<const StepItem> items, double seconds);
  bool drop_preempted();
  void fill_plan(std::span<const StepItem> items);
  Samples add_samples(const StepItem& item, int first_row);
  void take_results(std::span<const StepItem> items, const StepTimes& times);
  void start_timing(Sequence& sequence);
  void report_times(Sequence& sequence, const StepItem& item, const StepTimes& times);
  void pass_on(const StepItem& item, int first_row);
  void send_rows(const Sequence& sequence, int first, std::vector<float> hidden, bool sample, bool replay);
  void take_samples(Sequence& sequence, int start, const Samples& samples, bool sample);
  void publish();
  void check_when_idle();

  EngineOptions options_;  // context_length resolved
  MessageSink& sink_;
  const std::unique_ptr<Stage> stage_;
  const bool is_head_;
  const bool is_tail_;
  const std::string identity_;  // of KV: model and numerics
  BoundedQueue<Posted> queue_;

  // Engine thread only.
  Scheduler scheduler_;
  OutputStore outputs_;
  std::unordered_map<SessionId, std::unique_ptr<Sequence>> sequences_;
  EpochFence fence_{8192};
  uint64_t arrivals_ = 0;
  std::chrono::steady_clock::time_point posted_at_{};  // of the message in hand
  StepPlan plan_;
  StepResult result_;
  std::vector<float> hidden_;     // plan_.hidden
  std::vector<Samples> samples_;  // one per item
  EngineStats counts_;
  // Moving averages of what steps took, by which prompt rows are bounded (EngineOptions::prefill_step).
  double row_s_ = 0;           // a row of a step with prompt rows
  double decode_step_s_ = 0;   // a step without
  int64_t checked_steps_ = 0;  // steps when invariant I6 was last checked
  std::optional<EngineMetrics> metrics_;

  mutable Mutex stats_mutex_;
  EngineStats stats_ TESSERA_GUARDED_BY(stats_mutex_);
  std::once_flag stop_once_;
  std::thread thread_;
};

}  // namespace tessera::engine
