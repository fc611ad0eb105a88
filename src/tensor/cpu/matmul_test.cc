// Matmul and embedding over every packed kind: right values, and the same bits whatever the instruction set,
// the threads and the batch.
#include <algorithm>

#include "tensor/cpu/op_test_util.h"

namespace tessera::tensor {
namespace {

struct WeightCase {
  DType dtype;
  MatrixFormat format;
  int64_t n;
  int64_t k;
};

// Stored rows of a type: random bytes with sane f16 scales for the block types.
std::vector<uint8_t> stored_rows(DType dtype, int64_t rows, int64_t k, uint32_t seed) {
  std::mt19937 engine(seed);
  const DTypeInfo& info = dtype_info(dtype);
  const auto bytes = static_cast<size_t>(dtype_bytes(dtype, static_cast<uint64_t>(rows * k)).value());
  std::vector<uint8_t> data(bytes);
  if (!is_quantised(dtype)) {
    const std::vector<float> values = random_floats(static_cast<size_t>(rows * k), seed, 0.5f);
    for (size_t i = 0; i < values.size(); ++i) {
      const uint16_t half = dtype == DType::kF16 ? f32_to_f16(values[i]) : f32_to_bf16(values[i]);
      if (dtype == DType::kF32) {
        std::memcpy(data.data() + 4 * i, &values[i], 4);
      } else {
        std::memcpy(data.data() + 2 * i, &half, 2);
      }
    }
    return data;
  }
  for (uint8_t& b : data) b = static_cast<uint8_t>(engine());
  std::uniform_real_distribution<float> scale(-0.02f, 0.02f);
  for (size_t block = 0; block < bytes; block += info.bytes_per_block) {
    const auto put = [&](size_t offset) {
      const uint16_t half = f32_to_f16(scale(engine));
      std::memcpy(data.data() + block + offset, &half, 2);
    };
    put(dtype == DType::kQ6_K ? 208 : 0);
    if (dtype == DType::kQ4_1 || dtype == DType::kQ5_1 || dtype == DType::kQ4_K || dtype == DType::kQ5_K)
      put(2);
  }
  return data;
}

std::unique_ptr<Matrix> make_matrix(Backend& backend, const WeightCase& c, const std::vector<uint8_t>& data) {
  MatrixSource source;
  source.k = c.k;
  source.pieces.push_back({c.dtype, data.data(), c.n, {}});
  auto matrix = backend.make_matrix(source, c.format, nullptr);
  EXPECT_TRUE(matrix.ok()) << matrix.status().to_string();
  return std::move(matrix).value();
}

std::vector<float> multiply(Backend& backend, const Matrix& matrix, std::vector<float> x, int64_t rows,
                            std::span<const float> bias = {}) {
  std::vector<float> out(static_cast<size_t>(rows * matrix.n()), -1.0f);
  backend.matmul(tensor_of(x, rows, matrix.k()), matrix, bias, tensor_of(out, rows, matrix.n()));
  run(backend);
  return out;
}

// All weights as embed() reads them.
std::vector<float> read_all(Backend& backend, const Matrix& matrix) {
  std::vector<TokenId> ids(static_cast<size_t>(matrix.n()));
  for (size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<TokenId>(i);
  std::vector<float> out(static_cast<size_t>(matrix.n() * matrix.k()));
  backend.embed(ids, matrix, 1.0f, tensor_of(out, matrix.n(), matrix.k()));
  run(backend);
  return out;
}

// Activations as the quantised kernels see them: int8 with a scale for 16 values.
std::vector<float> quantised(const std::vector<float>& x, int64_t rows, int64_t k) {
  std::vector<float> out(x.size());
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t begin = 0; begin < k; begin += 16) {
      const int64_t end = std::min(k, begin + 16);
      float biggest = 0;
      for (int64_t i = begin; i < end; ++i)
        biggest = std::max(biggest, std::fabs(x[static_cast<size_t>(r * k + i)]));
      const float inverse = biggest > 0 ? 127.0f / biggest : 0.0f;
      for (int64_t i = begin; i < end; ++i)
        out[static_cast<size_t>(r * k + i)] =
            biggest / 127.0f * std::nearbyint(x[static_cast<size_t>(r * k + i)] * inverse);
    }
  }
  return out;
}

std::vector<double> reference_product(const std::vector<float>& x, const std::vector<float>& w, int64_t rows,
                                      int64_t n, int64_t k) {
  std::vector<double> out(static_cast<size_t>(rows * n), 0.0);
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t j = 0; j < n; ++j)
      for (int64_t i = 0; i < k; ++i)
        out[static_cast<size_t>(r * n + j)] += static_cast<double>(x[static_cast<size_t>(r * k + i)]) *
                                               static_cast<double>(w[static_cast<size_t>(j * k + i)]);
  return out;
}

