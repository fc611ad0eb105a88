// What an engine refuses, fails and reports; sampling limits; threads (I5, I8).
#include <chrono>
#include <ctime>
#include <thread>

#include "base/mutex.h"
#include "engine/scheduler.h"
#include "engine/test_cluster.h"

namespace tessera::engine::toy {
namespace {

EngineOptions small_options() {
  EngineOptions options;
  options.model_identity = "toy";
  options.kv_memory_bytes = kv_bytes(64, 6);
  options.max_batch_tokens = 64;
  return options;
}

// Sends nothing on: the test speaks both sides.
class Inbox final : public MessageSink {
 public:
  void send(const std::string& to, Message message) override {
    MutexLock lock(mutex_);
    messages_.emplace_back(to, std::move(message));
    arrived_.notify_all();
  }
  std::vector<std::pair<std::string, Message>> take() {
    MutexLock lock(mutex_);
    return std::exchange(messages_, {});
  }
  // Waits for `count` messages.
  std::vector<std::pair<std::string, Message>> take(size_t count) {
    MutexLock lock(mutex_);
    arrived_.wait_for(mutex_, std::chrono::seconds(20), [&] { return messages_.size() >= count; });
    return std::exchange(messages_, {});
  }

 private:
  Mutex mutex_;
  CondVar arrived_;
  std::vector<std::pair<std::string, Message>> messages_ TESSERA_GUARDED_BY(mutex_);
};

std::unique_ptr<Engine> make_engine(MessageSink& sink, EngineOptions options = small_options(),
                                    BlockRange range = {0, 6}, const ToyOptions& toy = {},
                                    obs::Metrics* metrics = nullptr) {
  auto engine = Engine::create(std::make_unique<ToyModel>(toy, range), std::make_unique<ToyBackend>(),
                               std::move(options), sink, metrics);
  EXPECT_TRUE(engine.ok()) << engine.status().to_string();
  return std::move(engine).value();
}

OpenSession open_message(SessionId id, Epoch epoch, std::vector<TokenId> tokens, int max_tokens = 10,
                         Route route = {{"local", {0, 6}}}, int hop = 0) {
  OpenSession open;
  open.session = id;
  open.epoch = epoch;
  open.gateway = "gateway";
  open.route = std::make_shared<const Route>(std::move(route));
  open.hop = hop;
  open.prompt_tokens = static_cast<int>(tokens.size());
  open.max_length = open.prompt_tokens + max_tokens;
  open.tokens = std::make_shared<const std::vector<TokenId>>(std::move(tokens));
  open.params.max_tokens = max_tokens;
  open.params.ignore_eos = true;
  return open;
}

template <typename T>
std::vector<T> only(const std::vector<std::pair<std::string, Message>>& messages) {
  std::vector<T> found;
  for (const auto& [to, message] : messages)
    if (const T* m = std::get_if<T>(&message)) found.push_back(*m);
  return found;
}

Status refusal_of(const OpenSession& open, EngineOptions options = small_options(),
                  BlockRange range = {0, 6}) {
  Inbox inbox;
  auto engine = make_engine(inbox, std::move(options), range);
  engine->post(open);
  engine->run_once();
  const auto refused = only<Refused>(inbox.take());
  return refused.empty() ? Status() : refused.front().reason;
}

TEST(EngineOpen, RefusesWhatCanNeverRunAndSaysWhy) {
  EXPECT_TRUE(refusal_of(open_message(1, 1, {5, 6, 7})).ok());
  EXPECT_EQ(refusal_of(open_message(1, 1, {})).code(), Code::kInvalidArgument);
  EXPECT_EQ(refusal_of(open_message(1, 1, {5, 997})).code(), Code::kInvalidArgument);
  EXPECT_EQ(refusal_of(open_message(1, 1, {-1})).code(), Code::kInvalidArgument);
  const Status too_long = refusal_of(open_message(1, 1, {5}, 512));
  EXPECT_EQ(too_long.code(), Code::kInvalidArgument);
  EXPECT_NE(too_long.message().find("513"), std::string::npos) << too_long.message();
  OpenSession inconsistent = open_message(1, 1, {5, 6}, 10);
  inconsistent.max_length = 5;
  EXPECT_EQ(refusal_of(inconsistent).code(), Code::kInvalidArgument);
  OpenSession overflow = open_message(1, 1, {5, 6}, 10);
  overflow.params.max_tokens = INT32_MAX;
  EXPECT_EQ(refusal_of(overflow).code(), Code::kInvalidArgument);
  OpenSession no_prompt = open_message(1, 1, {5, 6});
  no_prompt.prompt_tokens = 3;
  EXPECT_EQ(refusal_of(no_prompt).code(), Code::kInvalidArgument);
  EXPECT_EQ(refusal_of(open_message(1, 1, {5}, 3, {{"local", {0, 5}}})).code(), Code::kUnavailable);
  EXPECT_EQ(refusal_of(open_message(1, 1, {5}, 3, {{"local", {0, 6}}}, 1)).code(), Code::kUnavailable);
  OpenSession no_route = open_message(1, 1, {5});
  no_route.route = nullptr;
  EXPECT_EQ(refusal_of(no_route).code(), Code::kInvalidArgument);
}

TEST(EngineOpen, RefusesForNowWhenSequencesOrPagesRunOut) {
  Inbox inbox;
  EngineOptions options = small_options();
  options.max_sequences = 2;
  options.kv_memory_bytes = kv_bytes(32, 6);
  auto engine = make_engine(inbox, options);
  engine->post(open_message(1, 1, std::vector<TokenId>(400, 5)));
  engine->post(open_message(2, 1, std::vector<TokenId>(200, 6)));  // 26 + 13 pages of 32
  engine->post(open_message(3, 1, {5}));
  engine->post(open_message(4, 1, {5}));
  engine->run_once();
  const auto messages = inbox.take();
  EXPECT_EQ(only<Opened>(messages).size(), 2u);
  const auto refused = only<Refused>(messages);
  ASSERT_EQ(refused.size(), 2u);
  EXPECT_EQ(refused[0].session, 2u);
  EXPECT_EQ(refused[0].reason.code(), Code::kResourceExhausted);
  EXPECT_EQ(refused[1].session, 4u);
  EXPECT_EQ(refused[1].reason.code(), Code::kResourceExhausted);
  engine->post(CloseSession{1, 1});
  engine->post(open_message(2, 2, std::vector<TokenId>(200, 6)));
  engine->run_once();
  EXPECT_EQ(only<Opened>(inbox.take()).size(), 1u);
}

TEST(EngineCreate, SaysWhatWouldFit) {
  Inbox inbox;
  EngineOptions options = small_options();
  options.kv_memory_bytes = kv_bytes(31, 6);
  auto engine = Engine::create(std::make_unique<ToyModel>(ToyOptions{}, BlockRange{0, 6}),
                               std::make_unique<ToyBackend>(), options, inbox, nullptr);
  ASSERT_FALSE(engine.ok());
  EXPECT_EQ(engine.status().code(), Code::kResourceExhausted);
  EXPECT_NE(engine.status().message().find("--kv-memory"), std::string::npos);
  EXPECT_NE(engine.status().message().find("--context 496"), std::string::npos) << engine.status().message();
  options.context_length = 496;
  EXPECT_EQ(make_engine(inbox, options)->stats().kv_total, 31);
  options.kv_memory_bytes = uint64_t{1} << 40;
  options.max_sequences = 3;
  EXPECT_EQ(make_engine(inbox, options)->stats().kv_total, 93) << "never more than all sequences can use";
  options.context_length = 513;
  EXPECT_EQ(Engine::create(std::make_unique<ToyModel>(ToyOptions{}, BlockRange{0, 6}),
                           std::make_unique<ToyBackend>(), options, inbox, nullptr)
                .status()
                .code(),
            Code::kInvalidArgument);
}

TEST(EngineEpochs, OldEpochsAreDeadAndANewOneReplacesThem) {
  Inbox inbox;
  auto engine = make_engine(inbox);
  const std::vector<TokenId> prompt{5, 6, 7, 8};
  engine->post(open_message(1, 3, prompt));
  engine->post(StartSession{1, 3, 0});
  engine->run_once();
  inbox.take();
  engine->post(open_message(1, 2, prompt));  // late
  engine->post(open_message(1, 3, prompt));  // repeated
  engine->post(CloseSession{1, 2});
  engine->post(StartSession{1, 2, 0});
  engine->run_once();
  auto messages = inbox.take();
  EXPECT_TRUE(only<Opened>(messages).empty());
  ASSERT_EQ(only<Token>(messages).size(), 1u) << "the session of epoch 3 goes on";
  EXPECT_EQ(only<Token>(messages)[0].epoch, 3u);
  engine->post(open_message(1, 4, prompt));
  engine->run_once();
  messages = inbox.take();
  ASSERT_EQ(only<Opened>(messages).size(), 1u);
  EXPECT_TRUE(only<Token>(messages).empty()) << "epoch 3 must not speak any more";
  EXPECT_EQ(engine->stats().running, 1);
  engine->post(CloseSession{1, 4});
  engine->run_once();
  engine->post(open_message(1, 4, prompt));  // overtaken by its own close
  engine->run_once();
  EXPECT_TRUE(inbox.take().empty());
  EXPECT_EQ(engine->stats().running, 0);
}

TEST(EngineEpochs, MessagesOfAnOldRouteChangeNothing) {
  const Route route{{"a", {0, 3}}, {"b", {3, 6}}};
  Inbox inbox;
  auto head = make_engine(inbox, small_options(), {0, 3});
  head->post(open_message(1, 3, {5, 6, 7}, 10, route, 0));
  head->post(StartSession{1, 2, 0});
  head->run_once();
  EXPECT_TRUE(only<Rows>(inbox.take()).empty());
  head->post(StartSession{1, 3, 0});
  head->run_once();
  EXPECT_EQ(only<Rows>(inbox.take()).size(), 1u);
  Token token{1, 2, 3, {}, FinishReason::kNone, {}};
  token.sampled.token = 9;
  head->post(token);
  head->run_once();
  EXPECT_TRUE(only<Rows>(inbox.take()).empty());
  token.epoch = 3;
  head->post(token);
  head->run_once();
  EXPECT_EQ(only<Rows>(inbox.take()).size(), 1u);

  auto tail = make_engine(inbox, small_options(), {3, 6});
  tail->post(open_message(1, 3, {5, 6, 7}, 10, route, 1));
  tail->post(StartSession{1, 3, 0});
  Rows rows{1, 2, 0, {5, 6, 7}, std::vector<float>(3 * kHidden), true};
  tail->post(rows);
  tail->run_once();
  EXPECT_TRUE(only<Token>(inbox.take()).empty());
  rows.epoch = 3;
  tail->post(rows);
  tail->run_once();
  EXPECT_EQ(only<Token>(inbox.take()).size(), 2u) << "to the head and to the gateway";
}

TEST(EngineRows, BadRowsEndTheSessionWithAReason) {
  const Route route{{"a", {0, 3}}, {"b", {3, 6}}};
  bool rows_first = false;
  auto failure_of = [&](const std::vector<Rows>& rows) {
    Inbox inbox;
    EngineOptions options = small_options();
    auto engine = make_engine(inbox, options, {3, 6});
    std::vector<TokenId> prompt(40, 5);
    engine->post(open_message(1, 1, prompt, 10, route, 1));
    if (!rows_first) engine->post(StartSession{1, 1, 0});
    for (const Rows& message : rows) engine->post(message);
    if (rows_first) engine->post(StartSession{1, 1, 0});
    while (engine->run_once()) {
    }
    const auto failed = only<Failed>(inbox.take());
    return failed.empty() ? Status() : failed.front().reason;
  };
  auto rows = [](int start, int count, TokenId token = 5) {
    return Rows{1,
                1,
                start,
                std::vector<TokenId>(static_cast<size_t>(count), token),
                std::vector<float>(static_cast<size_t>(count) * kHidden, 1.0f),
                false};
  };
  EXPECT_TRUE(failure_of({rows(0, 20), rows(20, 20)}).ok());
  EXPECT_EQ(failure_of({rows(0, 20), rows(16, 20)}).code(), Code::kInvalidArgument) << "sent twice";
  EXPECT_EQ(failure_of({rows(0, 20), rows(21, 3)}).code(), Code::kInvalidArgument);
  EXPECT_EQ(failure_of({rows(1, 20)}).code(), Code::kInvalidArgument);
  EXPECT_EQ(failure_of({rows(-1, 3)}).code(), Code::kInvalidArgument);
  EXPECT_EQ(failure_of({rows(0, 51)}).code(), Code::kInvalidArgument);
  EXPECT_EQ(failure_of({rows(0, 3, 6)}).code(), Code::kInvalidArgument) << "other tokens than opened with";
  EXPECT_EQ(failure_of({rows(0, 40), rows(40, 1, 997)}).code(), Code::kInvalidArgument);
  Rows short_hidden = rows(0, 4);
  short_hidden.hidden.pop_back();
  EXPECT_EQ(failure_of({short_hidden}).code(), Code::kInvalidArgument);
  rows_first = true;  // the neighbour's link was faster than the gateway's
  EXPECT_TRUE(failure_of({rows(0, 20), rows(20, 20)}).ok());
  EXPECT_EQ(failure_of({rows(0, 20), rows(21, 3)}).code(), Code::kInvalidArgument);
}

TEST(EngineRows, WithoutTheSessionsTicketTheyAreDropped) {
  Inbox inbox;
  auto engine = make_engine(inbox, small_options(), {3, 6});
  OpenSession open = open_message(1, 1, {5, 6}, 10, {{"a", {0, 3}}, {"b", {3, 6}}}, 1);
  open.ticket = 77;
  engine->post(open);
  engine->post(StartSession{1, 1, 0, 0});
  Rows rows{1, 1, 0, {5, 6}, std::vector<float>(2 * kHidden), true};
  engine->post(rows);
  while (engine->run_once()) {
  }
  EXPECT_TRUE(only<Token>(inbox.take()).empty());
  rows.ticket = 77;
  engine->post(rows);
  while (engine->run_once()) {
  }
  EXPECT_EQ(only<Token>(inbox.take()).size(), 2u);
}

TEST(SchedulerPrefill, IsBoundedWhileOthersDecode) {
  SchedulerOptions options;
  options.kv_pages = 64;
  options.max_batch_tokens = 64;
  options.max_logit_rows = 8;
  options.max_sequences = 8;
  options.is_tail = true;
  Scheduler scheduler(options);
  Sequence decoding(scheduler.pool()), prompt(scheduler.pool());
  decoding.tokens = {1, 2, 3};
  decoding.opened_tokens = 3;
  ASSERT_TRUE(scheduler.admit(decoding).ok());
  decoding.kv_length = decoding.input_end = 3;  // its next token is under way: no row of it in this step
  prompt.tokens.assign(100, 7);
  prompt.opened_tokens = 100;
  prompt.arrival = 1;
  ASSERT_TRUE(scheduler.admit(prompt).ok());
  prompt.input_end = 100;
  const auto rows = [&] {
    int sum = 0;
    for (const StepItem& item : scheduler.plan()) sum += item.rows;
    return sum;
  };
  EXPECT_EQ(rows(), 64) << "no bound yet";
  scheduler.set_prefill_rows(16);
  EXPECT_EQ(rows(), 16);
  decoding.input_end = 4;
  EXPECT_EQ(rows(), 17) << "its own row is not part of the bound";
  scheduler.release(decoding);
  EXPECT_EQ(rows(), 64) << "nobody waits";
  scheduler.release(prompt);
  EXPECT_TRUE(scheduler.check());
}

TEST(SchedulerPrefill, LetsDecodeRowsOfOtherMachinesGoAlone) {
  SchedulerOptions options;
  options.kv_pages = 64;
  options.max_batch_tokens = 64;
  options.max_sequences = 8;
  options.decode_alone = true;
  Scheduler scheduler(options);
  Sequence decoding(scheduler.pool()), prompt(scheduler.pool());
  decoding.tokens = {1, 2, 3};
  decoding.opened_tokens = 3;
  ASSERT_TRUE(scheduler.admit(decoding).ok());
  decoding.kv_length = 3;
  prompt.tokens.assign(100, 7);
  prompt.opened_tokens = 100;
  prompt.arrival = 1;
  ASSERT_TRUE(scheduler.admit(prompt).ok());
  decoding.input_end = 4;
  EXPECT_EQ(scheduler.plan().size(), 1u) << "nothing else waits";
  prompt.input_end = 100;
  const auto first = scheduler.plan();
  ASSERT_EQ(first.size(), 1u);
  EXPECT_EQ(first[0].sequence, &decoding);
  for (int step = 1; step < 5; ++step)  // who decodes all the time does not stop the prompt
    EXPECT_EQ(scheduler.plan().size(), step % 2 == 0 ? 1u : 2u);
  decoding.input_end = 3;
  const auto items = scheduler.plan();
  ASSERT_EQ(items.size(), 1u);
  EXPECT_EQ(items[0].rows, 64);
  scheduler.release(decoding);
  scheduler.release(prompt);
}

TEST(EnginePrefill, StepsBoundedByTimeGiveTheSameTokens) {
  EngineOptions options = small_options();
  options.prefill_step = std::chrono::milliseconds(1);
  TestCluster cluster({}, {{0, 6}}, options);
  SamplingParams params;
  params.max_tokens = 20;
  params.ignore_eos = true;
  std::vector<SessionId> sessions;
  for (int i = 0; i < 6; ++i)
    sessions.push_back(
        cluster.submit(std::vector<TokenId>(static_cast<size_t>(3 + 60 * (i % 3)), 5 + i), params));
  cluster.run();
  for (SessionId session : sessions) cluster.expect_reference(session);
}

TEST(EngineTrace, ReportsAsManyStepsAsItWasAskedFor) {
  Inbox inbox;
  auto engine = make_engine(inbox, small_options(), {3, 6});
  engine->post(open_message(1, 1, {5, 6, 7, 8}, 10, {{"a", {0, 3}}, {"b", {3, 6}}}, 1));
  engine->post(StartSession{1, 1, 0, 0});
  engine->post(TraceSteps{1, 0, 5});  // of an epoch that is no more
  engine->post(TraceSteps{1, 1, 2});
  for (int position = 0; position < 4; ++position) {
    engine->post(Rows{1, 1, position, {5 + position}, std::vector<float>(kHidden), false});
    while (engine->run_once()) {
    }
  }
  const auto traces = only<StepTrace>(inbox.take());
  ASSERT_EQ(traces.size(), 2u);
  EXPECT_EQ(traces[1].position, 1);
  EXPECT_EQ(traces[1].hop, 1);
  EXPECT_EQ(traces[1].rows, 1);
  EXPECT_EQ(traces[1].batch_rows, 1);
  EXPECT_GE(traces[1].wake_us, 0);
  EXPECT_GE(traces[1].queue_us, 0);
}

TEST(EngineRows, AStartInsideASharedBlockOrBeyondWhatIsCachedIsRefused) {
  auto failure_of = [](int start) {
    Inbox inbox;
    auto engine = make_engine(inbox, small_options(), {3, 6});
    const Route route{{"a", {0, 3}}, {"b", {3, 6}}};
    engine->post(open_message(1, 1, std::vector<TokenId>(40, 5), 10, route, 1));
    engine->post(StartSession{1, 1, 0, 0});
    engine->post(Rows{1, 1, 0, std::vector<TokenId>(36, 5), std::vector<float>(36 * kHidden), false});
    engine->run_once();  // names two blocks
    engine->post(open_message(1, 2, std::vector<TokenId>(40, 5), 10, route, 1));
    engine->post(StartSession{1, 2, start, start});
    engine->run_once();
    const auto messages = inbox.take();
    EXPECT_EQ(only<Opened>(messages).back().cached_tokens, 36) << "a new epoch keeps the KV";
    const auto failed = only<Failed>(messages);
    EXPECT_EQ(engine->stats().kv_used == 0, !failed.empty());
    return failed.empty() ? Status() : failed[0].reason;
  };
  EXPECT_TRUE(failure_of(36).ok());
  EXPECT_TRUE(failure_of(33).ok());
  EXPECT_TRUE(failure_of(16).ok());
  EXPECT_EQ(failure_of(24).code(), Code::kInvalidArgument);
  EXPECT_EQ(failure_of(37).code(), Code::kInvalidArgument);
  EXPECT_EQ(failure_of(-1).code(), Code::kInvalidArgument);
}

TEST(EngineSampling, StopsWhereItShould) {
  ToyOptions toy;
  toy.vocab = 8;  // end token 2 comes soon
  TestCluster cluster(toy, cut(6, 1), small_options());
  std::vector<SessionId> ids;
  for (uint64_t seed = 0; seed < 40; ++seed) {
    SamplingParams params;
    params.seed = seed;
    params.max_tokens = 20;
    params.min_tokens = static_cast<int>(seed % 4) * 3;
    if (seed % 5 == 0) params.stop_token_ids = {4};
    if (seed % 7 == 0) params.ignore_eos = true;
    ids.push_back(cluster.submit({3, 4, 5}, params));
  }
  cluster.run();
  int stopped = 0;
  for (SessionId id : ids) {
    cluster.expect_reference(id);
    const auto& session = cluster.session(id);
    stopped += session.finish == FinishReason::kStop;
    if (session.finish == FinishReason::kStop) {
      EXPECT_GT(std::ssize(session.output()), session.open.params.min_tokens);
    }
  }
  EXPECT_GT(stopped, 10);
}

class PromptLogprobs : public testing::TestWithParam<std::tuple<int, int>> {};
// Vocabularies of which a step holds all, 4 and 1 rows of logits.
INSTANTIATE_TEST_SUITE_P(HopsAndVocabularies, PromptLogprobs,
                         testing::Combine(testing::Values(1, 2, 3), testing::Values(997, 4 << 20, 16 << 20)));

TEST_P(PromptLogprobs, ScoreEveryTokenOnceWithoutReuse) {
  const auto [hops, vocab] = GetParam();
  ToyOptions toy;
  toy.vocab = vocab;
  EngineOptions options = small_options();
  options.max_batch_tokens = 32;
  TestCluster cluster(toy, cut(6, hops), options);
  std::mt19937 random(9);
  const std::vector<TokenId> prompt = random_prompt(random, 75);
  SamplingParams params;
  params.max_tokens = 5;
  params.ignore_eos = true;
  const SessionId plain = cluster.submit(prompt, params);
  cluster.run();
  params.prompt_logprobs = true;
  const SessionId scored = cluster.submit(prompt, params);
  params.max_tokens = 0;
  const SessionId scored_only = cluster.submit(prompt, params);
  cluster.run();
  cluster.expect_reference(plain);
  cluster.expect_reference(scored);
  cluster.expect_reference(scored_only);
  EXPECT_EQ(cluster.session(scored_only).finish, FinishReason::kLength);
  const std::vector<uint64_t> rows = toy_reference(prompt, 0, toy);
  for (SessionId id : {scored, scored_only}) {
    const auto& session = cluster.session(id);
    EXPECT_EQ(session.first_start, 0);
    ASSERT_EQ(session.prompt_logprobs.size(), prompt.size());
    EXPECT_EQ(session.prompt_logprobs[0].token, -1);
    for (size_t i = 1; i < prompt.size(); ++i) {
      SampleRequest request;
      request.position = static_cast<int>(i);
      request.target = prompt[i];
      EXPECT_EQ(session.prompt_logprobs[i].token, prompt[i]);
      EXPECT_EQ(session.prompt_logprobs[i].logprobs.logprob,
                sample(rows[i - 1], request, toy).logprobs.logprob);
    }
  }
  EXPECT_TRUE(cluster.session(plain).prompt_logprobs.empty());
}

TEST(EngineSampling, NoFiniteLogitsFailTheSessionAlone) {
  ToyOptions toy;
  toy.nan_position = 20;
  TestCluster cluster(toy, cut(6, 2), small_options());
  SamplingParams params;
  params.max_tokens = 10;
  params.ignore_eos = true;
  const SessionId bad = cluster.submit(std::vector<TokenId>(15, 5), params);
  const SessionId good = cluster.submit(std::vector<TokenId>(5, 5), params);
  cluster.run();
  EXPECT_NE(cluster.session(bad).failure.message().find("no finite logits"), std::string::npos);
  EXPECT_EQ(cluster.session(bad).output().size(), 5u);
  cluster.expect_reference(good);
}

TEST(EngineQueue, AFullOrStoppedQueueTakesNothing) {
  Inbox inbox;
  EngineOptions options = small_options();
  options.queue_capacity = 2;
  auto engine = make_engine(inbox, options);
  EXPECT_TRUE(engine->post(open_message(1, 1, {5})));
  EXPECT_TRUE(engine->post(open_message(2, 1, {5})));
  EXPECT_FALSE(engine->post(open_message(3, 1, {5})));
  engine->run_once();
  EXPECT_TRUE(engine->post(open_message(3, 1, {5})));
  inbox.take();
  engine->stop();
  EXPECT_FALSE(engine->post(open_message(4, 1, {5})));
  const auto messages = inbox.take();
  EXPECT_EQ(only<Failed>(messages).size(), 2u);
  EXPECT_EQ(only<Refused>(messages).size(), 1u);
  for (const Failed& failed : only<Failed>(messages)) EXPECT_EQ(failed.reason.code(), Code::kUnavailable);
  EXPECT_EQ(engine->stats().kv_used, 0);
}

TEST(EngineThread, AnswersManyClientsAndStopsInTheMiddle) {
  Inbox inbox;
  obs::Metrics metrics;
  EngineOptions options = small_options();
  options.worker_name = "w";
  options.kv_memory_bytes = kv_bytes(1024, 6);
  auto engine = make_engine(inbox, options, {0, 6}, {}, &metrics);
  engine->start();
  std::vector<std::thread> clients;
  for (SessionId client = 0; client < 4; ++client)
    clients.emplace_back([&engine, client] {
      for (SessionId i = 0; i < 10; ++i) {
        const SessionId id = 1 + client * 10 + i;
        EXPECT_TRUE(engine->post(open_message(id, 1, {5, 6, static_cast<TokenId>(id)}, 8)));
        EXPECT_TRUE(engine->post(StartSession{id, 1, 0}));
        engine->stats();
      }
    });
  for (std::thread& client : clients) client.join();
  const auto messages = inbox.take(40 + 40 * 8);
  EXPECT_EQ(only<Token>(messages).size(), 320u);
  std::map<SessionId, std::vector<TokenId>> outputs;
  for (const Token& token : only<Token>(messages)) outputs[token.session].push_back(token.sampled.token);
  for (const auto& [id, tokens] : outputs) {
    const OpenSession open = open_message(id, 1, {5, 6, static_cast<TokenId>(id)}, 8);
    EXPECT_EQ(tokens, expected_output(*open.tokens, open.params, {}).first);
  }
  EXPECT_NE(metrics.serialize().find("tessera_tokens_total"), std::string::npos);

  engine->post(open_message(100, 1, {5}, 400));  // open, but never started
  engine->post(open_message(101, 1, {5}, 400));
  engine->post(StartSession{101, 1, 0});  // may or may not end before the engine stops
  inbox.take(3);
  engine->stop();
  const auto failed = only<Failed>(inbox.take());
  EXPECT_TRUE(std::any_of(failed.begin(), failed.end(), [](const Failed& f) { return f.session == 100; }));
  for (const Failed& f : failed) EXPECT_EQ(f.reason.code(), Code::kUnavailable);
  EXPECT_EQ(engine->stats().kv_used, 0);
}

TEST(EngineThread, SleepsWhenIdle) {
  Inbox inbox;
  auto engine = make_engine(inbox);
  engine->start();
  const std::clock_t before = std::clock();
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  const double busy = static_cast<double>(std::clock() - before) / CLOCKS_PER_SEC;
  EXPECT_LT(busy, 0.03);
}

TEST(EngineMetrics, BlocksAddUpToTheCapacity) {
  Inbox inbox;
  obs::Metrics metrics;
  EngineOptions options = small_options();
  options.worker_name = "w";
  options.model_name = "m";
  auto engine = make_engine(inbox, options, {0, 6}, {}, &metrics);
  engine->post(open_message(1, 1, std::vector<TokenId>(40, 5)));
  engine->post(StartSession{1, 1, 0});
  engine->run_once();
  const obs::Labels base{{"model", "m"}, {"worker_id", "w"}, {"worker_role", "hybrid"}};
  auto blocks = [&](const char* state) {
    obs::Labels labels = base;
    labels["state"] = state;
    return metrics
        .gauge("tessera_kv_blocks", "KV pages by state; the states add up to tessera_kv_blocks_capacity",
               labels)
        .value();
  };
  EXPECT_EQ(blocks("used"), 3);
  EXPECT_EQ(blocks("free") + blocks("cached") + blocks("used"),
            metrics.gauge("tessera_kv_blocks_capacity", "KV pages in all", base).value());
  const std::string text = metrics.serialize();
  for (const char* name : {"tessera_sequences", "tessera_batch_size", "tessera_prefix_cache_hit_tokens_total",
                           "tessera_prefix_cache_query_tokens_total", "tessera_preemptions_total",
                           "tessera_step_duration_seconds"})
    EXPECT_NE(text.find(name), std::string::npos) << name;
}

}  // namespace
}  // namespace tessera::engine::toy
