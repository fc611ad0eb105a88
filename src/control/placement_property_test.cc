// What every plan must keep, over random clusters and over their lives.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>

#include "control/placement_test_util.h"

namespace tessera::control {
namespace {

class RandomCluster {
 public:
  explicit RandomCluster(uint32_t seed) : random_(seed) {
    const int models = pick(1, 3);
    for (int m = 0; m < models; ++m) {
      ModelShape shape = plain_shape("model-" + std::to_string(m), pick(1, 40));
      for (uint64_t& bytes : shape.block_bytes) bytes = static_cast<uint64_t>(pick(100, 2000)) * 1'000'000;
      shape.head_bytes = static_cast<uint64_t>(pick(0, 3000)) * 1'000'000;
      shape.tail_bytes = static_cast<uint64_t>(pick(0, 3000)) * 1'000'000;
      shape.tied_embedding = pick(0, 1);
      shape.demand = pick(1, 4);
      shape.min_context = pick(0, 4096);
      snapshot.models.push_back(shape);
    }
    const int workers = pick(0, 14);
    for (int w = 0; w < workers; ++w) join();
    for (const auto& a : snapshot.workers)
      for (const auto& b : snapshot.workers)
        if (pick(0, 2) == 0) snapshot.links[{a.name, b.name}] = {pick(1, 200) * 1e-3, pick(0, 100) * 1e6};
  }

  void join() {
    WorkerSnapshot joined =
        worker("worker-" + std::to_string(next_++), pick(1, 48), pick(1, 900), pick(0, 50));
    joined.gateway_rtt_s = pick(0, 100) * 1e-3;
    joined.accepts = pick(0, 9) != 0;
    if (pick(0, 5) == 0) {
      const ModelShape& model = snapshot.models[pick(0, static_cast<int>(snapshot.models.size()) - 1)];
      const int first = pick(0, model.num_blocks - 1);
      joined.capabilities.pinned_blocks = BlockRange{first, pick(first + 1, model.num_blocks)};
      if (pick(0, 1)) joined.capabilities.pinned_model = model.name;
    }
    snapshot.workers.push_back(joined);
  }
  void change() {
    if (!snapshot.workers.empty() && pick(0, 1))
      snapshot.workers.erase(snapshot.workers.begin() +
                             pick(0, static_cast<int>(snapshot.workers.size()) - 1));
    if (pick(0, 1)) join();
    for (WorkerSnapshot& worker : snapshot.workers)
      if (pick(0, 9) == 0) worker.accepts = !worker.accepts;
  }
  int pick(int least, int most) { return std::uniform_int_distribution<int>(least, most)(random_); }

  ClusterSnapshot snapshot;

