#include <cstdlib>

#include "wire/codec_samples.h"
#include "wire/protocol.h"

namespace {

using namespace tessera;  // NOLINT

// Frames of the other families are the other target's.
const ControlMessage* ours(const Result<wire::Frame>& frame) {
  return frame.ok() ? std::get_if<ControlMessage>(&frame.value()) : nullptr;
}

std::string encoded(const ControlMessage& m) {
  return wire::encode(m, wire::kProtocol.highest);
}

std::span<const uint8_t> bytes_of(const std::string& text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

// What is understood can be said again, and is understood again.
void check_frame(std::span<const uint8_t> bytes) {
  const auto frame = wire::decode(bytes);
  const auto* message = ours(frame);
  if (message == nullptr) return;
  const std::string again = encoded(*message);
  const auto second = wire::decode(bytes_of(again));
  if (ours(second) == nullptr) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  check_frame({data, size});
  const auto frames = wire::split_bundle({data, size});
  if (frames.ok())
    for (auto frame : *frames) check_frame(frame);
  // The first byte picks a good frame of this family, the rest damages it: deep code is reached at once.
  static const auto messages = wire::samples::control_messages();
  std::string frame = encoded(messages[data[0] % messages.size()]);
  for (size_t i = 1; i + 1 < size; i += 2) frame[data[i] % frame.size()] = static_cast<char>(data[i + 1]);
  check_frame(bytes_of(frame));
  return 0;
}
