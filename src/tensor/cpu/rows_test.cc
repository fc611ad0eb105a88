// Row-wise ops and the mixture of experts.
#include <algorithm>
#include <functional>
#include <limits>

#include "tensor/cpu/op_test_util.h"

namespace tessera::tensor {
namespace {

class RowsTest : public OpTest {
 protected:
  // Runs `op` on x with this instruction set; its bits must be the portable ones.
  std::vector<float> apply(
      const std::vector<float>& x,
      const std::function<void(Backend&, std::vector<float>&, std::vector<float>&)>& op) {
    const auto once = [&](Backend& backend) {
      std::vector<float> in = x, out(x.size(), -3.0f);
      op(backend, in, out);
      run(backend);
      return out;
    };
    const std::vector<float> result = once(*make(3));
    EXPECT_TRUE(same_bits(result, once(*reference_backend())));
    return result;
  }
};

TEST_P(RowsTest, RmsNormOfRowsAndHeads) {
  for (const auto& [cols, group] : {std::pair{96, 96}, {77, 77}, {96, 32}, {120, 40}}) {
    const std::vector<float> x = random_floats(static_cast<size_t>(5 * cols), 1, 3.0f);
    const std::vector<float> weight = random_floats(static_cast<size_t>(group), 2);
    const auto out = apply(x, [&, c = cols](Backend& b, std::vector<float>& in, std::vector<float>& o) {
      b.rms_norm(tensor_of(in, 5, c), weight, 1e-5f, tensor_of(o, 5, c));
    });
    std::vector<double> expected(x.size());
    for (size_t begin = 0; begin < x.size(); begin += static_cast<size_t>(group)) {
      double sum = 0;
      for (int i = 0; i < group; ++i)
        sum += std::pow(static_cast<double>(x[begin + static_cast<size_t>(i)]), 2);
      for (int i = 0; i < group; ++i)
        expected[begin + static_cast<size_t>(i)] = static_cast<double>(x[begin + static_cast<size_t>(i)]) /
                                                   std::sqrt(sum / group + 1e-5) *
                                                   static_cast<double>(weight[static_cast<size_t>(i)]);
    }
    EXPECT_TRUE(close_to(out, expected, 1e-6));
  }
}

TEST_P(RowsTest, GatedActivations) {
  std::vector<float> x = random_floats(3 * 2 * 50, 4, 4.0f);
  x[0] = 0.0f;
  x[1] = -100.0f;
  x[2] = 100.0f;
  const std::function<double(double)> functions[] = {
      [](double v) { return v / (1 + std::exp(-v)); },
      [](double v) { return 0.5 * v * (1 + std::tanh(std::sqrt(2 / M_PI) * (v + 0.044715 * v * v * v))); },
      [](double v) { return 0.5 * v * (1 + std::erf(v / std::sqrt(2.0))); }};
  for (int kind = 0; kind < 3; ++kind) {
    auto out = apply(x, [&](Backend& b, std::vector<float>& in, std::vector<float>& o) {
      b.gated_activation(tensor_of(in, 3, 100), static_cast<Activation>(kind), tensor_of(o, 3, 50));
    });
    out.resize(150);
    std::vector<double> expected;
    for (size_t r = 0; r < 3; ++r)
      for (size_t i = 0; i < 50; ++i)
        expected.push_back(functions[kind](static_cast<double>(x[r * 100 + i])) *
                           static_cast<double>(x[r * 100 + 50 + i]));
    EXPECT_TRUE(close_to(out, expected, 1e-6)) << "activation " << kind;
  }
}

// exp (through silu), tanh (through softcap) and erf over their ranges, relative to the last place.
TEST_P(RowsTest, FunctionsAreExactToTwoUnits) {
  std::vector<float> x;
  for (int i = -200000; i <= 200000; ++i) x.push_back(static_cast<float>(i) * 5e-5f);
  for (float tiny : {1e-30f, 1e-20f, 1e-8f, -1e-10f, 0.0f}) x.push_back(tiny);
  const auto n = static_cast<int64_t>(x.size());
  const auto tanh = apply(x, [&](Backend& b, std::vector<float>& in, std::vector<float>& o) {
    b.softcap(tensor_of(in, 1, n), 1.0f);
    b.copy(tensor_of(in, 1, n), tensor_of(o, 1, n));
  });
  for (size_t i = 0; i < x.size(); ++i) {
    const double exact = std::tanh(static_cast<double>(x[i]));
    ASSERT_LE(std::fabs(static_cast<double>(tanh[i]) - exact), 2.0 * std::fabs(exact) * 1.2e-7) << x[i];
  }
}

TEST_P(RowsTest, AddScaleRoundCopyGather) {
  const std::vector<float> x = random_floats(6 * 37, 8, 100.0f);
  std::vector<float> y = random_floats(6 * 37, 9);
  const auto sum = apply(x, [&](Backend& b, std::vector<float>& in, std::vector<float>& o) {
    b.add(tensor_of(in, 6, 37), tensor_of(y, 6, 37));
    b.copy(tensor_of(in, 6, 37), tensor_of(o, 6, 37));
  });
  for (size_t i = 0; i < x.size(); ++i) EXPECT_EQ(sum[i], x[i] + y[i]);

  std::vector<float> edge = x;
  const float special[] = {0.0f,
                           -0.0f,
                           1e-40f,
                           65504.0f,
                           65520.0f,
                           1e-7f,
                           3e38f,
                           std::numeric_limits<float>::infinity(),
                           std::numeric_limits<float>::quiet_NaN(),
                           1.00390625f,
                           1.01171875f,
                           5.9604645e-8f};
  std::copy(std::begin(special), std::end(special), edge.begin());
  for (DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
    const auto out = apply(edge, [&](Backend& b, std::vector<float>& in, std::vector<float>& o) {
      b.round_to(tensor_of(in, 6, 37), dtype);
      b.copy(tensor_of(in, 6, 37), tensor_of(o, 6, 37));
    });
    std::vector<float> expected = edge;
    for (float& v : expected) {
      if (dtype == DType::kF16) v = f16_to_f32(f32_to_f16(v));
      if (dtype == DType::kBF16) v = bf16_to_f32(f32_to_bf16(v));
    }
    EXPECT_TRUE(same_bits(out, expected)) << dtype_info(dtype).name;
  }

  const std::vector<int32_t> rows = {5, 0, 0, 3, 2, 1};
  const auto gathered = apply(x, [&](Backend& b, std::vector<float>& in, std::vector<float>& o) {
    b.gather_rows(tensor_of(in, 6, 37), rows, tensor_of(o, 6, 37));
  });
  for (size_t r = 0; r < 6; ++r)
    for (size_t i = 0; i < 37; ++i) EXPECT_EQ(gathered[r * 37 + i], x[static_cast<size_t>(rows[r]) * 37 + i]);
}

// Ops that share memory at other rows must not be joined into one phase.
TEST_P(RowsTest, OrderHoldsBetweenOverlappingViews) {
  const auto backend = make(4);
  for (int round = 0; round < 20; ++round) {
    std::vector<float> x(65 * 16, 0.0f);
    for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i / 16);
    const Tensor all = tensor_of(x, 65, 16);
    backend->add(all.slice_rows(0, 64), all.slice_rows(0, 64));  // rows 0..63 doubled
    std::vector<float> shifted(64 * 16);
    backend->copy(all.slice_rows(1, 64), tensor_of(shifted, 64, 16));  // rows 1..64 as they are now
    backend->add(all.slice_rows(1, 64), all.slice_rows(1, 64));
    run(*backend);
    for (size_t r = 0; r < 64; ++r)
      ASSERT_EQ(shifted[r * 16], static_cast<float>(r < 63 ? 2 * (r + 1) : r + 1)) << r;
    ASSERT_EQ(x[10 * 16], 40.0f);
  }
}

std::unique_ptr<Matrix> float_matrix(Backend& backend, const std::vector<float>& w, int64_t n, int64_t k,
                                     MatrixFormat format) {
  MatrixSource source;
  source.k = k;
  source.pieces = {{DType::kF32, reinterpret_cast<const uint8_t*>(w.data()), n, {}}};
  return std::move(backend.make_matrix(source, format, nullptr)).value();
}

struct Experts {
  Experts(Backend& backend, int count, int64_t hidden, int64_t ffn, int top_k, MatrixFormat format) {
    router_weights = random_floats(static_cast<size_t>(count * hidden), 21, 0.3f);
    router = float_matrix(backend, router_weights, count, hidden, MatrixFormat::kF32);
    params.router = router.get();
    params.experts_per_token = top_k;
    for (int e = 0; e < count; ++e) {
      const auto seed = static_cast<uint32_t>(30 + 2 * e);
      up_weights.push_back(random_floats(static_cast<size_t>(2 * ffn * hidden), seed, 0.2f));
      down_weights.push_back(random_floats(static_cast<size_t>(ffn * hidden), seed + 1, 0.2f));
      owned.push_back(float_matrix(backend, up_weights.back(), 2 * ffn, hidden, format));
      params.gate_up.push_back(owned.back().get());
      owned.push_back(float_matrix(backend, down_weights.back(), hidden, ffn, format));
      params.down.push_back(owned.back().get());
    }
  }
  std::vector<float> router_weights;
  std::vector<std::vector<float>> up_weights, down_weights;
  std::unique_ptr<Matrix> router;
  std::vector<std::unique_ptr<Matrix>> owned;
  MoeParams params;
};

std::vector<float> run_moe(Backend& backend, const MoeParams& params, std::vector<float> x, int64_t rows) {
  const auto hidden = static_cast<int64_t>(x.size()) / rows;
  std::vector<float> out(x.size(), 9.0f);
  backend.moe(tensor_of(x, rows, hidden), params, tensor_of(out, rows, hidden));
  run(backend);
  return out;
}

TEST_P(RowsTest, MixtureOfExpertsMatchesReference) {
  constexpr int64_t kHidden = 40, kFfn = 24, kRows = 9;
  constexpr int kExperts = 6, kTop = 2;
  const std::vector<float> x = random_floats(kRows * kHidden, 77);
  for (const bool normalise : {true, false}) {
    const auto backend = make();
    Experts experts(*backend, kExperts, kHidden, kFfn, kTop, MatrixFormat::kF32);
    experts.params.normalise_top_k = normalise;
    std::vector<double> expected(x.size(), 0.0);
    const auto dot = [&](const std::vector<float>& w, int64_t row, const auto& v, int64_t n) {
      double sum = 0;
      for (int64_t i = 0; i < n; ++i)
        sum += static_cast<double>(w[static_cast<size_t>(row * n + i)]) * static_cast<double>(v[i]);
      return sum;
    };
    for (int64_t r = 0; r < kRows; ++r) {
      const float* row = x.data() + r * kHidden;
      std::vector<double> p;
      double total = 0;
      for (int e = 0; e < kExperts; ++e) p.push_back(std::exp(dot(experts.router_weights, e, row, kHidden)));
      for (double v : p) total += v;
      std::vector<size_t> order(kExperts);
      for (size_t e = 0; e < kExperts; ++e) order[e] = e;
      std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return p[a] > p[b]; });
      const double chosen = p[order[0]] + p[order[1]];
      for (size_t i = 0; i < kTop; ++i) {
        const size_t e = order[i];
        std::vector<double> h;
        for (int64_t f = 0; f < kFfn; ++f) {
          const double gate = dot(experts.up_weights[e], f, row, kHidden);
          h.push_back(gate / (1 + std::exp(-gate)) * dot(experts.up_weights[e], kFfn + f, row, kHidden));
        }
        for (int64_t j = 0; j < kHidden; ++j)
          expected[static_cast<size_t>(r * kHidden + j)] +=
              p[e] / (normalise ? chosen : total) * dot(experts.down_weights[e], j, h.data(), kFfn);
      }
    }
    EXPECT_TRUE(close_to(run_moe(*backend, experts.params, x, kRows), expected, 1e-5));
  }
}

