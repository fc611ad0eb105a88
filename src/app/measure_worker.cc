#include "app/measure_worker.h"

#include <chrono>
#include <functional>
#include <random>

namespace tessera::app {
namespace {

constexpr int64_t kWide = 4096;  // 17 MB as int8: four of them are beyond a desktop's caches
constexpr int kMatrices = 4;
constexpr int kManyRows = 128;

using Clock = std::chrono::steady_clock;

// The fastest of some runs, in seconds: others on the machine only slow down.
double best_of(int runs, const std::function<void()>& work) {
  double best = 1e9;
  for (int i = 0; i < runs; ++i) {
    const auto begin = Clock::now();
    work();
    best = std::min(best, std::chrono::duration<double>(Clock::now() - begin).count());
  }
  return best;
}

}  // namespace

Result<WorkerCapabilities> measure_worker(std::shared_ptr<tensor::ThreadPool> pool, tensor::Isa isa) {
  auto backend = tensor::make_cpu_backend(pool, {.isa = isa});
  std::mt19937 random(1);
  std::uniform_real_distribution<float> uniform(-1, 1);
  std::vector<float> weights(kWide * kWide);
  for (float& w : weights) w = uniform(random);
  std::vector<std::unique_ptr<tensor::Matrix>> matrices;
  for (int i = 0; i < kMatrices; ++i) {
    tensor::MatrixSource source;
    source.pieces = {{DType::kF32, reinterpret_cast<const uint8_t*>(weights.data()), kWide, {}}};
    source.k = kWide;
    TESSERA_ASSIGN_OR_RETURN(auto matrix, backend->make_matrix(source, tensor::MatrixFormat::kInt8, nullptr));
    matrices.push_back(std::move(matrix));
  }
  std::vector<float> x(kManyRows * kWide, 0.5f), out(kManyRows * kWide);
  for (float& value : x) value = uniform(random);
  auto multiply = [&](int64_t rows, int count) {
    for (int i = 0; i < count; ++i)
      backend->matmul({x.data(), DType::kF32, rows, kWide, kWide}, *matrices[static_cast<size_t>(i)], {},
                      {out.data(), DType::kF32, rows, kWide, kWide});
    backend->wait(backend->submit());
  };
  WorkerCapabilities result;
  const double decode = best_of(5, [&] { multiply(1, kMatrices); });
  const double prefill = best_of(3, [&] { multiply(kManyRows, 1); });
  result.decode_bytes_per_s = static_cast<double>(matrices[0]->bytes()) * kMatrices / decode;
  result.prefill_ops_per_s = 2.0 * kManyRows * kWide * kWide / prefill;
  result.threads = tensor::thread_count(*pool);
  result.device = backend->info().description;
  result.numerics = backend->numerics(tensor::MatrixFormat::kInt8, DType::kF16).to_string();
  return result;
}

}  // namespace tessera::app
