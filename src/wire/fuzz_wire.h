// What the fuzz targets of the codec have in common; a Family says which frames are its own:
//   using Ours = …;                                          the alternative of Frame
//   static std::string encoded(const Ours&);
//   static const std::vector<Ours>& samples();
#pragma once

#include <cstdlib>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "wire/codec_samples.h"
#include "wire/protocol.h"

namespace tessera::wire {

inline std::span<const uint8_t> bytes_of(const std::string& text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

// What is understood can be said again, and is understood again.
template <typename Family>
void check_frame(std::span<const uint8_t> bytes) {
  const auto ours = [](const Result<Frame>& frame) {
    return frame.ok() ? std::get_if<typename Family::Ours>(&frame.value()) : nullptr;
  };
  const auto frame = decode(bytes);
  const auto* message = ours(frame);
  if (message == nullptr) return;  // not understood, or the other target's
  const std::string again = Family::encoded(*message);
  const auto second = decode(bytes_of(again));
  if (ours(second) == nullptr) std::abort();
}

template <typename Family>
int fuzz_family(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  check_frame<Family>({data, size});
  const auto frames = split_bundle({data, size});
  if (frames.ok())
    for (auto frame : *frames) check_frame<Family>(frame);
  // The first byte picks a good frame of this family, the rest damages it: deep code is reached at once.
  const auto& samples = Family::samples();
  std::string frame = Family::encoded(samples[data[0] % samples.size()]);
  for (size_t i = 1; i + 1 < size; i += 2) frame[data[i] % frame.size()] = static_cast<char>(data[i + 1]);
  check_frame<Family>(bytes_of(frame));
  return 0;
}

}  // namespace tessera::wire
