#include "cluster/session_manager.h"

#include <gtest/gtest.h>

#include "cluster/manual_executor.h"

namespace tessera::cluster {
namespace {

using namespace std::chrono_literals;

// A hop that records what it gets; the test answers for it.
struct FakeHop : Inbox {
  std::vector<Message> inbox;
  bool willing = true;
  bool deliver(Message message) override {
    if (willing) inbox.push_back(std::move(message));
    return willing;
  }
  template <typename T>
  std::vector<T> all() const {
    std::vector<T> found;
    for (const Message& m : inbox)
      if (const T* t = std::get_if<T>(&m)) found.push_back(*t);
    return found;
  }
};

struct Recorder : SessionObserver {
  int cached = -1;
  std::vector<Token> tokens;
  std::vector<Status> failures;
  void on_started(int cached_tokens) override { cached = cached_tokens; }
  void on_token(const Token& token) override { tokens.push_back(token); }
  void on_failed(const Status& reason) override { failures.push_back(reason); }
  std::string inexact;
  void on_inexact(const std::string& reason) override { inexact = reason; }
};

class SessionManagerTest : public ::testing::Test {
 protected:
  SessionManagerTest()
      : router_({{"a", {0, 2}}, {"b", {2, 4}}}), manager_(options(), transport_, executor_, router_) {
    transport_.add("a", a_);
    transport_.add("b", b_);
    transport_.add("gateway", manager_);
  }
  static SessionManagerOptions options() {
    SessionManagerOptions options;
    options.max_waiting = 2;
    options.failover_timeout = {};
    return options;
  }
  SessionId submit(std::vector<TokenId> prompt, std::shared_ptr<SessionObserver> observer, int priority = 0) {
    SessionRequest request;
    request.prompt = std::move(prompt);
    request.params.max_tokens = 8;
    request.priority = priority;
    auto id = manager_.submit(std::move(request), std::move(observer));
    EXPECT_TRUE(id.ok());
    executor_.run();
    return *id;
  }
  void send(Message message) {
    transport_.send("gateway", std::move(message));
    executor_.run();
  }
  void opened(SessionId id, Epoch epoch, int cached_a, int cached_b) {
    send(Opened{id, epoch, 0, cached_a});
    send(Opened{id, epoch, 1, cached_b});
  }
  Token token(SessionId id, Epoch epoch, int position, TokenId value,
              FinishReason finish = FinishReason::kNone) {
    Token t;
    t.session = id;
    t.epoch = epoch;
    t.position = position;
    t.sampled.token = value;
    t.finish = finish;
    for (const OpenSession& open : a_.all<OpenSession>())
      if (open.session == id) t.ticket = open.ticket;
    return t;
  }

