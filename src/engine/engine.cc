#include "engine/engine.h"

#include <pthread.h>

#include <algorithm>
#include <chrono>

#include "engine/engine_loop.h"

namespace tessera::engine {
namespace {

constexpr std::chrono::hours kIdleWait{1};  // a message or stop() ends it

double seconds_since(std::chrono::steady_clock::time_point begin) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

SchedulerOptions scheduler_options(const Stage& stage, const EngineOptions& options) {
  return {stage.kv_pages(),      options.max_batch_tokens, stage.max_logit_rows(),
          options.max_sequences, stage.model().is_tail(),  stage.model().is_head() && options.overlap_hops,
          options.overlap_hops};
}

}  // namespace

Result<std::unique_ptr<Engine>> Engine::create(std::unique_ptr<model::Model> model,
                                               std::unique_ptr<tensor::Backend> backend,
                                               EngineOptions options, MessageSink& sink,
                                               obs::Metrics* metrics) {
  const int own_context = model->spec().context_length;
  if (options.context_length == 0) options.context_length = own_context;
  if (options.context_length < 1 || options.context_length > own_context)
    return invalid_argument("--context " + std::to_string(options.context_length) +
                            " is outside of what the model was made for: 1 to " +
                            std::to_string(own_context));
  if (options.max_batch_tokens < 1 || options.max_sequences < 1)
    return invalid_argument("--max-batch-tokens and --max-sequences must be at least 1");
  TESSERA_ASSIGN_OR_RETURN(std::unique_ptr<Stage> stage,
                           Stage::create(std::move(model), std::move(backend),
                                         {options.kv_memory_bytes, options.kv_dtype, options.context_length,
                                          options.max_batch_tokens, options.max_sequences}));
  return std::unique_ptr<Engine>(
      std::make_unique<EngineLoop>(std::move(stage), std::move(options), sink, metrics));
}

EngineLoop::EngineLoop(std::unique_ptr<Stage> stage, EngineOptions options, MessageSink& sink,
                       obs::Metrics* metrics)
    : options_(std::move(options)),
      sink_(sink),
      stage_(std::move(stage)),
      is_head_(stage_->model().is_head()),
      is_tail_(stage_->model().is_tail()),
      identity_(options_.model_identity + "|" + stage_->model().numerics().to_string()),
      queue_(options_.queue_capacity),
      scheduler_(scheduler_options(*stage_, options_)),
      outputs_(stage_->kv_pages(), stage_->model().spec().hidden,
               is_tail_ ? 0 : options_.output_memory_bytes) {
  if (metrics != nullptr)
    metrics_.emplace(*metrics, options_.model_name.empty() ? spec().family : options_.model_name,
                     options_.worker_name);
  publish();
}

void EngineLoop::start() {
  TESSERA_CHECK(!thread_.joinable(), "the engine was started twice");
  thread_ = std::thread([this] { loop(); });
  pthread_setname_np(thread_.native_handle(), "engine");
}

void EngineLoop::stop() {
  std::call_once(stop_once_, [this] {
    queue_.close();
    if (thread_.joinable())
      thread_.join();
    else
      end_all(unavailable("the worker is stopping"));
  });
}

void EngineLoop::loop() {
  while (!queue_.closed()) {
    if (run_once()) continue;
    if (std::optional<Posted> posted = queue_.pop(kIdleWait)) {
      handle(std::move(*posted));
      publish();
    }
  }
  end_all(unavailable("the worker is stopping"));
}

void EngineLoop::end_all(const Status& reason) {
  while (!sequences_.empty()) fail(*sequences_.begin()->second, reason);
  for (const Posted& posted : queue_.drain())
    if (const auto* open = std::get_if<OpenSession>(&posted.message))
      sink_.send(open->gateway, Refused{open->session, open->epoch, open->hop, reason});
  publish();
}

EngineStats EngineLoop::stats() const {
  MutexLock lock(stats_mutex_);
  return stats_;
}

void EngineLoop::publish() {
  const kv::BlockPool& pool = scheduler_.pool();
  counts_.kv_free = pool.free();
  counts_.kv_cached = pool.cached();
  counts_.kv_used = pool.used();
  counts_.kv_total = pool.total();
  counts_.running = scheduler_.running();
  if (metrics_) metrics_->update(counts_);
  MutexLock lock(stats_mutex_);
  stats_ = counts_;
}

bool EngineLoop::run_once() {
  const auto begin = std::chrono::steady_clock::now();
  const double device_before = counts_.device_seconds;
  std::vector<Posted> messages = queue_.drain();
  for (Posted& posted : messages) handle(std::move(posted));
  const bool stepped = step();
  if (messages.empty() && !stepped) {
    check_when_idle();
    return false;
  }
  const double seconds = seconds_since(begin);
  counts_.scheduler_seconds += seconds - (counts_.device_seconds - device_before);
  if (stepped && metrics_) metrics_->observe_step(seconds);
  publish();
  return true;
}

void EngineLoop::check_when_idle() {
  if (!sequences_.empty() || checked_steps_ == counts_.steps) return;
  TESSERA_CHECK(scheduler_.check() && counts_.kv_used == 0, "KV pages are lost (invariant I6)");
  checked_steps_ = counts_.steps;
}

bool EngineLoop::step() {
  const std::span<const StepItem> items = scheduler_.plan();
  const bool preempted = drop_preempted();
  if (items.empty()) return preempted;
  fill_plan(items);
  StepTimes times{std::chrono::steady_clock::now(), {}};
  stage_->run(plan_, result_);
  times.end = std::chrono::steady_clock::now();
  counts_.device_seconds += std::chrono::duration<double>(times.end - times.begin).count();
  ++counts_.steps;
  counts_.last_batch_rows = plan_.rows;
  if (options_.prefill_step.count() > 0)
    bound_prefill(items, std::chrono::duration<double>(times.end - times.begin).count());
  take_results(items, times);
  return true;
}

void EngineLoop::bound_prefill(std::span<const StepItem> items, double seconds) {
  constexpr int kFewestRows = 16;  // as many as a matrix product needs to be worth its weights' bytes
  const auto average = [](double& mean, double value) {
    mean = mean == 0 ? value : 0.8 * mean + 0.2 * value;
  };
  const bool decode_only = std::all_of(items.begin(), items.end(),
                                       [](const StepItem& item) { return item.sequence->is_decoding(); });
  if (decode_only) {
    average(decode_step_s_, seconds);
    return;
  }
  if (plan_.rows < kFewestRows) return;
  average(row_s_, seconds / plan_.rows);
  const double wanted =
      std::max(std::chrono::duration<double>(options_.prefill_step).count(), 2 * decode_step_s_);
  const double rows = std::min(wanted / std::max(row_s_, 1e-9), 1e6);
  scheduler_.set_prefill_rows(std::max(static_cast<int>(rows), kFewestRows));
}

bool EngineLoop::drop_preempted() {
  const std::vector<Sequence*> preempted = scheduler_.take_preempted();
  for (Sequence* sequence : preempted) {
    ++counts_.preemptions;
    give_up(*sequence);
  }
  return !preempted.empty();
}

void EngineLoop::fill_plan(std::span<const StepItem> items) {
  plan_.rows = 0;
  plan_.tokens.clear();
  plan_.samples.clear();
  hidden_.clear();
  plan_.sequences.resize(items.size());  // written over below: clearing them first costs as much
  samples_.resize(is_tail_ ? items.size() : 0);
  for (size_t i = 0; i < items.size(); ++i) {
    const StepItem& item = items[i];
    const Sequence& s = *item.sequence;
    plan_.sequences[i] = {s.id, s.epoch, plan_.rows, item.rows, item.start, s.rope_variant, s.pages.view()};
    if (is_head_ && item.rows == 1) {
      plan_.tokens.push_back(s.tokens[static_cast<size_t>(item.start)]);
    } else if (is_head_) {
      auto begin = s.tokens.begin() + item.start;
      plan_.tokens.insert(plan_.tokens.end(), begin, begin + item.rows);
    } else {
      auto begin = s.hidden.begin() + static_cast<std::ptrdiff_t>(s.hidden_begin);
      hidden_.insert(hidden_.end(), begin, begin + std::ptrdiff_t{item.rows} * spec().hidden);
    }
    if (is_tail_) samples_[i] = add_samples(item, plan_.rows);
    (s.is_decoding() ? counts_.decode_tokens : counts_.prefill_tokens) += item.rows;
    plan_.rows += item.rows;
  }
  plan_.hidden = hidden_;
}

EngineLoop::Samples EngineLoop::add_samples(const StepItem& item, int first_row) {
  const Sequence& s = *item.sequence;
  Samples samples{static_cast<int>(plan_.samples.size()), 0, false};
  if (s.sampling.scores_prompt()) samples.scored = s.sampling.scored_rows(item.start, item.rows);
  for (int i = 0; i < samples.scored; ++i) {
    const int position = item.start + i + 1;
    s.sampling.score_prompt(first_row + i, position, s.tokens[static_cast<size_t>(position)],
                            plan_.samples.emplace_back());
  }
  const int position = item.start + item.rows;
  samples.next = item.sample && s.sampling.tokens_left(position) > 0;
  if (samples.next) s.sampling.next_token(first_row + item.rows - 1, position, plan_.samples.emplace_back());
  return samples;
}

void EngineLoop::take_results(std::span<const StepItem> items, const StepTimes& times) {
  int first_row = 0;
  for (size_t i = 0; i < items.size(); ++i) {
    const StepItem& item = items[i];
    Sequence& s = *item.sequence;
    s.kv_length += item.rows;
    counts_.recomputed_tokens += std::clamp(s.high_water - item.start, 0, item.rows);
    if (item.sample) s.sample_at_end = false;
    if (!is_head_) {
      s.hidden_begin += static_cast<size_t>(item.rows) * static_cast<size_t>(spec().hidden);
      if (s.hidden_begin == s.hidden.size()) {
        s.hidden.clear();
        s.hidden_begin = 0;
      }
    }
    if (is_tail_) {
      scheduler_.name_full_blocks(s);
      const bool traced = s.timer != nullptr;
      const SessionId id = s.id;
      take_samples(s, item.start, samples_[i], item.sample);  // may end the sequence
      if (traced && sequences_.count(id) > 0) report_times(s, item, times);
    } else {
      pass_on(item, first_row);
      if (s.timer != nullptr) report_times(s, item, times);
      scheduler_.name_full_blocks(s);
    }
    first_row += item.rows;
  }
}

void EngineLoop::start_timing(Sequence& sequence) {
  if (sequence.timer == nullptr) return;
  sequence.timer->arrived = posted_at_;
  sequence.timer->taken_up = std::chrono::steady_clock::now();
}

void EngineLoop::report_times(Sequence& s, const StepItem& item, const StepTimes& times) {
  const auto now = std::chrono::steady_clock::now();
  const auto us = [](auto from, auto to) {
    return std::chrono::duration_cast<std::chrono::microseconds>(to - from).count();
  };
  StepTimer& timer = *s.timer;
  StepTrace trace{s.id, s.epoch, s.hop, item.start + item.rows - 1, item.rows, plan_.rows};
  if (timer.arrived.time_since_epoch().count() > 0) {
    trace.wake_us = us(timer.arrived, timer.taken_up);
    trace.queue_us = us(timer.taken_up, times.begin);
  }
  trace.compute_us = us(times.begin, times.end);
  trace.send_us = us(times.end, now);
  // A route of one hop goes on by itself; on others the next message says when.
  timer.arrived = timer.taken_up = now;
  sink_.send(s.gateway, trace);
  if (--timer.steps_left <= 0) s.timer = nullptr;
}

void EngineLoop::pass_on(const StepItem& item, int first_row) {
  const Sequence& s = *item.sequence;
  const std::ptrdiff_t hidden_size = spec().hidden;
  const auto begin = result_.hidden.begin() + first_row * hidden_size;
  const auto end = begin + item.rows * hidden_size;
  outputs_.keep(s.pages.view(), item.start, {begin, end});
  const int skipped = std::clamp(s.send_from - item.start, 0, item.rows);
  if (skipped == item.rows) return;
  send_rows(s, item.start + skipped, {begin + skipped * hidden_size, end}, item.sample, false);
}

// Rows of positions first, first + 1, … to the next hop.
void EngineLoop::send_rows(const Sequence& s, int first, std::vector<float> hidden, bool sample,
                           bool replay) {
  const Hop& own = (*s.route)[static_cast<size_t>(s.hop)];
  const auto count = static_cast<std::ptrdiff_t>(hidden.size()) / spec().hidden;
  Rows rows;
  rows.session = s.id;
  rows.epoch = s.epoch;
  rows.start = first;
  rows.tokens.assign(s.tokens.begin() + first, s.tokens.begin() + first + count);
  rows.hidden = std::move(hidden);
  rows.sample = sample;
  rows.replay = replay;
  rows.encoding = own.encoding;
  rows.ticket = s.ticket;
  sink_.send((*s.route)[static_cast<size_t>(s.hop) + 1].worker, std::move(rows));
}

void EngineLoop::take_samples(Sequence& s, int start, const Samples& samples, bool sample) {
  auto sampled = result_.sampled.begin() + samples.first;
  for (int i = 0; i < samples.scored; ++i, ++sampled) {
    if (sampled->token < 0) {
      fail(s, internal_error("the model gave no finite logits"));
      return;
    }
    s.sampling.keep_score(start + i + 1, std::move(*sampled));
  }
  if (!sample) return;

  const int position = s.kv_length;
  SampledToken none;  // the limit was reached before
  SampledToken& chosen = samples.next ? *sampled : none;
  FinishReason finish = FinishReason::kLength;
  if (samples.next) {
    if (chosen.token < 0) {
      fail(s, internal_error("the model gave no finite logits"));
      return;
    }
    finish = s.sampling.accept(chosen.token, position);
  }
  const bool goes_on = finish == FinishReason::kNone;
  if (goes_on) {
    s.tokens.push_back(chosen.token);
    if (is_head_) {
      s.input_end = position + 1;
      s.sample_at_end = true;
    }
  }
  constexpr std::in_place_type_t<Token> kToken{};  // made in place: this runs for every token
  if (!is_head_)
    sink_.send(s.route->front().worker, Message(kToken, s.id, s.epoch, position, chosen, finish,
                                                std::vector<SampledToken>(), s.ticket));
  sink_.send(s.gateway, Message(kToken, s.id, s.epoch, position, std::move(chosen), finish,
                                s.sampling.take_prompt_scores(), s.ticket));
  if (!goes_on) forget(s);
}

}  // namespace tessera::engine
