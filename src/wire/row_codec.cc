#include "wire/row_codec.h"

#include <array>
#include <bit>
#include <cmath>
#include <cstring>

namespace tessera::wire {
namespace {

static_assert(std::endian::native == std::endian::little, "rows are written as the host keeps them");

constexpr float kInt8Max = 127.0f;
constexpr float kE4m3Max = 448.0f;

float largest_finite(std::span<const float> row) {
  float amax = 0;
  for (float value : row)
    if (std::isfinite(value)) amax = std::max(amax, std::fabs(value));
  return amax;
}

// A scale that neither overflows nor divides by zero.
float scale_of(float amax, float code_max) {
  const float scale = amax / code_max;
  return scale > 0 ? scale : 1.0f;  // also where the quotient underflows: such a row is all but zero
}

int8_t int8_code(float value, float scale) {
  if (std::isnan(value)) return 0;
  const float code = std::nearbyintf(value / scale);
  return static_cast<int8_t>(std::min(kInt8Max, std::max(-kInt8Max, code)));
}

std::array<float, 256> e4m3_table() {
  std::array<float, 256> table;
  for (int code = 0; code < 256; ++code) {
    const int exponent = (code >> 3) & 15, mantissa = code & 7;
    float magnitude = exponent == 0 ? std::ldexp(static_cast<float>(mantissa), -9)
                                    : std::ldexp(static_cast<float>(8 + mantissa), exponent - 10);
    if ((code & 127) == 127) magnitude = std::nanf("");
    table[static_cast<size_t>(code)] = code & 128 ? -magnitude : magnitude;
  }
  return table;
}

}  // namespace

uint8_t f32_to_e4m3(float value) {
  const uint8_t sign = std::signbit(value) ? 0x80 : 0;
  if (std::isnan(value)) return sign | 0x7f;
  const float magnitude = std::fabs(value);
  if (magnitude >= kE4m3Max) return sign | 0x7e;
  if (magnitude < 0x1p-6f)  // subnormal: multiples of 2^-9; 8 of them are the first normal number
    return sign | static_cast<uint8_t>(std::nearbyintf(magnitude * 512.0f));
  const uint32_t bits = std::bit_cast<uint32_t>(magnitude);
  const uint32_t rounded = bits + 0x7ffffu + ((bits >> 20) & 1u);
  const uint32_t code = (rounded >> 20) - ((127 - 7) << 3);
  return sign | static_cast<uint8_t>(std::min<uint32_t>(code, 0x7e));
}

float e4m3_to_f32(uint8_t code) {
  static const std::array<float, 256> table = e4m3_table();
  return table[code];
}

uint64_t encoded_rows_bytes(RowEncoding encoding, uint64_t rows, uint64_t hidden_size) {
  if (encoding == RowEncoding::kLossless) return rows * hidden_size * sizeof(float);
  return hidden_size == 0 ? 0 : rows * (sizeof(float) + hidden_size);
}

void encode_rows(RowEncoding encoding, std::span<const float> hidden, size_t hidden_size, std::string& out) {
  if (hidden.empty()) return;
  TESSERA_CHECK(hidden_size > 0 && hidden.size() % hidden_size == 0, "rows of another width");
  if (encoding == RowEncoding::kLossless) {
    out.append(reinterpret_cast<const char*>(hidden.data()), hidden.size_bytes());
    return;
  }
  const size_t rows = hidden.size() / hidden_size, begin = out.size();
  out.resize(begin + encoded_rows_bytes(encoding, rows, hidden_size));
  char* at = out.data() + begin;
  const float code_max = encoding == RowEncoding::kInt8 ? kInt8Max : kE4m3Max;
  for (size_t r = 0; r < rows; ++r) {
    const auto row = hidden.subspan(r * hidden_size, hidden_size);
    const float scale = scale_of(largest_finite(row), code_max);
    std::memcpy(at, &scale, sizeof scale);
    at += sizeof scale;
    for (float value : row)
      *at++ = encoding == RowEncoding::kInt8 ? static_cast<char>(int8_code(value, scale))
                                             : static_cast<char>(f32_to_e4m3(value / scale));
  }
}

Result<std::vector<float>> decode_rows(RowEncoding encoding, std::span<const uint8_t> bytes, uint64_t rows,
                                       uint64_t hidden_size) {
  if (bytes.size() != encoded_rows_bytes(encoding, rows, hidden_size))
    return corrupt(std::to_string(rows) + " rows of " + std::to_string(hidden_size) + " values do not fill " +
                   std::to_string(bytes.size()) + " bytes");
  std::vector<float> hidden(rows * hidden_size);
  if (hidden.empty()) return hidden;
  if (encoding == RowEncoding::kLossless) {
    std::memcpy(hidden.data(), bytes.data(), bytes.size());
    return hidden;
  }
  const uint8_t* at = bytes.data();
  float* to = hidden.data();
  for (uint64_t r = 0; r < rows; ++r) {
    float scale;
    std::memcpy(&scale, at, sizeof scale);
    at += sizeof scale;
    if (!std::isfinite(scale) || scale < 0) return corrupt("a row's scale is no positive number");
    for (uint64_t i = 0; i < hidden_size; ++i, ++at)
      *to++ = scale * (encoding == RowEncoding::kInt8 ? static_cast<float>(static_cast<int8_t>(*at))
                                                      : e4m3_to_f32(*at));
  }
  return hidden;
}

}  // namespace tessera::wire