  ManualExecutor executor_;
  InProcessTransport transport_;
  FakeHop a_, b_;
  FixedRouter router_;
  SessionManager manager_;
};

TEST_F(SessionManagerTest, StartsAtTheCommonPrefixAndCommitsInOrder) {
  auto heard = std::make_shared<Recorder>();
  const SessionId id = submit(std::vector<TokenId>(40, 7), heard);
  ASSERT_EQ(a_.all<OpenSession>().size(), 1u);
  ASSERT_EQ(b_.all<OpenSession>().size(), 1u);
  EXPECT_EQ(b_.all<OpenSession>()[0].hop, 1);
  opened(id, 1, 32, 16);
  ASSERT_EQ(a_.all<StartSession>().size(), 1u);
  ASSERT_EQ(b_.all<StartSession>().size(), 1u);
  EXPECT_EQ(a_.all<StartSession>()[0].start, 32) << "its outputs of 16 to 31 are kept";
  EXPECT_EQ(a_.all<StartSession>()[0].send_from, 16);
  EXPECT_EQ(b_.all<StartSession>()[0].start, 16);
  EXPECT_EQ(heard->cached, 16);
  Token forged = token(id, 1, 40, 3);
  forged.ticket ^= 1;
  send(forged);
  EXPECT_TRUE(heard->tokens.empty()) << "a token without the session's ticket";
  send(token(id, 1, 40, 5));
  send(token(id, 1, 40, 5));  // repeated: dropped
  send(token(id, 1, 42, 9));  // a gap: dropped
  send(token(id, 1, 41, 6, FinishReason::kStop));
  ASSERT_EQ(heard->tokens.size(), 2u);
  EXPECT_EQ(heard->tokens[1].sampled.token, 6);
  EXPECT_EQ(a_.all<CloseSession>().size(), 1u);
  EXPECT_EQ(b_.all<CloseSession>().size(), 1u);
  EXPECT_EQ(manager_.stats().running, 0);
}

TEST_F(SessionManagerTest, PreemptedSessionGoesOnWithTheNextTokenAndOldEpochsAreFenced) {
  auto heard = std::make_shared<Recorder>();
  const SessionId id = submit({1, 2, 3}, heard);
  opened(id, 1, 0, 0);
  send(token(id, 1, 3, 10));
  send(Preempted{id, 1, 1});
  executor_.advance(60ms);
  const auto opens = a_.all<OpenSession>();
  ASSERT_EQ(opens.size(), 2u);
  EXPECT_EQ(opens[1].epoch, 2u);
  EXPECT_EQ(*opens[1].tokens, (std::vector<TokenId>{1, 2, 3, 10}));
  EXPECT_EQ(opens[1].prompt_tokens, 3);
  send(token(id, 1, 4, 99));  // from the route that was given up
  opened(id, 2, 0, 0);
  send(token(id, 1, 4, 98));
  send(token(id, 2, 4, 11, FinishReason::kLength));
  ASSERT_EQ(heard->tokens.size(), 2u);
  EXPECT_EQ(heard->tokens[1].sampled.token, 11);
  EXPECT_EQ(manager_.stats().reopened, 1);
}

TEST_F(SessionManagerTest, WaitsForRoomInOrderAndRefusesPastTheBound) {
  auto first = std::make_shared<Recorder>(), second = std::make_shared<Recorder>(),
       third = std::make_shared<Recorder>();
  const SessionId one = submit({1}, first);
  opened(one, 1, 0, 0);
  const SessionId two = submit({2}, second);
  send(Opened{two, 1, 0, 0});
  send(Refused{two, 1, 1, resource_exhausted("no pages")});
  EXPECT_EQ(a_.all<CloseSession>().size(), 1u);  // the hop that had admitted it is told
  const SessionId three = submit({3}, third);
  EXPECT_EQ(a_.all<OpenSession>().size(), 2u);  // three does not overtake two
  SessionRequest request;
  request.prompt = {4};
  EXPECT_EQ(manager_.submit(request, third).status().code(), Code::kResourceExhausted);
  SessionRequest further = request;
  further.answer_begun = std::make_shared<std::atomic<bool>>(true);
  const Result<SessionId> taken = manager_.submit(further, std::make_shared<Recorder>());
  ASSERT_TRUE(taken.ok()) << "its answer is under way";
  manager_.cancel(*taken);
  executor_.run();
  send(token(one, 1, 1, 5, FinishReason::kLength));  // room
  ASSERT_EQ(a_.all<OpenSession>().size(), 4u);
  EXPECT_EQ(a_.all<OpenSession>()[2].session, two);
  EXPECT_EQ(a_.all<OpenSession>()[3].session, three);
}

TEST_F(SessionManagerTest, TenantsTakeTurns) {
  SessionManagerOptions options;
  options.name = "fair";
  options.first_id = 100;
  options.max_waiting = 40;
  SessionManager manager(options, transport_, executor_, router_);
  transport_.add("fair", manager);
  const auto ask = [&](const std::string& tenant) {
    SessionRequest request;
    request.prompt = std::vector<TokenId>(10, 1);
    request.params.max_tokens = 10;
    request.tenant = tenant;
    return manager.submit(std::move(request), std::make_shared<Recorder>());
  };
  const SessionId first = *ask("flood");
  executor_.run();
  transport_.send("fair", Refused{first, 1, 0, resource_exhausted("no pages")});
  executor_.run();
  for (int i = 0; i < 29; ++i) EXPECT_TRUE(ask("flood").ok()) << i;
  EXPECT_EQ(ask("flood").status().code(), Code::kResourceExhausted) << "some room is left for others";
  const SessionId small = *ask("small");
  executor_.run();
  a_.inbox.clear();
  executor_.advance(60ms);  // asks again; everybody finds room now
  std::vector<SessionId> order;
  for (const OpenSession& open : a_.all<OpenSession>()) order.push_back(open.session);
  ASSERT_EQ(order.size(), 31u);
  EXPECT_EQ(order[0], first);
  EXPECT_LE(std::find(order.begin(), order.end(), small) - order.begin(), 2) << "not behind the flood";
}

TEST_F(SessionManagerTest, HigherPriorityOpensFirst) {
  auto heard = std::make_shared<Recorder>();
  const SessionId one = submit({1}, heard);
  send(Refused{one, 1, 0, resource_exhausted("full")});
  const SessionId urgent = submit({2}, heard, 5);
  executor_.advance(60ms);
  const auto opens = a_.all<OpenSession>();
  EXPECT_EQ(opens[1].session, urgent);
}

TEST_F(SessionManagerTest, FinalRefusalFailureAndSilenceEndWithAReason) {
  auto refused = std::make_shared<Recorder>(), failed = std::make_shared<Recorder>(),
       silent = std::make_shared<Recorder>();
  const SessionId one = submit({1}, refused);
  send(Refused{one, 1, 0, invalid_argument("too long")});
  ASSERT_EQ(refused->failures.size(), 1u);
  const SessionId two = submit({2}, failed);
  opened(two, 1, 0, 0);
  send(Failed{two, 1, 1, internal_error("no finite logits")});
  ASSERT_EQ(failed->failures.size(), 1u);
  submit({3}, silent);
  executor_.advance(31s);
  ASSERT_EQ(silent->failures.size(), 1u);
  EXPECT_EQ(silent->failures[0].code(), Code::kDeadlineExceeded);
  EXPECT_EQ(manager_.stats().running, 0);
  EXPECT_EQ(manager_.stats().waiting, 0);
}

TEST_F(SessionManagerTest, ASessionThatFindsNoRouteIsCountedNoMore) {
  FixedRouter nowhere({});
  SessionManager manager({}, transport_, executor_, nowhere);
  auto heard = std::make_shared<Recorder>();
  SessionRequest request;
  request.prompt = {1};
  ASSERT_TRUE(manager.submit(request, heard).ok());
  executor_.run();
  ASSERT_EQ(heard->failures.size(), 1u);
  EXPECT_EQ(heard->failures[0].code(), Code::kUnavailable);
  EXPECT_EQ(manager.stats().running, 0);
  EXPECT_EQ(manager.stats().waiting, 0);
}

TEST_F(SessionManagerTest, CancelClosesEveryHopAndIsSilent) {
  auto heard = std::make_shared<Recorder>();
  const SessionId id = submit({1, 2}, heard);
  opened(id, 1, 0, 0);
  manager_.cancel(id);
  manager_.cancel(id);
  executor_.run();
  send(token(id, 1, 2, 7));
  EXPECT_TRUE(heard->tokens.empty());
  EXPECT_TRUE(heard->failures.empty());
  EXPECT_EQ(b_.all<CloseSession>().size(), 1u);
  EXPECT_EQ(manager_.stats().running, 0);
}

TEST_F(SessionManagerTest, AWorkerThatTakesNothingIsReportedToTheGateway) {
  auto heard = std::make_shared<Recorder>();
  const SessionId id = submit({1, 2}, heard);
  opened(id, 1, 0, 0);
  b_.willing = false;
  Rows rows;
  rows.session = id;
  rows.epoch = 1;
  transport_.send("b", rows);  // what the head would do
  executor_.run();
  ASSERT_EQ(heard->failures.size(), 1u);
  EXPECT_EQ(heard->failures[0].code(), Code::kUnavailable);
  transport_.remove("b");
  const SessionId two = submit({1, 2}, heard);
  EXPECT_EQ(a_.all<CloseSession>().back().session, two);  // refused for want of room: waits
  EXPECT_EQ(manager_.stats().waiting, 1);
}

// Routes over whatever workers live; remembers what it heard.
struct LiveRouter : Router {
  std::vector<std::string> first{"a"}, second{"b", "c"};
  std::vector<std::string> failed;
  std::string inexact;
  Result<RouteChoice> choose(const RouteQuery& query) override {
    auto live = [&](const std::vector<std::string>& workers) -> std::string {
      for (const std::string& worker : workers)
        if (std::find(failed.begin(), failed.end(), worker) == failed.end()) return worker;
      return "";
    };
    const std::string a = live(first), b = live(second);
    if (a.empty() || b.empty()) return unavailable("nobody hosts blocks 2:4");
    return RouteChoice{{{a, {0, 2}}, {b, {2, 4}}}, query.broken != nullptr ? inexact : ""};
  }
  void on_hop_failed(const std::string& inbox, const Status&) override { failed.push_back(inbox); }
};

class FailoverTest : public SessionManagerTest {
 protected:
  FailoverTest() : failover_(failover_options(), transport_, executor_, live_) {
    transport_.remove("gateway");
    transport_.add("gateway", failover_);
    transport_.add("c", c_);
  }
  SessionManagerOptions failover_options() {
    SessionManagerOptions options;
    options.failover_timeout = 10s;
    options.clock = &executor_;
    options.on_failover = [this](const Failover& failover) { recorded_.push_back(failover); };
    return options;
  }
  SessionId start(std::vector<TokenId> prompt, std::shared_ptr<Recorder> heard) {
    SessionRequest request;
    request.prompt = std::move(prompt);
    request.params.max_tokens = 8;
    const SessionId id = *failover_.submit(std::move(request), std::move(heard));
    executor_.run();
    opened(id, 1, 0, 0);
    return id;
  }

