// GGUF's block-quantised types, read group by group: codes as stored, scales untouched.
#pragma once

#include <cstdint>

#include "base/dtype.h"

namespace tessera::tensor {

// 32 consecutive values of a row: value i = scale * (code[i] - offset of the type) + min.
struct GroupCodes {
  uint8_t code[32];      // unsigned; Q8_0: the bytes of signed values
  uint16_t scale = 0;    // f16: of the group, or of the super block (K-quants)
  uint16_t min = 0;      // f16: likewise; K-quants subtract it
  uint8_t sub_scale[2];  // K-quants; Q6_K: signed, one per 16 values
  uint8_t sub_min = 0;   // Q4_K, Q5_K
};

// `row` must hold whole blocks; group counts from the row's start.
void read_group(DType dtype, const uint8_t* row, int64_t group, GroupCodes& out);
void group_values(DType dtype, const GroupCodes& group, float* out);

}  // namespace tessera::tensor
