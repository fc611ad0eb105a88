// TestCluster: toy engines behind an in-test transport and a gateway that keeps every promise of the
// protocol, all on one thread and in one order. Real sessions live in `cluster`; this one looks for broken
// promises.
#pragma once

#include <gtest/gtest.h>

#include <deque>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "engine/engine.h"
#include "engine/toy_model.h"

namespace tessera::engine::toy {

// One sequence at a time, without pages, batches or messages: what every engine must answer.
inline std::pair<std::vector<TokenId>, FinishReason> expected_output(const std::vector<TokenId>& prompt,
                                                                     const SamplingParams& params,
                                                                     const ToyOptions& options) {
  std::vector<TokenId> tokens = prompt;
  std::vector<TokenId> stops = params.stop_token_ids;
  if (!params.ignore_eos) stops.insert(stops.end(), options.end_tokens.begin(), options.end_tokens.end());
  const bool penalties =
      params.repetition_penalty != 1 || params.presence_penalty != 0 || params.frequency_penalty != 0;
  const int max_length = static_cast<int>(prompt.size()) + params.max_tokens;
  const int variant = toy_spec(options).rope_variant(max_length);
  std::vector<TokenId> output;
  while (static_cast<int>(output.size()) < params.max_tokens) {
    SampleRequest request;
    request.position = static_cast<int>(tokens.size());
    request.params = &params;
    std::vector<SampleRequest::TokenCount> counts;
    if (penalties) {
      std::map<TokenId, std::pair<int, int>> by_token;
      for (size_t i = 0; i < tokens.size(); ++i)
        ++(i < prompt.size() ? by_token[tokens[i]].first : by_token[tokens[i]].second);
      for (const auto& [token, count] : by_token) counts.push_back({token, count.first, count.second});
    }
    request.counts = counts;
    if (static_cast<int>(output.size()) < params.min_tokens) request.banned = stops;
    const TokenId token = sample(toy_reference(tokens, variant, options).back(), request, options).token;
    output.push_back(token);
    tokens.push_back(token);
    if (std::find(stops.begin(), stops.end(), token) != stops.end()) return {output, FinishReason::kStop};
  }
  return {output, FinishReason::kLength};
}

class TestCluster final : public MessageSink {
 public:
  struct Session {
    OpenSession open;  // of the latest epoch
    std::vector<TokenId> prompt;
    std::vector<TokenId> tokens;  // prompt and committed output
    std::vector<int> cached;      // per hop, -1 unanswered
    bool waiting = false;         // refused or preempted: opens again when there is room
    bool done = false;
    int first_start = -1;  // tokens the first open found cached on all hops
    int opens = 0;
    FinishReason finish = FinishReason::kNone;
    Status failure;
    std::vector<SampledToken> prompt_logprobs;
    std::vector<TokenId> output() const { return {tokens.begin() + std::ssize(prompt), tokens.end()}; }
  };

  TestCluster(const ToyOptions& toy, const std::vector<BlockRange>& ranges, EngineOptions options,
              obs::Metrics* metrics = nullptr)
      : toy_(toy) {
    Route route;
    std::vector<std::unique_ptr<Engine>> engines;
    for (size_t hop = 0; hop < ranges.size(); ++hop) {
      options.worker_name = "w" + std::to_string(hop);
      route.push_back({options.worker_name, ranges[hop]});
      auto engine = Engine::create(std::make_unique<ToyModel>(toy, ranges[hop]),
                                   std::make_unique<ToyBackend>(), options, *this, metrics);
      TESSERA_CHECK(engine.ok(), engine.status().message());
      engines.push_back(std::move(engine).value());
    }
    adopt(std::move(route), std::move(engines));
  }
  // Without engines: adopt() brings those of real models.
  TestCluster() = default;
  void adopt(Route route, std::vector<std::unique_ptr<Engine>> engines) {
    route_ = std::move(route);
    engines_ = std::move(engines);
  }
  ~TestCluster() override {
    expect_all_pages_accounted_for();
    engines_.clear();  // they may still send
  }

