// How rows of the residual stream travel: raw float32, or 8-bit codes with one float32 scale a row.
// Little-endian throughout, as the hosts that Tessera runs on are.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/status.h"
#include "core/messages.h"

namespace tessera::wire {

// Bytes of `rows` rows of `hidden_size` values. Both are bounded by the caller (kMaxRows, kMaxHiddenSize).
uint64_t encoded_rows_bytes(RowEncoding encoding, uint64_t rows, uint64_t hidden_size);

// Appends the encoded rows; hidden.size() must be a multiple of hidden_size.
//   kInt8: |error| <= amax / 254 for each value of a row whose largest magnitude is amax.
//   kFp8:  relative error <= 1/16 down to amax / 2^15, absolute error below that <= amax / 2^18.
// A row with a value that is not finite keeps no more than that fact: NaN codes as 0 (kInt8) or NaN (kFp8),
// infinities as the largest finite value of the row.
void encode_rows(RowEncoding encoding, std::span<const float> hidden, size_t hidden_size, std::string& out);

// kCorrupt unless `bytes` is exactly the size that rows and hidden_size need, or if a scale is negative or
// not finite.
Result<std::vector<float>> decode_rows(RowEncoding encoding, std::span<const uint8_t> bytes, uint64_t rows,
                                       uint64_t hidden_size);

// OCP FP8 E4M3: no infinity, largest magnitude 448. Rounds to nearest even, saturates, keeps NaN.
uint8_t f32_to_e4m3(float value);
float e4m3_to_f32(uint8_t code);

}  // namespace tessera::wire
