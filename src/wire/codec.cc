#include "wire/codec.h"

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/stubs/logging.h>
#include <google/protobuf/wire_format_lite.h>

#include "wire/codec_convert.h"
#include "wire/protocol.h"
#include "wire/row_codec.h"

namespace tessera::wire {
namespace {

using convert::Checker;
using google::protobuf::internal::WireFormatLite;
namespace io = google::protobuf::io;
namespace pb = tessera::v1;

constexpr uint32_t kFrameTag =
    WireFormatLite::MakeTag(pb::Bundle::kFramesFieldNumber, WireFormatLite::WIRETYPE_LENGTH_DELIMITED);
constexpr uint32_t kPayloadTag =
    WireFormatLite::MakeTag(pb::Frame::kPayloadFieldNumber, WireFormatLite::WIRETYPE_LENGTH_DELIMITED);

void append_length_prefix(uint32_t tag, size_t size, std::string& out) {
  uint8_t buffer[16];
  uint8_t* end = io::CodedOutputStream::WriteTagToArray(tag, buffer);
  end = io::CodedOutputStream::WriteVarint64ToArray(size, end);
  out.append(reinterpret_cast<char*>(buffer), static_cast<size_t>(end - buffer));
}

// A field of the outermost level of a message.
struct Field {
  uint32_t tag = 0;
  std::span<const uint8_t> whole;    // with its tag
  std::span<const uint8_t> content;  // of a length-delimited field
};

// Walks the outermost level without building anything: the payload and the frames of a bundle stay where
// they are.
class FieldScanner {
 public:
  explicit FieldScanner(std::span<const uint8_t> bytes)
      : bytes_(bytes), in_(bytes.data(), static_cast<int>(bytes.size())) {}

  // False at the end or at bytes that are no field; ok() tells which.
  bool next(Field& field) {
    const int begin = in_.CurrentPosition();
    if (static_cast<size_t>(begin) == bytes_.size()) return false;
    field.tag = in_.ReadTag();
    field.content = {};
    if (field.tag == 0 || !skip_or_take(field)) {
      ok_ = false;
      return false;
    }
    field.whole = slice(begin, in_.CurrentPosition());
    return true;
  }
  bool ok() const { return ok_; }