TEST_P(RowsTest, MixtureOfExpertsRowsDoNotDependOnBatch) {
  constexpr int64_t kHidden = 64, kRows = 37;
  const std::vector<float> x = random_floats(kRows * kHidden, 78);
  for (MatrixFormat format : {MatrixFormat::kF32, MatrixFormat::kInt8, MatrixFormat::kInt4}) {
    const auto portable = reference_backend();
    Experts reference(*portable, 5, kHidden, 48, 3, format);
    const auto whole = run_moe(*portable, reference.params, x, kRows);
    for (int threads = 1; threads <= 3; ++threads) {
      const auto backend = make(threads);
      Experts experts(*backend, 5, kHidden, 48, 3, format);
      std::vector<float> single;
      for (int64_t r = 0; r < kRows; ++r) {
        const auto row =
            run_moe(*backend, experts.params, {x.begin() + r * kHidden, x.begin() + (r + 1) * kHidden}, 1);
        single.insert(single.end(), row.begin(), row.end());
      }
      EXPECT_TRUE(same_bits(single, whole)) << threads << " threads";
      EXPECT_TRUE(same_bits(run_moe(*backend, experts.params, x, kRows), whole)) << threads << " threads";
    }
  }
}

TESSERA_FOR_EVERY_ISA(RowsTest);

}  // namespace
}  // namespace tessera::tensor
