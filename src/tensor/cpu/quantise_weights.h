// Quantising float weights at load, one group of up to 32 values at a time.
#pragma once

#include <cstdint>

#include "tensor/cpu/block_formats.h"

namespace tessera::tensor {

// Symmetric 8 bit: value = scale * signed code, scale = max|x| / 127 rounded to f16. x has 32 values.
void quantise_int8_group(const float* x, GroupCodes& out);
// 4 bit with a minimum: the range, shrunk in small steps, with the least squared error. Values at and after
// `count` are padding: they get code 0 and do not count.
void quantise_int4_group(const float* x, int count, GroupCodes& out);

}  // namespace tessera::tensor
