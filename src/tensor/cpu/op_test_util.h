// Helpers of the op tests: backends of every instruction set, random data, tensors over vectors.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "tensor/cpu/cpu_backend.h"

namespace tessera::tensor {

// Runs once per instruction set; skips, and says so, what this processor lacks.
class OpTest : public testing::TestWithParam<Isa> {
 protected:
  void SetUp() override {
    if (!isa_supported(GetParam()))
      GTEST_SKIP() << "SKIPPED: this processor has no " << isa_name(GetParam()) << " kernels";
  }
  std::unique_ptr<Backend> make(int threads = 2) const {
    return make_cpu_backend(make_thread_pool(threads), {GetParam()});
  }
};
// The instruction set whose bits all others must match.
inline std::unique_ptr<Backend> reference_backend(int threads = 1) {
  return make_cpu_backend(make_thread_pool(threads), {Isa::kPortable});
}
#define TESSERA_FOR_EVERY_ISA(suite)                                                              \
  INSTANTIATE_TEST_SUITE_P(Isa, suite, testing::Values(Isa::kPortable, Isa::kAvx2, Isa::kAvx512), \
                           [](const auto& info) { return std::string(isa_name(info.param)); })

inline std::vector<float> random_floats(size_t n, uint32_t seed, float scale = 1.0f) {
  std::mt19937 engine(seed);
  std::normal_distribution<float> normal(0.0f, scale);
  std::vector<float> v(n);
  for (float& x : v) x = normal(engine);
  return v;
}

// [rows, cols] over a vector, rows stride apart.
inline Tensor tensor_of(std::vector<float>& v, int64_t rows, int64_t cols, int64_t stride = 0) {
  return {v.data(), DType::kF32, rows, cols, stride == 0 ? cols : stride};
}
inline void run(Backend& backend) {
  backend.wait(backend.submit());
}

inline testing::AssertionResult same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  if (a.size() != b.size()) return testing::AssertionFailure() << a.size() << " values against " << b.size();
  for (size_t i = 0; i < a.size(); ++i)
    if (std::memcmp(&a[i], &b[i], sizeof(float)) != 0)
      return testing::AssertionFailure() << "value " << i << ": " << a[i] << " against " << b[i];
  return testing::AssertionSuccess();
}

// |a - b| <= tolerance * (1 + |b|) everywhere.
inline testing::AssertionResult close_to(const std::vector<float>& a, const std::vector<double>& b,
                                         double tolerance) {
  if (a.size() != b.size()) return testing::AssertionFailure() << a.size() << " values against " << b.size();
  for (size_t i = 0; i < a.size(); ++i)
    if (!(std::fabs(static_cast<double>(a[i]) - b[i]) <= tolerance * (1.0 + std::fabs(b[i]))))
      return testing::AssertionFailure() << "value " << i << ": " << a[i] << " against " << b[i];
  return testing::AssertionSuccess();
}

}  // namespace tessera::tensor
