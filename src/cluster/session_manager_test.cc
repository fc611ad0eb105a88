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
};

class SessionManagerTest : public ::testing::Test {
 protected:
  SessionManagerTest()
      : router_({{"a", {0, 2}}, {"b", {2, 4}}}),
        manager_({.max_waiting = 2}, transport_, executor_, router_) {
    transport_.add("a", a_);
    transport_.add("b", b_);
    transport_.add("gateway", manager_);
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
  static Token token(SessionId id, Epoch epoch, int position, TokenId value,
                     FinishReason finish = FinishReason::kNone) {
    Token t;
    t.session = id;
    t.epoch = epoch;
    t.position = position;
    t.sampled.token = value;
    t.finish = finish;
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
  EXPECT_EQ(a_.all<StartSession>()[0].start, 16);
  EXPECT_TRUE(b_.all<StartSession>().empty());
  EXPECT_EQ(heard->cached, 16);
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
  send(token(one, 1, 1, 5, FinishReason::kLength));  // room
  ASSERT_EQ(a_.all<OpenSession>().size(), 4u);
  EXPECT_EQ(a_.all<OpenSession>()[2].session, two);
  EXPECT_EQ(a_.all<OpenSession>()[3].session, three);
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

}  // namespace
}  // namespace tessera::cluster