  SessionId submit(std::vector<TokenId> prompt, SamplingParams params, int priority = 0,
                   const std::string& salt = "") {
    const SessionId id = ++last_id_;
    Session& session = sessions_[id];
    session.prompt = prompt;
    session.tokens = std::move(prompt);
    session.open.session = id;
    session.open.gateway = "gateway";
    session.open.prompt_tokens = static_cast<int>(session.prompt.size());
    session.open.max_length = session.open.prompt_tokens + params.max_tokens;
    session.open.params = std::move(params);
    session.open.priority = priority;
    session.open.salt = salt;
    reopen(session);
    return id;
  }
  void cancel(SessionId id) {
    Session& session = sessions_.at(id);
    if (session.done) return;
    session.done = true;
    session.waiting = false;
    session.finish = FinishReason::kCancelled;
    close(session);
  }

  // Delivers what was sent, then every engine runs at most one step; false when nothing happened.
  bool turn() {
    bool busy = !mail_.empty();
    for (auto mail = std::exchange(mail_, {}); !mail.empty(); mail.pop_front()) deliver(mail.front());
    for (auto& engine : engines_) busy |= engine->run_once();
    expect_all_pages_accounted_for();
    return busy;
  }
  // Until all sessions have ended. Gives up when nobody makes progress.
  void run() {
    for (int idle = 0; idle < 3;) {
      if (turn()) {
        idle = 0;
        continue;
      }
      bool reopened = false;
      for (auto& [id, session] : sessions_) {
        if (!session.waiting) continue;
        reopen(session);
        reopened = true;
        break;  // one at a time, the oldest first
      }
      idle = reopened ? 0 : idle + 1;
      ASSERT_LT(++reopens_, 100000) << "sessions are opened again and again without an end";
    }
    for (auto& [id, session] : sessions_) EXPECT_TRUE(session.done) << "session " << id << " never ended";
    for (auto& engine : engines_) EXPECT_EQ(engine->stats().kv_used, 0) << "pages of ended sessions";
  }

  void send(const std::string& to, Message message) override { mail_.emplace_back(to, std::move(message)); }

  void expect_all_pages_accounted_for() const {
    for (const auto& engine : engines_) {
      const EngineStats s = engine->stats();
      EXPECT_EQ(s.kv_free + s.kv_cached + s.kv_used, s.kv_total);
    }
  }
  void expect_reference(SessionId id) {
    const Session& session = sessions_.at(id);
    EXPECT_TRUE(session.failure.ok()) << session.failure.to_string();
    const auto [tokens, finish] = expected_output(session.prompt, session.open.params, toy_);
    EXPECT_EQ(session.output(), tokens) << "session " << id;
    EXPECT_EQ(session.finish, finish) << "session " << id;
  }

  Session& session(SessionId id) { return sessions_.at(id); }
  Engine& engine(size_t hop) { return *engines_[hop]; }
  const Route& route() const { return route_; }

 private:
  void reopen(Session& session) {
    session.waiting = false;
    ++session.opens;
    ++session.open.epoch;
    session.open.route = std::make_shared<const Route>(route_);
    session.open.tokens = std::make_shared<const std::vector<TokenId>>(session.tokens);
    session.cached.assign(route_.size(), -1);
    for (size_t hop = 0; hop < route_.size(); ++hop) {
      session.open.hop = static_cast<int>(hop);
      send(route_[hop].worker, session.open);
    }
  }
  void close(const Session& session) {
    for (const Hop& hop : route_) send(hop.worker, CloseSession{session.open.session, session.open.epoch});
  }
  void end(Session& session) {
    session.done = true;
    close(session);
  }

