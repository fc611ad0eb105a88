// Cosine and sine of rotary angles.
#pragma once

namespace tessera::tensor {

// Both within one unit in the last place of a float for |angle| up to 2^30; plain double arithmetic in a
// fixed order, so the bits are the same on every processor.
void cos_sin(float angle, float* cosine, float* sine);

}  // namespace tessera::tensor
