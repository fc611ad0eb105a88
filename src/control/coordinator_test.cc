#include "control/coordinator.h"

#include <gtest/gtest.h>

#include "cluster/manual_executor.h"

namespace tessera::control {
namespace {

using namespace std::chrono_literals;

struct Sent : ControlSink, MessageSink {
  std::vector<std::pair<std::string, ControlMessage>> control;
  std::vector<std::pair<std::string, Message>> session;
  void send(const std::string& worker, ControlMessage message) override {
    control.emplace_back(worker, message);
  }
  void send(const std::string& to, Message message) override { session.emplace_back(to, message); }
  template <typename T>
  std::vector<std::pair<std::string, T>> take() {
    std::vector<std::pair<std::string, T>> found;
    for (const auto& [worker, message] : control)
      if (const T* m = std::get_if<T>(&message)) found.emplace_back(worker, *m);
    std::erase_if(control, [](const auto& entry) { return std::holds_alternative<T>(entry.second); });
    return found;
  }
};

struct Recorder : cluster::SessionObserver {
  std::vector<Status> failures;
  std::string inexact;
  void on_started(int) override {}
  void on_token(const Token&) override {}
  void on_failed(const Status& reason) override { failures.push_back(reason); }
  void on_inexact(const std::string& reason) override { inexact = reason; }
};

// Workers are puppets: what they load is ready when the test says so.
class CoordinatorTest : public ::testing::Test {
 protected:
  static constexpr uint64_t kBlock = 1 << 20;

  CoordinatorTest() : coordinator_({}, sent_, executor_, executor_) {
    cluster::SessionManagerOptions options;
    options.name = "gateway/m";
    options.clock = &executor_;
    sessions_.emplace(options, sent_, executor_, coordinator_.router("m"));
    ServedModel model;
    model.shape.name = "m";
    model.shape.num_blocks = 8;
    model.shape.block_bytes.assign(8, kBlock);
    model.shape.kv_bytes_per_token = 64;
    model.shape.row_bytes = 64;
    model.shape.context_length = model.shape.min_context = 256;
    model.sessions = &*sessions_;
    coordinator_.add_model(model);
    executor_.run();
  }

  void attach(const std::string& name, double blocks_of_memory, uint64_t incarnation = 1,
              std::vector<InstanceReport> instances = {}) {
    Hello hello;
    hello.worker = name;
    hello.incarnation = incarnation;
    hello.address = "10.0.0.1:1";
    hello.capabilities.memory_bytes = static_cast<uint64_t>(blocks_of_memory * (kBlock + 64 * 256));
    hello.capabilities.decode_bytes_per_s = slow_.count(name) > 0 ? 1e8 : 1e9;
    hello.capabilities.prefill_ops_per_s = 1e10;
    hello.instances = std::move(instances);
    connection_[name] = ++connections_;
    coordinator_.attach(connections_, hello);
    executor_.run();
    const auto welcomes = sent_.take<Welcome>();
    if (!welcomes.empty()) lease_[name] = welcomes.back().second.lease;
  }
  void detach(const std::string& name) {
    coordinator_.detach(name, connection_[name], unavailable("gone"));
    executor_.run();
  }
  void beat(const std::string& name, uint64_t lease = 0) {
    Heartbeat heartbeat;
    heartbeat.lease = lease != 0 ? lease : lease_[name];
    heartbeat.instances = hosted_[name];
    coordinator_.receive(name, connection_[name], heartbeat);
    executor_.run();
  }
  // Carries out what the workers were asked for.
  void settle() {
    for (int round = 0; round < 6; ++round) {
      executor_.advance(500ms);
      for (const auto& [worker, load] : sent_.take<LoadInstance>()) {
        InstanceReport report;
        report.id = load.id;
        report.model = load.model;
        report.blocks = load.blocks;
        report.state = InstanceState::kReady;
        report.numerics = numerics_[worker];
        report.kv_tokens = report.kv_tokens_free = 4096;
        hosted_[worker].push_back(report);
      }
      for (const auto& [worker, unload] : sent_.take<UnloadInstance>())
        std::erase_if(hosted_[worker], [&id = unload.id](const InstanceReport& r) { return r.id == id; });
      for (const auto& [name, lease] : lease_) beat(name);
    }
  }
  ClusterView view() {
    ClusterView result;
    coordinator_.view([&](ClusterView v) { result = std::move(v); });
    executor_.run();
    return result;
  }
  std::string state_of(const std::string& name) {
    for (const WorkerView& worker : view().workers)
      if (worker.name == name) return worker.state;
    return "absent";
  }
  SessionId open(std::shared_ptr<Recorder> heard, int max_tokens = 8) {
    cluster::SessionRequest request;
    request.prompt = {1, 2, 3};
    request.params.max_tokens = max_tokens;
    const SessionId id = *sessions_->submit(request, std::move(heard));
    executor_.run();
    return id;
  }
  // The inboxes that were asked to open the latest epoch.
  std::vector<std::string> route() {
    std::vector<std::string> result;
    Epoch latest = 0;
    for (const auto& [to, message] : sent_.session)
      if (const auto* opened = std::get_if<OpenSession>(&message)) {
        if (opened->epoch > latest) result.clear();
        latest = opened->epoch;
        result.push_back(to);
      }
    return result;
  }
  static std::string worker_of(const std::string& inbox) { return inbox.substr(0, inbox.find('/')); }