 private:
  bool skip_or_take(Field& field) {
    if (WireFormatLite::GetTagWireType(field.tag) != WireFormatLite::WIRETYPE_LENGTH_DELIMITED)
      return WireFormatLite::SkipField(&in_, field.tag);
    uint32_t size = 0;
    if (!in_.ReadVarint32(&size)) return false;
    const int begin = in_.CurrentPosition();
    if (size > bytes_.size() - static_cast<size_t>(begin) || !in_.Skip(static_cast<int>(size))) return false;
    field.content = slice(begin, in_.CurrentPosition());
    return true;
  }
  std::span<const uint8_t> slice(int begin, int end) const {
    return bytes_.subspan(static_cast<size_t>(begin), static_cast<size_t>(end - begin));
  }
  std::span<const uint8_t> bytes_;
  io::CodedInputStream in_;
  bool ok_ = true;
};

// Protobuf writes a line to stderr for each string that is no UTF-8; a peer must not be able to fill the log.
void silence_protobuf() {
  static const bool done = (google::protobuf::SetLogHandler(nullptr), true);
  (void)done;
}

pb::Frame new_frame(int protocol) {
  pb::Frame frame;
  frame.set_protocol(static_cast<uint32_t>(protocol));
  return frame;
}

std::string serialised(const pb::Frame& frame) {
  std::string out;
  frame.SerializeToString(&out);
  return out;
}

Result<LinkMessage> read_link(const pb::Frame& frame, uint64_t payload_bytes) {
  if (frame.has_link_hello()) {
    Checker check("LinkHello");
    const auto& in = frame.link_hello();
    LinkHello hello;
    hello.protocol.lowest = check.in_range(in.protocol().lowest(), 1, 1 << 20, "protocol.lowest");
    hello.protocol.highest =
        check.in_range(in.protocol().highest(), hello.protocol.lowest, 1 << 20, "protocol.highest");
    hello.worker = check.name(in.worker(), "worker");
    hello.incarnation = in.incarnation();
    if (!check.status().ok()) return check.status();
    return LinkMessage(std::move(hello));
  }
  if (frame.has_ping()) return LinkMessage(Ping{frame.ping().number(), payload_bytes});
  return LinkMessage(Pong{frame.pong().number(), frame.pong().payload_bytes()});
}

bool says_versions(const pb::Frame& frame) {
  return frame.has_hello() || frame.has_welcome() || frame.has_goodbye() || frame.has_link_hello();
}

Status check_protocol(const pb::Frame& frame) {
  if (frame.protocol() == 0) return corrupt("frame: it names no protocol version");
  const uint32_t lowest = kProtocol.lowest, highest = kProtocol.highest;
  if (says_versions(frame) || (frame.protocol() >= lowest && frame.protocol() <= highest)) return {};
  return unsupported("frame: protocol version " + std::to_string(frame.protocol()) +
                     ", this process speaks " + std::to_string(lowest) + " to " + std::to_string(highest));
}

enum class Family { kSession, kControl, kLink, kEngine, kUnknown };
Family family_of(pb::Frame::BodyCase body) {
  if (body >= pb::Frame::kHello && body <= pb::Frame::kProbePeer) return Family::kControl;
  if (body >= pb::Frame::kOpenSession && body <= pb::Frame::kStepTrace) return Family::kSession;
  if (body >= pb::Frame::kLinkHello && body <= pb::Frame::kPong) return Family::kLink;
  if (body >= pb::Frame::kEngineRequest && body <= pb::Frame::kEngineEnd) return Family::kEngine;
  return Family::kUnknown;
}

Result<Frame> read_body(const pb::Frame& frame, std::span<const uint8_t> payload) {
  switch (family_of(frame.body_case())) {
    case Family::kSession: {
      Checker check("frame");
      std::string to = check.name(frame.to(), "to");
      if (!check.status().ok()) return check.status();
      TESSERA_ASSIGN_OR_RETURN(Message message, convert::read_session(frame, payload));
      return Frame(Envelope{std::move(to), std::move(message)});
    }
    case Family::kControl: {
      TESSERA_ASSIGN_OR_RETURN(ControlMessage message, convert::read_control(frame));
      return Frame(std::move(message));
    }
    case Family::kLink: {
      TESSERA_ASSIGN_OR_RETURN(LinkMessage message, read_link(frame, payload.size()));
      return Frame(std::move(message));
    }
    case Family::kEngine: {
      TESSERA_ASSIGN_OR_RETURN(EngineMessage message, convert::read_engine(frame));
      return Frame(std::move(message));
    }
    case Family::kUnknown:
      break;
  }
  return unsupported("frame: a kind of message that this build does not know");
}

}  // namespace

std::string encode(const std::string& to, const Message& message, int protocol) {
  pb::Frame frame = new_frame(protocol);
  frame.set_to(to);
  convert::write(message, frame);
  const auto* rows = std::get_if<Rows>(&message);
  if (rows == nullptr || rows->hidden.empty()) return serialised(frame);
  TESSERA_CHECK(!rows->tokens.empty(), "hidden rows without their tokens");
  const size_t hidden_size = rows->hidden.size() / rows->tokens.size();
  const uint64_t bytes = encoded_rows_bytes(rows->encoding, rows->tokens.size(), hidden_size);
  std::string out;
  out.reserve(frame.ByteSizeLong() + bytes + 16);
  frame.AppendToString(&out);
  append_length_prefix(kPayloadTag, bytes, out);
  encode_rows(rows->encoding, rows->hidden, hidden_size, out);
  return out;
}

std::string encode(const ControlMessage& message, int protocol) {
  pb::Frame frame = new_frame(protocol);
  convert::write(message, frame);
  return serialised(frame);
}

std::string encode(const EngineMessage& message, int protocol) {
  pb::Frame frame = new_frame(protocol);
  convert::write(message, frame);
  return serialised(frame);
}

std::string encode(const LinkMessage& message, int protocol) {
  pb::Frame frame = new_frame(protocol);
  if (const auto* hello = std::get_if<LinkHello>(&message)) {
    auto& out = *frame.mutable_link_hello();
    out.mutable_protocol()->set_lowest(static_cast<uint32_t>(hello->protocol.lowest));
    out.mutable_protocol()->set_highest(static_cast<uint32_t>(hello->protocol.highest));
    out.set_worker(hello->worker);
    out.set_incarnation(hello->incarnation);
  } else if (const auto* ping = std::get_if<Ping>(&message)) {
    frame.mutable_ping()->set_number(ping->number);
    std::string out = serialised(frame);
    if (ping->payload_bytes > 0) {
      append_length_prefix(kPayloadTag, ping->payload_bytes, out);
      out.append(ping->payload_bytes, '\0');
    }
    return out;
  } else {
    const auto& pong = std::get<Pong>(message);
    frame.mutable_pong()->set_number(pong.number);
    frame.mutable_pong()->set_payload_bytes(pong.payload_bytes);
  }
  return serialised(frame);
}

Result<Frame> decode(std::span<const uint8_t> bytes) {
  silence_protobuf();
  if (bytes.size() > kMaxBundleBytes) return corrupt("frame: too large");
  // The payload is cut out; the fields before and after it are one small message.
  std::span<const uint8_t> payload, before = bytes, after;
  FieldScanner scanner(bytes);
  for (Field field; scanner.next(field);) {
    if (field.tag != kPayloadTag) continue;
    const auto offset = static_cast<size_t>(field.whole.data() - bytes.data());
    payload = field.content;
    before = bytes.first(offset);
    after = bytes.subspan(offset + field.whole.size());
    break;
  }
  if (before.size() + after.size() > kMaxFieldBytes) return corrupt("frame: too large beside its payload");
  pb::Frame frame;
  const bool parsed = scanner.ok() && frame.ParseFromArray(before.data(), static_cast<int>(before.size())) &&
                      (after.empty() || frame.MergeFromString(std::string(
                                            reinterpret_cast<const char*>(after.data()), after.size())));
  if (!parsed || !frame.payload().empty()) return corrupt("frame: not a message of this protocol");
  TESSERA_RETURN_IF_ERROR(check_protocol(frame));
  if (!payload.empty() && !frame.has_rows() && !frame.has_ping() &&
      family_of(frame.body_case()) != Family::kUnknown)
    return corrupt("frame: a payload where none belongs");
  return read_body(frame, payload);
}

std::string bundle_prefix(size_t size) {
  std::string prefix;
  append_length_prefix(kFrameTag, size, prefix);
  return prefix;
}

Result<std::vector<std::span<const uint8_t>>> split_bundle(std::span<const uint8_t> bundle) {
  if (bundle.size() > kMaxBundleBytes) return corrupt("bundle: too large");
  std::vector<std::span<const uint8_t>> frames;
  FieldScanner scanner(bundle);
  for (Field field; scanner.next(field);)
    if (field.tag == kFrameTag) frames.push_back(field.content);
  if (!scanner.ok()) return corrupt("bundle: not a message of this protocol");
  return frames;
}

}  // namespace tessera::wire
