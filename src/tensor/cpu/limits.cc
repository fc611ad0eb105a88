#include "tensor/cpu/limits.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <thread>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace tessera::tensor {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// Runs `work(thread)` on all threads at once and gives the wall time.
template <typename F>
double run_on(int threads, F work) {
  std::vector<std::thread> pool;
  const auto start = Clock::now();
  for (int t = 1; t < threads; ++t) pool.emplace_back([&work, t] { work(t); });
  work(0);
  for (auto& thread : pool) thread.join();
  return seconds_since(start);
}

std::atomic<uint64_t> g_sink{0};  // keeps the loops from being optimised away

#if defined(__x86_64__)
__attribute__((target("avx2"))) uint64_t read_avx2(const uint64_t* data, size_t count) {
  __m256i sum[4] = {};
  for (size_t i = 0; i + 16 <= count; i += 16)
    for (size_t j = 0; j < 4; ++j)
      sum[j] =
          _mm256_xor_si256(sum[j], _mm256_loadu_si256(reinterpret_cast<const __m256i*>(data + i + 4 * j)));
  alignas(32) uint64_t lanes[4];
  _mm256_store_si256(reinterpret_cast<__m256i*>(lanes),
                     _mm256_xor_si256(_mm256_xor_si256(sum[0], sum[1]), _mm256_xor_si256(sum[2], sum[3])));
  return lanes[0] ^ lanes[1] ^ lanes[2] ^ lanes[3];
}

__attribute__((target("avx2,fma"))) double fma_avx2(int rounds) {
  __m256 acc[12];
  for (auto& a : acc) a = _mm256_set1_ps(1.0f);
  const __m256 x = _mm256_set1_ps(0.999f), y = _mm256_set1_ps(0.001f);
  for (int r = 0; r < rounds; ++r)
#pragma GCC unroll 12
    for (int j = 0; j < 12; ++j) acc[j] = _mm256_fmadd_ps(acc[j], x, y);
  float total = 0;
  for (auto& a : acc) total += _mm256_cvtss_f32(a);
  g_sink += static_cast<uint64_t>(total);
  return 12.0 * 8 * 2 * rounds;
}

__attribute__((target("avx512f"))) double fma_avx512(int rounds) {
  __m512 acc[12];
  for (auto& a : acc) a = _mm512_set1_ps(1.0f);
  const __m512 x = _mm512_set1_ps(0.999f), y = _mm512_set1_ps(0.001f);
  for (int r = 0; r < rounds; ++r)
#pragma GCC unroll 12
    for (int j = 0; j < 12; ++j) acc[j] = _mm512_fmadd_ps(acc[j], x, y);
  float total = 0;
  for (auto& a : acc) total += _mm512_cvtss_f32(a);
  g_sink += static_cast<uint64_t>(total);
  return 12.0 * 16 * 2 * rounds;
}

// Quads of 4 bytes against 4 bytes: a step of the AVX2 kernels with the most sums that 16 bits hold (4-bit
// codes).
__attribute__((target("avx2"))) double int8_avx2(int rounds) {
  __m256i acc[6];
  for (auto& a : acc) a = _mm256_set1_epi32(1);
  __m256i x = _mm256_set1_epi8(3), y = _mm256_set1_epi8(5);
  const __m256i ones = _mm256_set1_epi16(1);
  for (int r = 0; r < rounds; ++r) {
    __m256i narrow[6];
    for (auto& n : narrow) n = _mm256_setzero_si256();
    for (int quad = 0; quad < 4; ++quad) {
      asm volatile("" : "+x"(x), "+x"(y));  // or the loop's products are computed once
#pragma GCC unroll 6
      for (auto& n : narrow) n = _mm256_add_epi16(n, _mm256_maddubs_epi16(x, y));
    }
#pragma GCC unroll 6
    for (int j = 0; j < 6; ++j) acc[j] = _mm256_add_epi32(acc[j], _mm256_madd_epi16(narrow[j], ones));
  }
  int total = 0;
  for (auto& a : acc) total += _mm256_extract_epi32(a, 0);
  g_sink += static_cast<uint64_t>(total);
  return 6.0 * 4 * 32 * 2 * rounds;
}