  cluster::ManualExecutor executor_;
  Sent sent_;
  Coordinator coordinator_;
  std::optional<cluster::SessionManager> sessions_;
  std::map<std::string, uint64_t> connection_, lease_;
  std::map<std::string, std::string> numerics_;
  std::set<std::string> slow_;  // workers that a route takes only for want of others
  std::map<std::string, std::vector<InstanceReport>> hosted_;
  uint64_t connections_ = 0;
};

TEST_F(CoordinatorTest, CutsOverWorkersThatJoinTogetherAndRoutesOverThem) {
  attach("a", 5);
  attach("b", 5);
  settle();
  ASSERT_EQ(hosted_["a"].size(), 1u);
  ASSERT_EQ(hosted_["b"].size(), 1u);
  EXPECT_EQ(hosted_["a"][0].blocks.size() + hosted_["b"][0].blocks.size(), 8);
  EXPECT_EQ(view().models.at(0).uncovered, -1);
  open(std::make_shared<Recorder>());
  EXPECT_EQ(route().size(), 2u);
}

TEST_F(CoordinatorTest, WithoutACoverRequestsAreToldWhichBlocksLack) {
  attach("a", 5);
  settle();
  auto heard = std::make_shared<Recorder>();
  open(heard);
  ASSERT_EQ(heard->failures.size(), 1u);
  EXPECT_EQ(heard->failures[0].code(), Code::kUnavailable);
  EXPECT_NE(heard->failures[0].message().find("blocks from"), std::string::npos)
      << heard->failures[0].message();
}

TEST_F(CoordinatorTest, ALostWorkersRangeGoesToAnotherAndItsSessionsFollow) {
  for (const char* name : {"a", "b", "c"}) attach(name, 9);
  settle();
  auto heard = std::make_shared<Recorder>();
  open(heard);
  const std::vector<std::string> before = route();
  ASSERT_FALSE(before.empty());
  const std::string victim = worker_of(before.back());
  lease_.erase(victim);
  hosted_.erase(victim);
  detach(victim);
  settle();
  const std::vector<std::string> after = route();
  EXPECT_FALSE(after.empty());
  for (const std::string& inbox : after) EXPECT_NE(worker_of(inbox), victim);
  EXPECT_EQ(state_of(victim), "lost");
  EXPECT_TRUE(heard->failures.empty());
  EXPECT_EQ(sessions_->stats().failovers, 1);
}

TEST_F(CoordinatorTest, ASilentWorkerIsLostAndItsOldLeaseIsWorthNothing) {
  attach("a", 9);
  settle();
  EXPECT_EQ(state_of("a"), "ready");
  const uint64_t old = lease_["a"];
  executor_.advance(4s);
  EXPECT_EQ(state_of("a"), "lost");
  ASSERT_FALSE(sent_.take<Goodbye>().empty());
  beat("a", old);  // it wakes up
  EXPECT_EQ(state_of("a"), "lost");
  const auto goodbyes = sent_.take<Goodbye>();
  ASSERT_EQ(goodbyes.size(), 1u);
  EXPECT_FALSE(goodbyes[0].second.final);
  attach("a", 9, 1, hosted_["a"]);
  EXPECT_GT(lease_["a"], old);
  settle();
  EXPECT_EQ(hosted_["a"].size(), 1u) << "what it hosts is kept, not loaded again";
}

TEST_F(CoordinatorTest, AnotherProtocolIsRefusedForGoodWithBothRanges) {
  Hello hello;
  hello.worker = "old";
  hello.version = "0.0.1";
  hello.protocol = {7, 9};
  coordinator_.attach(1, hello);
  executor_.run();
  const auto goodbyes = sent_.take<Goodbye>();
  ASSERT_EQ(goodbyes.size(), 1u);
  EXPECT_TRUE(goodbyes[0].second.final);
  EXPECT_NE(goodbyes[0].second.reason.find("7 to 9"), std::string::npos) << goodbyes[0].second.reason;
  EXPECT_EQ(state_of("old"), "absent");
}

TEST_F(CoordinatorTest, ADrainedWorkerIsEmptiedWhenOthersCoverAndThenSentHome) {
  attach("a", 9);
  settle();
  attach("b", 9);
  settle();
  Status status = internal_error("not called");
  coordinator_.drain("a", [&](Status s) { status = std::move(s); });
  executor_.run();
  EXPECT_TRUE(status.ok());
  settle();
  EXPECT_TRUE(hosted_["a"].empty());
  EXPECT_FALSE(sent_.take<Drain>().empty());
  detach("a");
  EXPECT_EQ(state_of("a"), "absent");
  coordinator_.drain("nobody", [&](Status s) { status = std::move(s); });
  executor_.run();
  EXPECT_EQ(status.code(), Code::kNotFound);
}

TEST_F(CoordinatorTest, AWorkerThatCannotLoadIsAskedAgainOnlyAfterAWhile) {
  attach("a", 9);
  executor_.advance(1s);
  auto loads = sent_.take<LoadInstance>();
  ASSERT_EQ(loads.size(), 1u);
  InstanceReport failed;
  failed.id = loads[0].second.id;
  failed.model = "m";
  failed.blocks = loads[0].second.blocks;
  failed.state = InstanceState::kFailed;
  failed.error = "the disk is full";
  hosted_["a"] = {failed};
  beat("a");
  hosted_["a"].clear();
  beat("a");
  for (int second = 0; second < 28; ++second) {
    executor_.advance(1s);
    beat("a");
  }
  EXPECT_TRUE(sent_.take<LoadInstance>().empty());
  for (int second = 0; second < 4; ++second) {
    executor_.advance(1s);
    beat("a");
  }
  EXPECT_EQ(sent_.take<LoadInstance>().size(), 1u);
}

TEST_F(CoordinatorTest, AnotherNumericsClassIsTheLastChoiceAndIsSaid) {
  numerics_["a"] = numerics_["b"] = "avx2";
  numerics_["x"] = "other";
  slow_ = {"x"};
  for (const char* name : {"a", "b", "x"}) attach(name, 9);
  settle();
  auto heard = std::make_shared<Recorder>();
  open(heard);
  ASSERT_EQ(route().size(), 1u);
  std::string current = worker_of(route()[0]);
  ASSERT_NE(current, "x");
  for (int i = 0; i < 2; ++i) {
    EXPECT_NE(current, "x");
    EXPECT_EQ(heard->inexact, "");
    lease_.erase(current);
    hosted_.erase(current);
    detach(current);
    settle();
    current = worker_of(route().back());
  }
  EXPECT_EQ(current, "x");
  EXPECT_NE(heard->inexact, "");
}

struct HeardEngines : EngineDirectory {
  std::vector<std::string> heard;
  void engine_reported(const std::string& worker, const EngineReport& report, bool draining) override {
    heard.push_back(worker + " " + report.models.at(0).name + (draining ? " draining" : ""));
  }
  void engine_lost(const std::string& worker, const Status&, bool for_good) override {
    heard.push_back(worker + (for_good ? " has left" : " is lost"));
  }
  std::vector<std::string> take() { return std::exchange(heard, {}); }
};

TEST(CoordinatorEngines, AreMembersWithoutBlocks) {
  cluster::ManualExecutor executor;
  Sent sent;
  HeardEngines engines;
  CoordinatorOptions options;
  options.engines = &engines;
  Coordinator coordinator(options, sent, executor, executor);
  ServedModel model;
  model.shape.name = "m";
  model.shape.num_blocks = 1;
  model.shape.block_bytes = {1};
  model.shape.context_length = model.shape.min_context = 16;
  coordinator.add_model(model);
  Hello hello;
  hello.worker = "e";
  hello.incarnation = 7;
  hello.capabilities.memory_bytes = uint64_t{1} << 30;
  hello.engine = EngineReport();
  hello.engine->models = {{"org/m", 512}};
  const auto attach = [&](uint64_t connection) {
    coordinator.attach(connection, hello);
    executor.run();
    return sent.take<Welcome>().back().second.lease;
  };
  const auto beat = [&](uint64_t connection, uint64_t lease, const char* name, bool draining = false) {
    Heartbeat heartbeat;
    heartbeat.lease = lease;
    heartbeat.draining = draining;
    heartbeat.engine = hello.engine;
    heartbeat.engine->models[0].name = name;
    coordinator.receive("e", connection, heartbeat);
    executor.run();
  };
  uint64_t lease = attach(1);
  EXPECT_EQ(engines.take(), std::vector<std::string>{"e org/m"});
  executor.advance(1s);
  EXPECT_TRUE(sent.take<LoadInstance>().empty()) << "whatever memory it says it has";
  beat(1, lease, "org/new");
  EXPECT_EQ(engines.take(), std::vector<std::string>{"e org/new"});
  beat(1, lease + 1, "org/forged");
  EXPECT_TRUE(engines.take().empty()) << "another lease's word";
  coordinator.detach("e", 1, unavailable("gone"));
  executor.run();
  EXPECT_EQ(engines.take(), std::vector<std::string>{"e is lost"});
  lease = attach(2);
  engines.take();
  beat(2, lease, "org/m", true);
  EXPECT_EQ(engines.take(), std::vector<std::string>{"e org/m draining"});
  executor.advance(100ms);
  EXPECT_EQ(sent.take<Drain>().size(), 1u);
  coordinator.detach("e", 2, unavailable("gone"));
  executor.run();
  EXPECT_EQ(engines.take(), (std::vector<std::string>{"e is lost", "e has left"}));
  executor.advance(10s);
}

TEST_F(CoordinatorTest, RemovedModelsAreUnloaded) {
  attach("a", 9);
  settle();
  EXPECT_EQ(hosted_["a"].size(), 1u);
  coordinator_.remove_model("m");
  settle();
  EXPECT_TRUE(hosted_["a"].empty());
  auto heard = std::make_shared<Recorder>();
  open(heard);
  EXPECT_EQ(heard->failures.size(), 1u);
}

}  // namespace
}  // namespace tessera::control
