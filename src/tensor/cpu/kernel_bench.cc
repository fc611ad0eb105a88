// Speed of the CPU matmul against what the machine can do: memory reads for one row, multiply-adds for many.
//
//   kernel_bench [threads] [seconds per figure]
#include <fmt/core.h>

#include <algorithm>
#include <cstdlib>
#include <ctime>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "tensor/cpu/cpu_backend.h"
#include "tensor/cpu/isa.h"
#include "tensor/cpu/limits.h"
#include "tensor/cpu/thread_pool.h"

namespace tessera::tensor {
namespace {

// One thread: its processor time, so that a busy machine does not count. Several: time on the wall.
bool one_thread = false;  // set once, before anything is measured
double now() {
  timespec t;
  clock_gettime(one_thread ? CLOCK_PROCESS_CPUTIME_ID : CLOCK_MONOTONIC, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

// Seconds of the fastest call: the other ones measure the neighbours.
template <typename F>
double time_of(double budget, F&& call) {
  std::vector<double> times;
  const double start = now();
  while (now() - start < budget || times.size() < 3) {
    const double begin = now();
    call();
    times.push_back(now() - begin);
  }
  return *std::min_element(times.begin(), times.end());
}

// Bytes a second that the threads read together, from memory larger than the caches.
double read_bandwidth(const KernelTable& kernels, ThreadPool& pool, double budget) {
  constexpr int64_t kTasks = 256;
  constexpr int64_t kFloats = (int64_t{256} << 20) / 4 / kTasks;  // a task
  const std::vector<float> data(kTasks * kFloats, 1.0f);
  const double seconds = time_of(budget, [&] {
    pool.run({{kTasks, [&](int task, int) { kernels.max(data.data() + task * kFloats, kFloats); }}});
  });
  return static_cast<double>(kTasks * kFloats * 4) / seconds;
}

// Attention of one sequence: `rows` queries behind `context` earlier positions, 32 heads of 128 over 8 KV
// heads. `scattered`: its pages lie in no order, as they do once sequences have come and gone.
void bench_attention(Backend& backend, double budget, int64_t context, int64_t rows, bool scattered) {
  constexpr int kHeads = 32, kKvHeads = 8, kHeadDim = 128;
  const auto pages = static_cast<size_t>((context + rows + kKvBlockTokens - 1) / kKvBlockTokens);
  const int64_t page_bytes = backend.kv_page_bytes(kKvHeads, kHeadDim, DType::kF16);
  const auto memory = std::move(backend.allocate(pages * static_cast<uint64_t>(page_bytes))).value();
  std::vector<int32_t> table(pages);
  std::iota(table.begin(), table.end(), 0);
  if (scattered) std::shuffle(table.begin(), table.end(), std::mt19937(1));
  StepSequence sequence;
  sequence.rows = static_cast<int32_t>(rows);
  sequence.start = static_cast<int32_t>(context);
  sequence.pages = table;
  const std::vector<StepSequence> sequences = {sequence};
  constexpr int64_t kCols = kHeads * kHeadDim;
  std::vector<float> q(static_cast<size_t>(rows * kCols), 0.1f), out(q.size());
  const double seconds = time_of(budget, [&] {
    backend.attention({q.data(), DType::kF32, rows, kCols, kCols},
                      {memory->data(), page_bytes, DType::kF16, kKvHeads, kHeadDim}, sequences,
                      {kHeads, kKvHeads, kHeadDim, 0.1f, 0.0f, 0},
                      {out.data(), DType::kF32, rows, kCols, kCols});
    backend.wait(backend.submit());
  });
  const double pairs =
      static_cast<double>(rows) * (static_cast<double>(context) + static_cast<double>(rows) / 2);
  fmt::print("attention of {} rows after {}, {} pages: {:.1f} us, {:.1f} GFLOP/s, {:.1f} GB/s of pages\n",
             rows, context, scattered ? "scattered" : "consecutive", seconds * 1e6,
             4 * pairs * kCols / seconds / 1e9,
             static_cast<double>(pages) * static_cast<double>(page_bytes) / seconds / 1e9);
}

int bench(int threads, double budget) {
  const auto pool = make_thread_pool(threads);
  const auto backend = make_cpu_backend(pool);
  one_thread = pool->threads() == 1;
  const double read = read_bandwidth(kernels_for(best_isa()), *pool, 4 * budget);
  const MachineLimits limits = measure_limits(pool->threads());
  fmt::print("{}: reads {:.1f} GB/s, float32 {:.0f} GFLOP/s, int8 {:.0f} GOP/s\n",
             backend->info().description, read / 1e9, limits.fma_gflop_per_s, limits.int8_gop_per_s);
  fmt::print("barrier {:.2f} us\n",
             1e6 * time_of(budget, [&] {
               std::vector<Phase> phases(1000, Phase{pool->threads(), [](int, int) {}});
               pool->run(std::move(phases));
             }) / 1000);

  for (const bool scattered : {false, true}) bench_attention(*backend, budget, 8191, 1, scattered);
  bench_attention(*backend, budget, 0, 512, false);

  constexpr int64_t kN = 2048, kK = 2048;
  struct Case {
    DType dtype;
    MatrixFormat format;
  };
  const Case cases[] = {{DType::kF32, MatrixFormat::kAuto},  {DType::kBF16, MatrixFormat::kAuto},
                        {DType::kQ8_0, MatrixFormat::kAuto}, {DType::kQ4_0, MatrixFormat::kAuto},
                        {DType::kQ4_1, MatrixFormat::kAuto}, {DType::kQ4_K, MatrixFormat::kAuto},
                        {DType::kQ5_K, MatrixFormat::kAuto}, {DType::kQ6_K, MatrixFormat::kAuto}};
  fmt::print("{:>5} {:>5} {:>10} {:>9} {:>9} {:>8} {:>8}\n", "kind", "rows", "us", "GB/s", "GOP/s", "% read",
             "% peak");
  for (const Case& c : cases) {
    const uint64_t bytes = dtype_bytes(c.dtype, kN * kK).value();
    const std::vector<uint8_t> data(bytes, 0x11);
    MatrixSource source;
    source.k = kK;
    source.pieces = {{c.dtype, data.data(), kN, {}}};
    // enough copies that no cache holds them all
    std::vector<std::unique_ptr<Matrix>> copies;
    uint64_t held = 0;
    while (held < (uint64_t{192} << 20)) {
      copies.push_back(std::move(backend->make_matrix(source, c.format, nullptr)).value());
      held += copies.back()->bytes();
    }
    for (const int64_t rows : {1, 2, 4, 8, 32, 128, 512}) {
      std::vector<float> x(static_cast<size_t>(rows * kK), 0.5f), out(static_cast<size_t>(rows * kN));
      const Tensor in{x.data(), DType::kF32, rows, kK, kK};
      const Tensor result{out.data(), DType::kF32, rows, kN, kN};
      size_t next = 0;
      // a step runs several matmuls, as a model does
      const size_t in_step = rows <= 8 ? copies.size() : 1;
      const double seconds = time_of(budget,
                                     [&] {
                                       for (size_t i = 0; i < in_step; ++i)
                                         backend->matmul(in, *copies[next++ % copies.size()], {}, result);
                                       backend->wait(backend->submit());
                                     }) /
                             static_cast<double>(in_step);
      const double gbs = static_cast<double>(copies[0]->bytes()) / seconds;
      const double ops = 2.0 * static_cast<double>(rows * kN * kK) / seconds;
      const double peak = 1e9 * (is_quantised(c.dtype) ? limits.int8_gop_per_s : limits.fma_gflop_per_s);
      fmt::print("{:>5} {:>5} {:>10.1f} {:>9.1f} {:>9.1f} {:>8.0f} {:>8.0f}\n", copies[0]->format(), rows,
                 seconds * 1e6, gbs / 1e9, ops / 1e9, 100 * gbs / read, 100 * ops / peak);
    }
  }
  return 0;
}

}  // namespace
}  // namespace tessera::tensor

int main(int argc, char** argv) {
  const int threads = argc > 1 ? std::atoi(argv[1]) : 0;
  const double budget = argc > 2 ? std::atof(argv[2]) : 0.3;
  return tessera::tensor::bench(std::max(0, threads), budget > 0 ? budget : 0.3);
}