__attribute__((target("avx512f,avx512vnni"))) double int8_avx512(int rounds) {
  __m512i acc[12];
  for (auto& a : acc) a = _mm512_set1_epi32(1);
  const __m512i x = _mm512_set1_epi32(0x03030303), y = _mm512_set1_epi32(0x05050505);
  for (int r = 0; r < rounds; ++r)
#pragma GCC unroll 12
    for (auto& a : acc) a = _mm512_dpbusd_epi32(a, x, y);
  int total = 0;
  for (auto& a : acc) total += _mm512_cvtsi512_si32(a);
  g_sink += static_cast<uint64_t>(total);
  return 12.0 * 64 * 2 * rounds;
}

__attribute__((target("avx512f,avx512bf16"))) double bf16_avx512(int rounds) {
  __m512 acc[12];
  for (auto& a : acc) a = _mm512_set1_ps(1.0f);
  const __m512bh x = (__m512bh)_mm512_set1_epi16(0x3f00), y = (__m512bh)_mm512_set1_epi16(0x3c00);
  for (int r = 0; r < rounds; ++r)
#pragma GCC unroll 12
    for (auto& a : acc) a = _mm512_dpbf16_ps(a, x, y);
  float total = 0;
  for (auto& a : acc) total += _mm512_cvtss_f32(a);
  g_sink += static_cast<uint64_t>(total);
  return 12.0 * 32 * 2 * rounds;
}
#endif

uint64_t read_plain(const uint64_t* data, size_t count) {
  uint64_t sum = 0;
  for (size_t i = 0; i < count; ++i) sum ^= data[i];
  return sum;
}

uint64_t read_all(const uint64_t* data, size_t count) {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx2")) return read_avx2(data, count);
#endif
  return read_plain(data, count);
}

double fma_round(int rounds) {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f")) return fma_avx512(rounds);
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return fma_avx2(rounds);
#endif
  float acc[16];
  std::fill(std::begin(acc), std::end(acc), 1.0f);
  for (int r = 0; r < rounds; ++r)
    for (float& a : acc) a = a * 0.999f + 0.001f;
  g_sink += static_cast<uint64_t>(acc[0]);
  return 16.0 * 2 * rounds;
}

double int8_round(int rounds) {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512vnni")) return int8_avx512(rounds);
  if (__builtin_cpu_supports("avx2")) return int8_avx2(rounds / 2);
#endif
  return fma_round(rounds);
}

double bf16_round(int rounds) {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512bf16")) return bf16_avx512(rounds);
#endif
  (void)rounds;
  return 0;
}

// Operations a second of `round` on all threads, in thousand millions.
template <typename F>
double giga_per_s(int threads, F round) {
  std::atomic<uint64_t> done{0};
  const double seconds = run_on(threads, [&](int) { done += static_cast<uint64_t>(round(2'000'000)); });
  return 1e-9 * static_cast<double>(done.load()) / seconds;
}

}  // namespace

MachineLimits measure_limits(int threads) {
  threads = std::max(threads, 1);
  constexpr size_t kWords = size_t{16} << 20;  // 128 MiB a thread
  std::vector<std::vector<uint64_t>> buffers(static_cast<size_t>(threads));
  run_on(threads, [&](int t) { buffers[static_cast<size_t>(t)].assign(kWords, 0x9e3779b97f4a7c15u); });
  MachineLimits limits;
  for (int repeat = 0; repeat < 4; ++repeat) {
    const double seconds =
        run_on(threads, [&](int t) { g_sink += read_all(buffers[static_cast<size_t>(t)].data(), kWords); });
    limits.read_gb_per_s =
        std::max(limits.read_gb_per_s, 8e-9 * static_cast<double>(kWords) * threads / seconds);
    limits.fma_gflop_per_s = std::max(limits.fma_gflop_per_s, giga_per_s(threads, fma_round));
    limits.int8_gop_per_s = std::max(limits.int8_gop_per_s, giga_per_s(threads, int8_round));
    limits.bf16_gflop_per_s = std::max(limits.bf16_gflop_per_s, giga_per_s(threads, bf16_round));
  }
  return limits;
}

}  // namespace tessera::tensor