std::vector<WeightCase> cases() {
  std::vector<WeightCase> list = {
      {DType::kF32, MatrixFormat::kAuto, 35, 77},  {DType::kF16, MatrixFormat::kAuto, 48, 300},
      {DType::kBF16, MatrixFormat::kAuto, 1, 64},  {DType::kBF16, MatrixFormat::kF32, 70, 513},
      {DType::kF32, MatrixFormat::kInt8, 35, 77},  {DType::kBF16, MatrixFormat::kInt8, 64, 256},
      {DType::kF32, MatrixFormat::kInt4, 35, 77},  {DType::kF16, MatrixFormat::kInt4, 129, 96},
      {DType::kQ8_0, MatrixFormat::kInt4, 20, 64},
  };
  for (DType dtype : {DType::kQ8_0, DType::kQ4_0, DType::kQ4_1, DType::kQ5_0, DType::kQ5_1}) {
    list.push_back({dtype, MatrixFormat::kAuto, 83, 96});
    list.push_back({dtype, MatrixFormat::kAuto, 35, 608});  // more than one run of groups, the last one short
    list.push_back({dtype, MatrixFormat::kF32, 18, 64});
  }
  for (DType dtype : {DType::kQ4_K, DType::kQ5_K, DType::kQ6_K}) {
    list.push_back({dtype, MatrixFormat::kAuto, 83, 512});
    list.push_back({dtype, MatrixFormat::kInt8, 16, 256});
  }
  return list;
}

std::string name_of(const WeightCase& c) {
  return std::string(dtype_info(c.dtype).name) + " format " + std::to_string(static_cast<int>(c.format)) +
         " [" + std::to_string(c.n) + ", " + std::to_string(c.k) + "]";
}

class MatmulTest : public OpTest {};

TEST_P(MatmulTest, MatchesReferenceAndPortableBits) {
  const auto backend = make();
  const auto portable = reference_backend();
  uint32_t seed = 1;
  for (const WeightCase& c : cases()) {
    SCOPED_TRACE(name_of(c));
    const std::vector<uint8_t> data = stored_rows(c.dtype, c.n, c.k, ++seed);
    const auto matrix = make_matrix(*backend, c, data);
    const auto portable_matrix = make_matrix(*portable, c, data);
    const std::vector<float> weights = read_all(*backend, *matrix);
    const bool float_kind =
        matrix->format() == "f32" || matrix->format() == "f16" || matrix->format() == "bf16";
    for (const int64_t rows : {1, 2, 3, 5, 17, 70}) {
      const std::vector<float> x = random_floats(static_cast<size_t>(rows * c.k), ++seed);
      const std::vector<float> bias = random_floats(static_cast<size_t>(c.n), seed);
      const std::vector<float> out = multiply(*backend, *matrix, x, rows, bias);
      std::vector<double> expected =
          reference_product(float_kind ? x : quantised(x, rows, c.k), weights, rows, c.n, c.k);
      for (size_t i = 0; i < expected.size(); ++i) expected[i] += static_cast<double>(bias[i % bias.size()]);
      EXPECT_TRUE(close_to(out, expected, 1e-4)) << rows << " rows";
      EXPECT_TRUE(same_bits(out, multiply(*portable, *portable_matrix, x, rows, bias))) << rows << " rows";
    }
  }
}