  FakeHop c_;
  LiveRouter live_;
  std::vector<cluster::Failover> recorded_;
  SessionManager failover_;
};

TEST_F(FailoverTest, ASubstituteIsFedFromWhatTheSurvivorKept) {
  auto heard = std::make_shared<Recorder>();
  const SessionId id = start({1, 2, 3}, heard);
  send(token(id, 1, 3, 10));
  live_.inexact = "another class";
  failover_.worker_lost("b", unavailable("its stream ended"));
  executor_.run();
  ASSERT_EQ(c_.all<OpenSession>().size(), 1u);
  EXPECT_EQ(*c_.all<OpenSession>()[0].tokens, (std::vector<TokenId>{1, 2, 3, 10}));
  EXPECT_EQ(c_.all<OpenSession>()[0].epoch, 2u);
  EXPECT_TRUE(a_.all<CloseSession>().empty()) << "the survivor keeps its KV";
  ASSERT_EQ(b_.all<CloseSession>().size(), 1u) << "should it still live, it is told";
  send(Opened{id, 2, 0, 4, 0});
  send(Opened{id, 2, 1, 0, 0});
  EXPECT_EQ(a_.all<StartSession>().back().start, 4) << "nothing is computed again";
  EXPECT_EQ(a_.all<StartSession>().back().send_from, 0) << "all is replayed";
  EXPECT_EQ(c_.all<StartSession>().back().start, 0);
  send(token(id, 1, 4, 66));  // of the old epoch
  send(token(id, 2, 4, 11, FinishReason::kLength));
  ASSERT_EQ(heard->tokens.size(), 2u);
  EXPECT_EQ(heard->tokens[1].sampled.token, 11);
  EXPECT_EQ(heard->inexact, "another class");
  ASSERT_EQ(recorded_.size(), 1u);
  EXPECT_EQ(recorded_[0].inbox, "b");
  EXPECT_TRUE(recorded_[0].recovered);
  EXPECT_EQ(failover_.stats().failovers, 1);
}

TEST_F(FailoverTest, OnlyHopsThatBreakUnderASessionSpeakAgainstIt) {
  auto patient = std::make_shared<Recorder>(), deadly = std::make_shared<Recorder>();
  // A hop that cannot be reached tells nothing of the session: it tries on until failover_timeout.
  live_.second = {"b"};
  SessionRequest request;
  request.prompt = {1, 2, 3};
  const SessionId id = *failover_.submit(request, patient);
  executor_.run();
  int tries = 0;
  for (; patient->failures.empty() && tries < 40; ++tries) {
    live_.failed.clear();
    send(Failed{id, b_.all<OpenSession>().back().epoch, 0, unavailable("cannot reach b"), "b"});
    executor_.advance(tries < 17 ? 500ms : 2s);
  }
  EXPECT_GT(tries, 17);
  EXPECT_EQ(patient->failures.size(), 1u) << "but no longer";
  ASSERT_FALSE(recorded_.empty());
  EXPECT_GE(recorded_.back().stall, 10s);
  EXPECT_FALSE(recorded_.back().recovered);
  // One under which they die, soon one after another, is given up.
  live_.second = {"b", "c"};
  live_.failed.clear();
  const SessionId other = start({4, 5, 6}, deadly);
  for (Epoch epoch = 1; epoch <= 17; ++epoch) {
    EXPECT_TRUE(deadly->failures.empty()) << epoch;
    live_.failed.clear();
    failover_.worker_lost(epoch % 2 == 1 ? "b" : "c", unavailable("its stream ended"));
    executor_.run();
    opened(other, epoch + 1, 0, 0);
  }
  EXPECT_EQ(deadly->failures.size(), 1u);
}

TEST_F(FailoverTest, AWorkerThatMayComeBackIsToldOfWhatEndedMeanwhile) {
  auto heard = std::make_shared<Recorder>();
  const SessionId id = start({1, 2, 3}, heard);
  failover_.worker_lost("b", unavailable("silent"));  // its connection takes messages and loses them
  executor_.run();
  EXPECT_EQ(b_.all<CloseSession>().size(), 1u);
  opened(id, 2, 0, 0);
  send(token(id, 2, 3, 11, FinishReason::kLength));
  executor_.advance(10s);
  ASSERT_GE(b_.all<CloseSession>().size(), 3u);
  for (const CloseSession& close : b_.all<CloseSession>()) {
    EXPECT_EQ(close.session, id);
    EXPECT_EQ(close.epoch, 1u) << "never of an epoch that it might serve again";
  }
  executor_.advance(600s);
  const size_t told = b_.all<CloseSession>().size();
  executor_.advance(600s);
  EXPECT_EQ(b_.all<CloseSession>().size(), told) << "not for ever";
  failover_.worker_back("bb");  // another
  failover_.worker_back("b");
  executor_.run();
  EXPECT_EQ(b_.all<CloseSession>().size(), told + 1) << "but when it comes back";
  failover_.worker_back("b");
  executor_.run();
  EXPECT_EQ(b_.all<CloseSession>().size(), told + 1);
  EXPECT_EQ(a_.all<CloseSession>().size(), 1u) << "who lives is told once";
}

TEST_F(FailoverTest, AFurtherChoiceOfAnAnswerThatHasBegunIsNotRefused) {
  live_.second = {};
  const auto submit = [&](bool begun, std::shared_ptr<Recorder> heard) {
    SessionRequest request;
    request.prompt = {1, 2};
    request.answer_begun = std::make_shared<std::atomic<bool>>(begun);
    ASSERT_TRUE(failover_.submit(std::move(request), std::move(heard)).ok());
    executor_.run();
  };
  auto fresh = std::make_shared<Recorder>(), further = std::make_shared<Recorder>();
  submit(false, fresh);
  EXPECT_EQ(fresh->failures.size(), 1u) << "a new request is told at once";
  submit(true, further);
  executor_.advance(5s);
  EXPECT_TRUE(further->failures.empty());
  live_.second = {"c"};
  failover_.routes_changed();
  executor_.run();
  EXPECT_EQ(c_.all<OpenSession>().size(), 1u);
  live_.second = {};
  auto last = std::make_shared<Recorder>();
  submit(true, last);
  executor_.advance(11s);
  EXPECT_EQ(last->failures.size(), 1u) << "it waits no longer than others";
}

TEST_F(FailoverTest, WithoutASubstituteItWaitsForOneAndThenEndsWithTheReason) {
  auto heard = std::make_shared<Recorder>(), second = std::make_shared<Recorder>();
  const SessionId id = start({1, 2, 3}, heard);
  const SessionId other = start({4}, second);
  live_.second = {"b"};
  send(Failed{id, 1, 0, unavailable("cannot reach b"), "b"});
  EXPECT_EQ(failover_.stats().broken, 1);
  send(token(id, 1, 3, 9));  // was on its way
  EXPECT_EQ(heard->tokens.size(), 1u);
  executor_.advance(5s);
  live_.second = {"b", "c"};
  failover_.routes_changed();
  executor_.run();
  ASSERT_EQ(c_.all<OpenSession>().size(), 1u);
  EXPECT_EQ(failover_.stats().broken, 0);
  live_.second = {"b"};
  failover_.worker_lost("b", unavailable("gone"));
  executor_.advance(11s);
  ASSERT_EQ(second->failures.size(), 1u);
  EXPECT_NE(second->failures[0].message().find("nobody hosts"), std::string::npos);
  ASSERT_EQ(recorded_.size(), 1u);
  EXPECT_EQ(recorded_[0].session, other);
  EXPECT_FALSE(recorded_[0].recovered);
  EXPECT_TRUE(heard->failures.empty());
}

TEST_F(FailoverTest, AHopThatDoesNotAnswerOpenIsReplacedAndADrainedOneLeftInPeace) {
  auto heard = std::make_shared<Recorder>();
  SessionRequest request;
  request.prompt = {1};
  const SessionId id = *failover_.submit(request, heard);
  executor_.run();
  send(Opened{id, 1, 0, 0});
  executor_.advance(31s);  // b is silent
  ASSERT_EQ(c_.all<OpenSession>().size(), 1u);
  opened(id, 2, 0, 0);
  live_.first = {"a", "b"};
  live_.failed = {"a"};
  failover_.move_away("a");
  executor_.run();
  EXPECT_EQ(b_.all<OpenSession>().back().epoch, 3u);
  live_.second = {};
  failover_.move_away("b");  // nobody else: it stays
  executor_.run();
  EXPECT_TRUE(heard->failures.empty());
  EXPECT_EQ(failover_.stats().broken, 0);
}

TEST_F(FailoverTest, AFaultThatMovesWithTheSessionEndsIt) {
  auto heard = std::make_shared<Recorder>();
  const SessionId id = start({1}, heard);
  for (Epoch epoch = 1; epoch < 40 && heard->failures.empty(); ++epoch) {
    live_.failed.clear();
    send(Failed{id, epoch, 1, unavailable("crashed"), ""});
    executor_.advance(2s);  // the same hop again: it is given a moment
  }
  EXPECT_EQ(heard->failures.size(), 1u);
}

class TraceTest : public FailoverTest {
 protected:
  // What both hops say of the step before the token at `position`.
  void step(SessionId id, Epoch epoch, int position) {
    for (int hop = 0; hop < 2; ++hop) {
      StepTrace trace{id, epoch, hop, position - 1, 1, 1};
      trace.wake_us = 10;
      trace.compute_us = 100 * (hop + 1);
      send(trace);
    }
  }
  void trace(SessionId id, int steps) {
    failover_.trace(id, steps, [this](Result<SessionTrace> trace) { traces_.push_back(std::move(trace)); });
    executor_.run();
  }
  std::vector<Result<SessionTrace>> traces_;
};

TEST_F(TraceTest, PutsTogetherWhatHopsAndTokensTell) {
  const SessionId id = start({1, 2, 3}, std::make_shared<Recorder>());
  trace(id, 2);
  ASSERT_EQ(a_.all<TraceSteps>().size(), 1u);
  ASSERT_EQ(b_.all<TraceSteps>().size(), 1u);
  EXPECT_GE(b_.all<TraceSteps>()[0].steps, 2);
  trace(id, 2);
  ASSERT_EQ(traces_.size(), 1u);
  EXPECT_EQ(traces_[0].status().code(), Code::kResourceExhausted) << "one at a time";
  trace(id + 1, 2);
  ASSERT_EQ(traces_.size(), 2u);
  EXPECT_EQ(traces_[1].status().code(), Code::kNotFound);
  send(token(id, 1, 3, 9));  // its step was not seen whole: no token before it
  step(id, 1, 4);
  send(token(id, 1, 4, 9));
  send(token(id, 1, 5, 9));  // a hop's report may come after the token
  EXPECT_EQ(traces_.size(), 2u);
  step(id, 1, 5);
  ASSERT_EQ(traces_.size(), 3u);
  ASSERT_TRUE(traces_[2].ok()) << traces_[2].status().to_string();
  const SessionTrace& seen = *traces_[2];
  ASSERT_EQ(seen.steps.size(), 2u);
  EXPECT_EQ(seen.steps[0].position, 4);
  ASSERT_EQ(seen.steps[1].hops.size(), 2u);
  EXPECT_EQ(seen.steps[1].hops[1].compute_us, 200);
  EXPECT_EQ(seen.route->size(), 2u);
}

TEST_F(TraceTest, EndsWithTheSessionTheRouteOrItsPatience) {
  const SessionId id = start({1, 2, 3}, std::make_shared<Recorder>());
  trace(id, 5);
  send(token(id, 1, 3, 9));
  step(id, 1, 4);
  send(token(id, 1, 4, 9));
  executor_.advance(31s);
  ASSERT_EQ(traces_.size(), 1u);
  ASSERT_TRUE(traces_[0].ok()) << "what was seen by then";
  EXPECT_EQ(traces_[0]->steps.size(), 1u);
  trace(id, 5);
  live_.second = {"c"};
  send(Failed{id, 1, 1, unavailable("crashed"), ""});
  ASSERT_EQ(traces_.size(), 2u);
  EXPECT_EQ(traces_[1].status().code(), Code::kUnavailable);
  send(Opened{id, 2, 0, 0});
  send(Opened{id, 2, 1, 0});
  trace(id, 5);
  failover_.cancel(id);
  executor_.run();
  ASSERT_EQ(traces_.size(), 3u);
  EXPECT_EQ(traces_[2].status().code(), Code::kUnavailable);
}

TEST(SessionTraceTest, LinksAreWhatTheHopsLeaveOfACycle) {
  TracedStep step;
  step.hops = {StepTrace{.compute_us = 300, .send_us = 20}, StepTrace{.wake_us = 5, .queue_us = 15}};
  EXPECT_EQ(step.links_us(), 0) << "of an unknown cycle";
  step.cycle_us = 1000;
  EXPECT_EQ(step.links_us(), 660);
  step.cycle_us = 100;  // clocks of several machines: never less than nothing
  EXPECT_EQ(step.links_us(), 0);
}

TEST(SessionTraceTest, AHopThatReportsWithoutEndIsNotListenedTo) {
  std::optional<Result<SessionTrace>> got;
  TraceCollector collector(1, std::make_shared<const Route>(Route{{"a", {0, 2}}, {"b", {2, 4}}}), 2,
                           [&](Result<SessionTrace> trace) { got = std::move(trace); });
  for (int position = 0; position < 100000; ++position) collector.add(StepTrace{1, 1, 0, position, 1, 1});
  collector.add(StepTrace{1, 1, 7, 3, 1, 1});  // no hop of this route
  collector.add(StepTrace{1, 1, -1, 3, 1, 1});
  EXPECT_FALSE(collector.complete());
  collector.finish(unavailable("nothing"));
  ASSERT_TRUE(got.has_value());
  EXPECT_EQ(got->status().message(), "nothing");
}

}  // namespace
}  // namespace tessera::cluster
