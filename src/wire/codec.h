// Messages to bytes and back (proto/tessera/v1). Bytes come from peers and are hostile (invariant I7): every
// count, length, range, enum value and payload size is checked, and what is wrong gives kCorrupt with a
// sentence that names the field. Needs protobuf, no gRPC. Pure functions.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/status.h"
#include "core/control_messages.h"
#include "core/engine_messages.h"
#include "core/messages.h"

namespace tessera::wire {

// Bounds of what is decoded; beyond them a frame is corrupt. The encoder trusts its caller.
constexpr uint64_t kMaxBundleBytes = uint64_t{64} << 20;
constexpr uint64_t kMaxFieldBytes = uint64_t{16} << 20;  // of a frame beside its payload: becomes objects
constexpr int kMaxTokens = 1 << 22;                      // of a sequence
constexpr int kMaxVocab = 1 << 20;                       // token ids are below it
constexpr int kMaxRows = 1 << 16;                        // of one message
constexpr int kMaxHiddenSize = 1 << 16;
constexpr int kMaxHops = 256;
constexpr int kMaxBlocks = 1 << 12;
constexpr int kMaxInstances = 256;
constexpr int kMaxLinks = 1 << 12;
constexpr int kMaxTopLogprobs = 64;
constexpr int kMaxChoices = 1 << 12;  // of a request to an engine
constexpr size_t kMaxName = 256;      // worker, model, instance, inbox
constexpr size_t kMaxText = 4096;     // reasons, address lists, options

// Both ends of a worker's link say this first.
struct LinkHello {
  ProtocolRange protocol;
  std::string worker;
  uint64_t incarnation = 0;
};
// Answered at once by Pong. The payload has no meaning: it measures the link's rate.
struct Ping {
  uint64_t number = 0;
  uint64_t payload_bytes = 0;
};
struct Pong {
  uint64_t number = 0;
  uint64_t payload_bytes = 0;
};
using LinkMessage = std::variant<LinkHello, Ping, Pong>;

// A session message and the inbox that it is for.
struct Envelope {
  std::string to;
  Message message;
};

using Frame = std::variant<Envelope, ControlMessage, LinkMessage, EngineMessage>;

// One frame's bytes. `protocol`: the version agreed with the receiver.
std::string encode(const std::string& to, const Message& message, int protocol);
std::string encode(const ControlMessage& message, int protocol);
std::string encode(const LinkMessage& message, int protocol);
std::string encode(const EngineMessage& message, int protocol);

// kCorrupt: the stream must end. kUnsupported: well-formed, but of a protocol version or of a kind that this
// build does not know; the sentence names it. Hello, Welcome, Goodbye and LinkHello are read whatever their
// version, so that peers can tell each other what they speak.
Result<Frame> decode(std::span<const uint8_t> frame);

// The bytes that stand before a frame of `size` bytes in a bundle. A bundle is such frames one after another.
std::string bundle_prefix(size_t size);
// Views of the frames of a bundle, valid as long as its bytes.
Result<std::vector<std::span<const uint8_t>>> split_bundle(std::span<const uint8_t> bundle);

}  // namespace tessera::wire