  void deliver(std::pair<std::string, Message>& mail) {
    for (size_t hop = 0; hop < route_.size(); ++hop)
      if (route_[hop].worker == mail.first) {
        EXPECT_TRUE(engines_[hop]->post(std::move(mail.second)));
        return;
      }
    Session& session = sessions_.at(session_of(mail.second));
    const Epoch epoch = std::visit([](const auto& m) { return m.epoch; }, mail.second);
    if (session.done || session.waiting || epoch != session.open.epoch) return;
    if (auto* opened = std::get_if<Opened>(&mail.second)) on_opened(session, *opened);
    if (auto* token = std::get_if<Token>(&mail.second)) on_token(session, *token);
    if (auto* refused = std::get_if<Refused>(&mail.second)) {
      if (refused->reason.code() == Code::kResourceExhausted)
        wait(session);
      else
        fail(session, refused->reason);
    }
    if (std::get_if<Preempted>(&mail.second)) wait(session);
    if (auto* failed = std::get_if<Failed>(&mail.second)) fail(session, failed->reason);
  }
  void on_opened(Session& session, const Opened& opened) {
    EXPECT_LE(opened.cached_tokens, std::ssize(session.tokens));
    session.cached[static_cast<size_t>(opened.hop)] = opened.cached_tokens;
    const int start = *std::min_element(session.cached.begin(), session.cached.end());
    if (start < 0) return;
    if (session.first_start < 0) session.first_start = start;
    for (const Hop& hop : route_) send(hop.worker, StartSession{opened.session, opened.epoch, start, start});
  }
  void on_token(Session& session, Token& token) {
    if (token.position != std::ssize(session.tokens)) {
      fail(session,
           internal_error("lost or repeated token (I2) at position " + std::to_string(token.position)));
      return;
    }
    if (token.sampled.token >= 0) session.tokens.push_back(token.sampled.token);
    if (!token.prompt_logprobs.empty()) session.prompt_logprobs = std::move(token.prompt_logprobs);
    session.finish = token.finish;
    if (token.finish != FinishReason::kNone) end(session);
  }
  void wait(Session& session) {
    close(session);
    session.waiting = true;
  }
  void fail(Session& session, const Status& reason) {
    session.failure = reason;
    session.finish = FinishReason::kError;
    end(session);
  }

  const ToyOptions toy_;
  Route route_;
  std::vector<std::unique_ptr<Engine>> engines_;
  std::map<SessionId, Session> sessions_;
  std::deque<std::pair<std::string, Message>> mail_;
  SessionId last_id_ = 0;
  int reopens_ = 0;
};

inline std::vector<BlockRange> cut(int num_blocks, int hops) {
  std::vector<BlockRange> ranges;
  for (int hop = 0; hop < hops; ++hop)
    ranges.push_back({num_blocks * hop / hops, num_blocks * (hop + 1) / hops});
  return ranges;
}

inline std::vector<TokenId> random_prompt(std::mt19937& random, int length) {
  std::vector<TokenId> prompt(static_cast<size_t>(length));
  for (TokenId& token : prompt) token = static_cast<TokenId>(3 + random() % 900);
  return prompt;
}

// Differing lengths, seeds, penalties, stop tokens and shared beginnings.
inline std::vector<std::pair<std::vector<TokenId>, SamplingParams>> mixed_requests(uint32_t seed, int count) {
  std::mt19937 random(seed);
  const std::vector<TokenId> shared = random_prompt(random, 70);
  std::vector<std::pair<std::vector<TokenId>, SamplingParams>> requests;
  for (int i = 0; i < count; ++i) {
    std::vector<TokenId> prompt = random_prompt(random, 1 + static_cast<int>(random() % 60));
    if (i % 3 == 0) prompt.insert(prompt.begin(), shared.begin(), shared.end());
    SamplingParams params;
    params.seed = random();
    params.max_tokens = 1 + static_cast<int>(random() % 50);
    if (i % 4 == 1) params.frequency_penalty = 0.5f;
    if (i % 4 == 2) params.stop_token_ids = random_prompt(random, 40);
    if (i % 4 == 2) params.min_tokens = 5;
    if (i % 5 == 0) params.ignore_eos = true;
    requests.emplace_back(std::move(prompt), params);
  }
  return requests;
}

}  // namespace tessera::engine::toy
