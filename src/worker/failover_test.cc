// Real sessions over toy engines that die: whatever is killed and when, the tokens are those of an
// undisturbed run (I1, I2), and a survivor computes nothing again whose outputs were kept.
#include <gtest/gtest.h>

#include "cluster/manual_executor.h"
#include "cluster/session_manager.h"
#include "engine/test_cluster.h"

namespace tessera::worker {
namespace {

using namespace std::chrono_literals;
using engine::toy::ToyOptions;

struct Recorder : cluster::SessionObserver {
  std::vector<TokenId> output;
  FinishReason finish = FinishReason::kNone;
  Status failure;
  int cached = -1;
  void on_started(int cached_tokens) override { cached = cached_tokens; }
  void on_token(const Token& token) override {
    if (token.sampled.token >= 0) output.push_back(token.sampled.token);
    finish = token.finish;
  }
  void on_failed(const Status& reason) override { failure = reason; }
};

// Two workers for each range; engines run one step a turn. Messages between living workers arrive in order.
class FailoverCluster : public cluster::Router, public MessageSink {
 public:
  struct Worker : cluster::Inbox {
    std::unique_ptr<engine::Engine> engine;
    BlockRange blocks;
    bool alive = true;
    bool deliver(Message message) override { return engine->post(std::move(message)); }
  };

  FailoverCluster(const std::vector<BlockRange>& ranges, engine::EngineOptions options, uint32_t seed)
      : ranges_(ranges), options_(std::move(options)), random_(seed) {
    cluster::SessionManagerOptions session_options;
    session_options.max_failovers = 1000;
    session_options.on_failover = [this](const cluster::Failover& f) { recovered_ += f.recovered; };
    sessions_.emplace(session_options, *this, executor_, *this);
    for (size_t range = 0; range < ranges.size(); ++range)
      for (int replica = 0; replica < 2; ++replica) add_worker(range);
  }
  ~FailoverCluster() override {
    for (auto& [name, worker] : workers_) worker->engine->stop();
  }

  void add_worker(size_t range) {
    const std::string name = "w" + std::to_string(++last_worker_);
    auto worker = std::make_unique<Worker>();
    worker->blocks = ranges_[range];
    engine::EngineOptions options = options_;
    options.worker_name = name;
    options.kv_memory_bytes *= static_cast<uint64_t>(ranges_[range].size());
    auto engine =
        engine::Engine::create(std::make_unique<engine::toy::ToyModel>(ToyOptions{}, ranges_[range]),
                               std::make_unique<engine::toy::ToyBackend>(), options, *this, nullptr);
    TESSERA_CHECK(engine.ok(), engine.status().message());
    worker->engine = std::move(engine).value();
    workers_[name] = std::move(worker);
  }

  // SIGKILL: what it was sent is lost, what it had sent arrives. Another worker of its range joins.
  void kill(const std::string& name) {
    Worker& worker = *workers_.at(name);
    worker.alive = false;
    std::erase_if(mail_, [&](const auto& mail) { return mail.first == name; });
    for (size_t range = 0; range < ranges_.size(); ++range)
      if (ranges_[range] == worker.blocks) add_worker(range);
    sessions_->worker_lost(name, unavailable("killed"));
  }
  // A worker that serves somebody.
  std::string random_busy_worker() {
    std::vector<std::string> busy;
    for (auto& [name, worker] : workers_)
      if (worker->alive && worker->engine->stats().running > 0) busy.push_back(name);
    return busy.empty() ? "" : busy[random_() % busy.size()];
  }

  Result<cluster::RouteChoice> choose(const cluster::RouteQuery& query) override {
    cluster::RouteChoice choice;
    for (const BlockRange& range : ranges_) {
      std::vector<std::string> candidates;
      for (auto& [name, worker] : workers_)
        if (worker->alive && worker->blocks == range) candidates.push_back(name);
      std::string chosen = candidates[random_() % candidates.size()];
      if (query.previous != nullptr)
        for (const Hop& hop : *query.previous)
          if (hop.blocks == range && workers_.at(hop.worker)->alive) chosen = hop.worker;
      choice.route.push_back({chosen, range});
    }
    return choice;
  }
  void send(const std::string& to, Message message) override {
    if (to == "gateway")
      sessions_->deliver(std::move(message));
    else if (workers_.at(to)->alive)
      mail_.emplace_back(to, std::move(message));
  }

  bool turn() {
    executor_.run();
    bool busy = !mail_.empty();
    for (auto mail = std::exchange(mail_, {}); !mail.empty(); mail.pop_front())
      if (Worker& worker = *workers_.at(mail.front().first); worker.alive) {
        EXPECT_TRUE(worker.deliver(std::move(mail.front().second)));
      }
    for (auto& [name, worker] : workers_)
      if (worker->alive) busy |= worker->engine->run_once();
    executor_.run();
    if (!busy && mail_.empty()) executor_.advance(60ms);
    return busy;
  }
  int64_t total(int64_t engine::EngineStats::*count) {
    int64_t sum = 0;
    for (auto& [name, worker] : workers_)
      if (worker->alive) sum += worker->engine->stats().*count;
    return sum;
  }
  cluster::SessionManager& sessions() { return *sessions_; }
  int recovered() const { return recovered_; }
  std::mt19937& random() { return random_; }
  bool idle() { return sessions_->stats().running + sessions_->stats().waiting == 0; }
  void expect_nothing_held() {
    for (auto& [name, worker] : workers_)
      if (worker->alive) {
        const engine::EngineStats s = worker->engine->stats();
        EXPECT_EQ(s.kv_used, 0) << name;
        EXPECT_EQ(s.kv_free + s.kv_cached, s.kv_total) << "I6 at " << name;
      }
  }

