#include "wire/row_codec.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "base/rng.h"

namespace tessera::wire {
namespace {

std::span<const uint8_t> bytes_of(const std::string& text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

std::vector<float> round_trip(RowEncoding encoding, const std::vector<float>& hidden, size_t width) {
  std::string bytes;
  encode_rows(encoding, hidden, width, bytes);
  EXPECT_EQ(bytes.size(), encoded_rows_bytes(encoding, hidden.size() / width, width));
  auto decoded = decode_rows(encoding, bytes_of(bytes), hidden.size() / width, width);
  EXPECT_TRUE(decoded.ok()) << decoded.status().message();
  return *std::move(decoded);
}

// Rows of very different sizes, as a residual stream has.
std::vector<float> random_rows(size_t rows, size_t width) {
  std::vector<float> out;
  for (size_t r = 0; r < rows; ++r)
    for (size_t i = 0; i < width; ++i)
      out.push_back(static_cast<float>((uniform_at(1, 0, r * width + i) - 0.5) *
                                       std::pow(10.0, static_cast<double>(r % 9) - 4)));
  return out;
}

TEST(RowCodec, LosslessKeepsEveryBit) {
  auto rows = random_rows(9, 33);
  rows[0] = std::numeric_limits<float>::infinity();
  rows[1] = std::bit_cast<float>(0x7fc00123u);
  rows[2] = -0.0f;
  const auto back = round_trip(RowEncoding::kLossless, rows, 33);
  ASSERT_EQ(back.size(), rows.size());
  for (size_t i = 0; i < rows.size(); ++i)
    EXPECT_EQ(std::bit_cast<uint32_t>(back[i]), std::bit_cast<uint32_t>(rows[i]));
}

TEST(RowCodec, EightBitErrorsStayWithinTheirBounds) {
  const size_t width = 257;
  const auto rows = random_rows(27, width);
  const auto int8 = round_trip(RowEncoding::kInt8, rows, width);
  const auto fp8 = round_trip(RowEncoding::kFp8, rows, width);
  for (size_t r = 0; r < 27; ++r) {
    float amax = 0;
    for (size_t i = 0; i < width; ++i) amax = std::max(amax, std::fabs(rows[r * width + i]));
    for (size_t i = r * width; i < (r + 1) * width; ++i) {
      EXPECT_LE(std::fabs(int8[i] - rows[i]), amax / 254 * 1.0001f);
      EXPECT_LE(std::fabs(fp8[i] - rows[i]), std::max(std::fabs(rows[i]) / 16, amax / (1 << 18)) * 1.0001f);
    }
  }
}

TEST(RowCodec, EightBitRowsWithoutFiniteValuesAreSafe) {
  const float inf = std::numeric_limits<float>::infinity(), nan = std::nanf("");
  for (RowEncoding encoding : {RowEncoding::kInt8, RowEncoding::kFp8}) {
    auto back = round_trip(encoding, {inf, -inf, 2.0f, nan}, 4);
    EXPECT_FLOAT_EQ(back[0], 2.0f);
    EXPECT_FLOAT_EQ(back[1], -2.0f);
    EXPECT_FLOAT_EQ(back[2], 2.0f);
    EXPECT_TRUE(encoding == RowEncoding::kInt8 ? back[3] == 0.0f : std::isnan(back[3]));
    for (float value : round_trip(encoding, {0.0f, -0.0f, 1e-45f, 0.0f}, 4))
      EXPECT_LE(std::fabs(value), 1e-44f);
    for (float value : round_trip(encoding, {3.4e38f, -3.4e38f}, 2)) EXPECT_TRUE(std::isfinite(value));
  }
}

TEST(RowCodec, E4m3CodesAreFixedPointsAndNeighboursRoundToEven) {
  for (int code = 0; code < 256; ++code) {
    const float value = e4m3_to_f32(static_cast<uint8_t>(code));
    if (std::isnan(value)) {
      EXPECT_EQ(code & 127, 127);
      continue;
    }
    EXPECT_EQ(f32_to_e4m3(value), code);
  }
  EXPECT_EQ(e4m3_to_f32(0x7e), 448.0f);
  EXPECT_EQ(e4m3_to_f32(0x01), 0x1p-9f);
  EXPECT_EQ(e4m3_to_f32(0x38), 1.0f);
  for (int code = 0; code < 126; ++code) {  // halfway: the even code
    const float middle =
        (e4m3_to_f32(static_cast<uint8_t>(code)) + e4m3_to_f32(static_cast<uint8_t>(code + 1))) / 2;
    EXPECT_EQ(f32_to_e4m3(middle) & 1, 0) << code;
  }
  EXPECT_EQ(f32_to_e4m3(1e30f), 0x7e);
}

TEST(RowCodec, RefusesOtherSizesAndBadScales) {
  std::string bytes;
  encode_rows(RowEncoding::kInt8, std::vector<float>{1, 2, 3, 4}, 2, bytes);
  EXPECT_EQ(decode_rows(RowEncoding::kInt8, bytes_of(bytes), 2, 3).status().code(), Code::kCorrupt);
  EXPECT_EQ(decode_rows(RowEncoding::kLossless, bytes_of(bytes), 2, 2).status().code(), Code::kCorrupt);
  const float nan = std::nanf("");
  std::memcpy(bytes.data(), &nan, sizeof nan);
  EXPECT_EQ(decode_rows(RowEncoding::kInt8, bytes_of(bytes), 2, 2).status().code(), Code::kCorrupt);
}

}  // namespace
}  // namespace tessera::wire