TEST_P(MatmulTest, RowsDoNotDependOnBatchOrThreads) {
  uint32_t seed = 100;
  for (const WeightCase& c : cases()) {
    SCOPED_TRACE(name_of(c));
    const std::vector<uint8_t> data = stored_rows(c.dtype, c.n, c.k, ++seed);
    constexpr int64_t kRows = 37;
    const std::vector<float> x = random_floats(static_cast<size_t>(kRows * c.k), ++seed);
    std::vector<float> whole;
    for (int threads = 1; threads <= 4; ++threads) {
      const auto backend = make(threads);
      const auto matrix = make_matrix(*backend, c, data);
      const std::vector<float> batch = multiply(*backend, *matrix, x, kRows);
      if (threads == 1) whole = batch;
      EXPECT_TRUE(same_bits(batch, whole)) << threads << " threads";
      std::vector<float> single;
      for (int64_t r = 0; r < kRows; ++r) {
        const auto row = multiply(*backend, *matrix, {x.begin() + r * c.k, x.begin() + (r + 1) * c.k}, 1);
        single.insert(single.end(), row.begin(), row.end());
      }
      EXPECT_TRUE(same_bits(single, whole)) << threads << " threads, one row at a time";
    }
  }
}

TEST_P(MatmulTest, EmbedReadsRowsExactlyAsDequantised) {
  const auto backend = make();
  for (DType dtype : {DType::kF32, DType::kF16, DType::kBF16, DType::kQ8_0, DType::kQ4_0, DType::kQ4_1,
                      DType::kQ5_0, DType::kQ5_1, DType::kQ4_K, DType::kQ5_K, DType::kQ6_K}) {
    SCOPED_TRACE(dtype_info(dtype).name);
    const WeightCase c{dtype, MatrixFormat::kAuto, 37, 512};
    const std::vector<uint8_t> data = stored_rows(dtype, c.n, c.k, 7);
    std::vector<float> expected(static_cast<size_t>(c.n * c.k));
    ASSERT_TRUE(dequantise(dtype, data, expected).ok());
    EXPECT_TRUE(same_bits(read_all(*backend, *make_matrix(*backend, c, data)), expected));
  }
}

TEST_P(MatmulTest, PackedWeightsTakeNoMoreThanTheFile) {
  const auto backend = make();
  for (DType dtype : {DType::kF32, DType::kF16, DType::kBF16, DType::kQ8_0, DType::kQ4_0, DType::kQ4_1,
                      DType::kQ5_0, DType::kQ5_1, DType::kQ4_K, DType::kQ5_K, DType::kQ6_K}) {
    const std::vector<uint8_t> data = stored_rows(dtype, 64, 2048, 9);
    const auto matrix = make_matrix(*backend, {dtype, MatrixFormat::kAuto, 64, 2048}, data);
    EXPECT_LE(static_cast<double>(matrix->bytes()), 1.03 * static_cast<double>(data.size()))
        << dtype_info(dtype).name;
  }
}

TEST_P(MatmulTest, SixteenBitWeightsGiveTheBitsOfWidenedOnes) {
  const auto backend = make();
  for (DType dtype : {DType::kF16, DType::kBF16}) {
    const std::vector<uint8_t> data = stored_rows(dtype, 50, 200, 3);
    const auto narrow = make_matrix(*backend, {dtype, MatrixFormat::kAuto, 50, 200}, data);
    const auto wide = make_matrix(*backend, {dtype, MatrixFormat::kF32, 50, 200}, data);
    EXPECT_EQ(narrow->bytes() * 2, wide->bytes());
    const std::vector<float> x = random_floats(9 * 200, 4);
    EXPECT_TRUE(same_bits(multiply(*backend, *narrow, x, 9), multiply(*backend, *wide, x, 9)));
  }
}