 private:
  const std::vector<BlockRange> ranges_;
  const engine::EngineOptions options_;
  std::mt19937 random_;
  cluster::ManualExecutor executor_;
  std::map<std::string, std::unique_ptr<Worker>> workers_;
  std::deque<std::pair<std::string, Message>> mail_;
  int last_worker_ = 0;
  int recovered_ = 0;
  std::optional<cluster::SessionManager> sessions_;
};

engine::EngineOptions engine_options(int pages) {
  engine::EngineOptions options;
  options.model_identity = "toy";
  options.kv_memory_bytes = engine::toy::kv_bytes(pages, 1);  // for each block
  options.max_batch_tokens = 24;
  options.output_memory_bytes = uint64_t{1} << 24;
  return options;
}

void expect_exact(const std::vector<std::pair<std::vector<TokenId>, SamplingParams>>& requests,
                  const std::vector<std::shared_ptr<Recorder>>& heard) {
  for (size_t i = 0; i < requests.size(); ++i) {
    EXPECT_TRUE(heard[i]->failure.ok()) << heard[i]->failure.to_string();
    const auto [tokens, finish] =
        engine::toy::expected_output(requests[i].first, requests[i].second, ToyOptions{});
    EXPECT_EQ(heard[i]->output, tokens) << "request " << i;
    EXPECT_EQ(heard[i]->finish, finish) << "request " << i;
  }
}

class Killed : public ::testing::TestWithParam<int> {};

TEST_P(Killed, EveryStreamIsExactWhateverDiesWhen) {
  const auto seed = static_cast<uint32_t>(GetParam());
  const std::vector<BlockRange> ranges = seed % 4 == 0
                                             ? std::vector<BlockRange>{{0, 1}, {1, 2}, {2, 5}, {5, 6}}
                                             : engine::toy::cut(6, 1 + static_cast<int>(seed % 3));
  FailoverCluster cluster(ranges, engine_options(seed % 5 == 0 ? 40 : 400), seed);
  const auto requests = engine::toy::mixed_requests(seed, 12);
  std::vector<std::shared_ptr<Recorder>> heard;
  for (const auto& [prompt, params] : requests) {
    heard.push_back(std::make_shared<Recorder>());
    ASSERT_TRUE(cluster.sessions().submit({prompt, params, "", 0}, heard.back()).ok());
  }
  int kills = 0;
  for (int turn = 0; !cluster.idle(); ++turn) {
    ASSERT_LT(turn, 100'000) << "no end";
    cluster.turn();
    if (kills < 12 && cluster.random()() % 9 == 0)
      if (const std::string victim = cluster.random_busy_worker(); !victim.empty()) {
        cluster.kill(victim);
        ++kills;
      }
  }
  while (cluster.turn()) {
  }
  expect_exact(requests, heard);
  cluster.expect_nothing_held();
}

INSTANTIATE_TEST_SUITE_P(Seeds, Killed, ::testing::Range(1, 61));

TEST(Failover, ASurvivorComputesNothingAgain) {
  for (int victim = 0; victim < 3; ++victim) {
    FailoverCluster cluster(engine::toy::cut(6, 3), engine_options(400), 7);
    std::mt19937 random(3);
    const std::vector<TokenId> prompt = engine::toy::random_prompt(random, 100);
    SamplingParams params;
    params.max_tokens = 40;
    params.ignore_eos = true;
    auto first = std::make_shared<Recorder>(), second = std::make_shared<Recorder>();
    ASSERT_TRUE(cluster.sessions().submit({prompt, params, "", 0}, first).ok());
    while (!cluster.idle()) cluster.turn();
    // The second begins on the first one's cached prefix, outputs included.
    std::vector<std::string> hops;
    ASSERT_TRUE(cluster.sessions().submit({prompt, params, "", 0}, second).ok());
    while (second->output.size() < 20) cluster.turn();
    std::string name;
    for (int i = 0; i < 100 && name.empty(); ++i) {
      const std::string candidate = cluster.random_busy_worker();
      // Workers are numbered by range, two each.
      if ((std::stoi(candidate.substr(1)) - 1) / 2 == victim) name = candidate;
    }
    ASSERT_FALSE(name.empty());
    cluster.kill(name);
    while (!cluster.idle()) cluster.turn();
    expect_exact({{prompt, params}, {prompt, params}}, {first, second});
    EXPECT_EQ(cluster.recovered(), 1);
    // One row may have been ahead of the gateway when the worker died.
    EXPECT_LE(cluster.total(&engine::EngineStats::recomputed_tokens), 1) << "range " << victim;
    if (victim > 0) {
      EXPECT_GT(cluster.total(&engine::EngineStats::replayed_tokens), 0) << "range " << victim;
    }
  }
}

TEST(Failover, WithoutKeptOutputsTheRowsAreComputedAgain) {
  engine::EngineOptions options = engine_options(400);
  options.output_memory_bytes = 0;
  FailoverCluster cluster(engine::toy::cut(6, 3), options, 11);
  const auto requests = engine::toy::mixed_requests(5, 6);
  std::vector<std::shared_ptr<Recorder>> heard;
  for (const auto& [prompt, params] : requests) {
    heard.push_back(std::make_shared<Recorder>());
    ASSERT_TRUE(cluster.sessions().submit({prompt, params, "", 0}, heard.back()).ok());
  }
  for (int turn = 0; !cluster.idle(); ++turn) {
    cluster.turn();
    if (turn % 20 == 10)
      if (const std::string victim = cluster.random_busy_worker(); !victim.empty()) cluster.kill(victim);
  }
  expect_exact(requests, heard);
}

}  // namespace
}  // namespace tessera::worker