 private:
  std::mt19937 random_;
  int next_ = 0;
};

uint64_t summed_bytes(const ModelShape& shape, BlockRange blocks) {
  uint64_t sum = 0;
  for (int b = blocks.first; b < blocks.last; ++b) sum += shape.block_bytes[b];
  const uint64_t head = blocks.first == 0 ? shape.head_bytes : 0;
  const uint64_t tail = blocks.last == shape.num_blocks ? shape.tail_bytes : 0;
  return sum + (shape.tied_embedding ? std::max(head, tail) : head + tail);
}

void check(const ClusterSnapshot& snapshot, const Plan& plan) {
  std::map<std::string, uint64_t> used;
  for (const Assignment& a : plan.assignments) {
    const auto shape = std::find_if(snapshot.models.begin(), snapshot.models.end(),
                                    [&](auto& m) { return m.name == a.model; });
    ASSERT_NE(shape, snapshot.models.end());
    ASSERT_GE(a.blocks.first, 0);
    ASSERT_GT(a.blocks.size(), 0);
    ASSERT_LE(a.blocks.last, shape->num_blocks);
    used[a.worker] += summed_bytes(*shape, a.blocks) + a.kv_bytes;
    const uint64_t context = shape->min_context > 0 ? shape->min_context : 2048;
    EXPECT_GE(a.kv_bytes, shape->kv_bytes_per_token * a.blocks.size() * context);
    const auto worker = std::find_if(snapshot.workers.begin(), snapshot.workers.end(),
                                     [&](auto& w) { return w.name == a.worker; });
    ASSERT_NE(worker, snapshot.workers.end());
    EXPECT_EQ(a.blocks, worker->capabilities.pinned_blocks.value_or(a.blocks));
    EXPECT_TRUE(worker->accepts || !a.existing_id.empty()) << a.worker << " gets something new";
    if (!a.existing_id.empty()) {
      EXPECT_TRUE(std::any_of(worker->hosted.begin(), worker->hosted.end(), [&](auto& hosted) {
        return hosted.id == a.existing_id && hosted.model == a.model && hosted.blocks == a.blocks;
      }));
    }
    for (const Assignment& b : plan.assignments)
      EXPECT_FALSE(&a != &b && a.worker == b.worker && a.model == b.model && a.blocks.first < b.blocks.last &&
                   b.blocks.first < a.blocks.last)
          << a.worker << " holds a block twice";
  }
  for (const WorkerSnapshot& worker : snapshot.workers)
    EXPECT_LE(used[worker.name], worker.capabilities.memory_bytes) << worker.name;
  ASSERT_EQ(plan.models.size(), snapshot.models.size());
  for (size_t m = 0; m < plan.models.size(); ++m) {
    const ModelPlan& model = plan.models[m];
    EXPECT_EQ(model.model, snapshot.models[m].name);
    EXPECT_FALSE(model.reason.empty());
    ASSERT_EQ(model.cuts.size(), model.best_route.size());
    if (model.cuts.empty()) continue;
    int next = 0;
    for (size_t i = 0; i < model.cuts.size(); ++i) {
      EXPECT_EQ(model.cuts[i].first, next);
      EXPECT_GT(model.cuts[i].size(), 0);
      next = model.cuts[i].last;
      EXPECT_TRUE(std::any_of(plan.assignments.begin(), plan.assignments.end(),
                              [&](const Assignment& a) {
                                return a.worker == model.best_route[i] && a.model == model.model &&
                                       a.blocks == model.cuts[i];
                              }))
          << model.model << " cut " << i;
    }
    EXPECT_EQ(next, snapshot.models[m].num_blocks);
    EXPECT_GT(model.tokens_per_s, 0);
    EXPECT_GT(model.max_tokens_per_s, 0);
    EXPECT_GT(model.ttft_s, 0);
  }
}

TEST(PlacementProperty, EveryPlanFitsAndCovers) {
  int covered = 0, uncovered = 0, kept = 0;
  for (uint32_t seed = 0; seed < 150; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    RandomCluster cluster(seed);
    for (int step = 0; step < 4; ++step) {
      const Plan plan = place(cluster.snapshot);
      check(cluster.snapshot, plan);
      if (HasFailure()) return;
      for (const ModelPlan& model : plan.models) ++(model.cuts.empty() ? uncovered : covered);
      for (const Assignment& a : plan.assignments) kept += !a.existing_id.empty();
      carry_out(plan, cluster.snapshot);
      cluster.change();
    }
  }
  // The random clusters must reach both sides for this test to say anything.
  EXPECT_GT(covered, 100);
  EXPECT_GT(uncovered, 100);
  EXPECT_GT(kept, 400);
}

TEST(PlacementProperty, APlanCarriedOutIsStable) {
  for (uint32_t seed = 1000; seed < 1080; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    RandomCluster cluster(seed);
    carry_out(place(cluster.snapshot), cluster.snapshot);
    const Plan again = place(cluster.snapshot);
    for (const Assignment& a : again.assignments)
      EXPECT_FALSE(a.existing_id.empty()) << a.worker << ' ' << a.model << ' ' << a.blocks.first;
    size_t hosted = 0;
    for (const WorkerSnapshot& worker : cluster.snapshot.workers) hosted += worker.hosted.size();
    EXPECT_EQ(again.assignments.size(), hosted);
  }
}

}  // namespace
}  // namespace tessera::control
