#include "tensor/cpu/thread_pool.h"

#include <gtest/gtest.h>

#include <chrono>
#include <ctime>
#include <thread>

#include "tensor/cpu/cpu_backend.h"

namespace tessera::tensor {
namespace {

TEST(ThreadPool, RunsEveryTaskOnceAndPhasesInOrder) {
  for (int threads = 1; threads <= 4; ++threads) {
    ThreadPool pool(threads);
    for (int round = 0; round < 200; ++round) {
      std::vector<int> counts(100, 0);
      int64_t total = 0;
      std::vector<Phase> phases;
      for (int p = 0; p < 5; ++p) {
        phases.push_back({100, [&counts, p](int task, int) {
                            EXPECT_EQ(counts[static_cast<size_t>(task)], p);
                            ++counts[static_cast<size_t>(task)];
                          }});
        phases.push_back({1, [&counts, &total](int, int) {
                            for (int c : counts) total += c;
                          }});
      }
      pool.run(std::move(phases));
      ASSERT_EQ(total, 100 * (1 + 2 + 3 + 4 + 5));
    }
  }
}

TEST(ThreadPool, WorkerIndicesDoNotOverlap) {
  ThreadPool pool(4);
  std::atomic<int> busy[4] = {};
  std::vector<Phase> phases;
  for (int p = 0; p < 50; ++p)
    phases.push_back({64, [&](int, int worker) {
                        ASSERT_TRUE(worker >= 0 && worker < 4);
                        EXPECT_EQ(busy[worker].fetch_add(1), 0);
                        busy[worker].fetch_sub(1);
                      }});
  pool.run(std::move(phases));
}

TEST(ThreadPool, IsSharedByCallers) {
  ThreadPool pool(2);
  std::atomic<int64_t> sum{0};
  std::vector<std::thread> callers;
  for (int c = 0; c < 3; ++c)
    callers.emplace_back([&] {
      for (int round = 0; round < 100; ++round) pool.run({{7, [&](int task, int) { sum += task; }}});
    });
  for (std::thread& t : callers) t.join();
  EXPECT_EQ(sum.load(), 3 * 100 * 21);
}

TEST(ThreadPool, EmptyListsAndPhases) {
  ThreadPool pool(2);
  pool.run({});
  int ran = 0;
  pool.run({{0, [&](int, int) { ++ran; }}, {1, [&](int, int) { ++ran; }}});
  EXPECT_EQ(ran, 1);
}

TEST(ThreadPool, APhaseEndsWithItsContinuation) {
  for (int threads = 1; threads <= 4; ++threads) {
    ThreadPool pool(threads);
    for (int round = 0; round < 300; ++round) {
      std::atomic<int> ran{0};
      int ends = 0;
      std::vector<Phase> phases;
      for (int p = 0; p < 5; ++p)
        phases.push_back({7,
                          [&, p](int, int) {
                            EXPECT_EQ(ends, p);  // written by the phases before
                            ++ran;
                          },
                          [&, p](int) {
                            EXPECT_EQ(ran.load(), 7 * (p + 1));
                            ++ends;
                          }});
      pool.run(std::move(phases));
      ASSERT_EQ(ends, 5);
    }
  }
}

TEST(ThreadPool, IdleThreadsSleep) {
  ThreadPool pool(4);
  pool.run({{8, [](int, int) {}}});
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  const std::clock_t before = std::clock();  // processor time of the whole process
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  EXPECT_LT(static_cast<double>(std::clock() - before) / CLOCKS_PER_SEC, 0.03);
}

TEST(ThreadPool, ZeroMeansPhysicalCores) {
  const auto pool = make_thread_pool(0);
  EXPECT_GE(thread_count(*pool), 1);
  EXPECT_LE(thread_count(*pool), static_cast<int>(std::thread::hardware_concurrency()));
}

}  // namespace
}  // namespace tessera::tensor