TEST_P(MatmulTest, PiecesOfDifferentTypesAndReorderedRows) {
  const auto backend = make();
  const std::vector<uint8_t> a = stored_rows(DType::kQ4_K, 20, 256, 1);
  const std::vector<uint8_t> b = stored_rows(DType::kQ6_K, 5, 256, 2);
  const std::vector<uint8_t> d = stored_rows(DType::kBF16, 3, 256, 3);
  const std::vector<int32_t> order = {4, 0, 2, 1, 3};
  MatrixSource source;
  source.k = 256;
  source.pieces = {
      {DType::kQ4_K, a.data(), 20, {}}, {DType::kQ6_K, b.data(), 5, order}, {DType::kBF16, d.data(), 3, {}}};
  auto matrix = backend->make_matrix(source, MatrixFormat::kAuto, nullptr);
  ASSERT_TRUE(matrix.ok());
  EXPECT_EQ((*matrix)->n(), 28);
  EXPECT_EQ((*matrix)->format(), "q4k+q6k+bf16");
  std::vector<float> rows_a(20 * 256), rows_b(5 * 256), rows_d(3 * 256);
  ASSERT_TRUE(dequantise(DType::kQ4_K, a, rows_a).ok());
  ASSERT_TRUE(dequantise(DType::kQ6_K, b, rows_b).ok());
  ASSERT_TRUE(dequantise(DType::kBF16, d, rows_d).ok());
  std::vector<float> expected = rows_a;
  for (int32_t row : order)
    expected.insert(expected.end(), rows_b.begin() + row * 256, rows_b.begin() + (row + 1) * 256);
  expected.insert(expected.end(), rows_d.begin(), rows_d.end());
  EXPECT_TRUE(same_bits(read_all(*backend, **matrix), expected));

  const std::vector<float> x = random_floats(3 * 256, 5);
  const std::vector<float> out = multiply(*backend, **matrix, x, 3);
  const auto quant = reference_product(quantised(x, 3, 256), expected, 3, 28, 256);
  const auto exact = reference_product(x, expected, 3, 28, 256);
  for (size_t i = 0; i < out.size(); ++i)
    EXPECT_NEAR(static_cast<double>(out[i]), i % 28 < 25 ? quant[i] : exact[i], 1e-3) << i;
}

TEST_P(MatmulTest, QuantisingAtLoadStaysClose) {
  const auto backend = make();
  const std::vector<uint8_t> data = stored_rows(DType::kF32, 64, 320, 11);
  std::vector<float> exact(64 * 320);
  ASSERT_TRUE(dequantise(DType::kF32, data, exact).ok());
  const auto rms_error = [&](MatrixFormat format) {
    const auto weights = read_all(*backend, *make_matrix(*backend, {DType::kF32, format, 64, 320}, data));
    double error = 0, size = 0;
    for (size_t i = 0; i < exact.size(); ++i) {
      error += std::pow(static_cast<double>(weights[i]) - static_cast<double>(exact[i]), 2);
      size += std::pow(static_cast<double>(exact[i]), 2);
    }
    return std::sqrt(error / size);
  };
  EXPECT_LT(rms_error(MatrixFormat::kInt8), 0.006);
  EXPECT_LT(rms_error(MatrixFormat::kInt4), 0.085);
  EXPECT_EQ(rms_error(MatrixFormat::kF32), 0.0);
}

TEST_P(MatmulTest, InfinityAndNaNReachTheOutput) {
  const auto backend = make();
  const std::vector<uint8_t> data = stored_rows(DType::kQ4_1, 16, 64, 5);
  const auto matrix = make_matrix(*backend, {DType::kQ4_1, MatrixFormat::kAuto, 16, 64}, data);
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    std::vector<float> x(64, 1.0f);
    x[40] = bad;
    for (float v : multiply(*backend, *matrix, x, 1)) EXPECT_FALSE(std::isfinite(v));
  }
}

TEST_P(MatmulTest, RefusesWhatHasNoKernels) {
  const auto backend = make();
  const std::vector<uint8_t> data(4096);
  MatrixSource source;
  source.k = 32;
  source.pieces = {{DType::kF8E4M3, data.data(), 4, {}}};
  const auto refused = backend->make_matrix(source, MatrixFormat::kAuto, nullptr);
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.status().code(), Code::kUnsupported);
  EXPECT_NE(refused.status().message().find("F8_E4M3"), std::string::npos);
  source.k = 33;
  source.pieces = {{DType::kQ8_0, data.data(), 4, {}}};
  EXPECT_FALSE(backend->make_matrix(source, MatrixFormat::kAuto, nullptr).ok());
}

TESSERA_FOR_EVERY_ISA(MatmulTest);

}  // namespace
}  // namespace tessera::tensor
