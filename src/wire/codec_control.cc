#include "wire/codec_convert.h"

namespace tessera::wire::convert {
namespace {

void write_protocol(ProtocolRange in, pb::ProtocolRange& out) {
  out.set_lowest(static_cast<uint32_t>(in.lowest));
  out.set_highest(static_cast<uint32_t>(in.highest));
}
ProtocolRange read_protocol(const pb::ProtocolRange& in, Checker& check) {
  ProtocolRange out;
  out.lowest = check.in_range(in.lowest(), 1, 1 << 20, "protocol.lowest");
  out.highest = check.in_range(in.highest(), out.lowest, 1 << 20, "protocol.highest");
  return out;
}

void write_instance(const InstanceReport& in, pb::InstanceReport& out) {
  out.set_id(in.id);
  out.set_model(in.model);
  write_blocks(in.blocks, *out.mutable_blocks());
  out.set_state(static_cast<pb::InstanceState>(in.state));
  out.set_error(in.error.substr(0, kMaxText));
  out.set_numerics(in.numerics);
  out.set_kv_tokens(static_cast<uint64_t>(in.kv_tokens));
  out.set_kv_tokens_free(static_cast<uint64_t>(in.kv_tokens_free));
  out.set_running(static_cast<uint32_t>(in.running));
  out.set_tokens_replayed(static_cast<uint64_t>(in.tokens_replayed));
  out.set_tokens_recomputed(static_cast<uint64_t>(in.tokens_recomputed));
  out.set_decode_step_s(in.decode_step_s);
  out.set_prefill_token_s(in.prefill_token_s);
  out.set_bytes_fetched(in.bytes_fetched);
  out.set_bytes_total(in.bytes_total);
}
InstanceReport read_instance(const pb::InstanceReport& in, Checker& check) {
  InstanceReport out;
  out.id = check.name(in.id(), "instance.id");
  out.model = check.name(in.model(), "instance.model");
  out.blocks = read_blocks(in.blocks(), check);
  out.state = check.enumeration(in.state(), InstanceState::kUnloaded, "instance.state");
  out.error = check.text(in.error(), kMaxText, "instance.error");
  out.numerics = check.text(in.numerics(), kMaxName, "instance.numerics");
  out.kv_tokens = check.non_negative(in.kv_tokens(), "instance.kv_tokens");
  out.kv_tokens_free = check.non_negative(in.kv_tokens_free(), "instance.kv_tokens_free");
  out.running = check.in_range(in.running(), 0, 1 << 30, "instance.running");
  out.tokens_replayed = check.non_negative(in.tokens_replayed(), "instance.tokens_replayed");
  out.tokens_recomputed = check.non_negative(in.tokens_recomputed(), "instance.tokens_recomputed");
  out.decode_step_s = check.measure(in.decode_step_s(), "instance.decode_step_s");
  out.prefill_token_s = check.measure(in.prefill_token_s(), "instance.prefill_token_s");
  out.bytes_fetched = in.bytes_fetched();
  out.bytes_total = in.bytes_total();
  return out;
}
template <typename Repeated>
std::vector<InstanceReport> read_instances(const Repeated& in, Checker& check) {
  std::vector<InstanceReport> out;
  if (check.count(in.size(), kMaxInstances, "instances"))
    for (const auto& entry : in) out.push_back(read_instance(entry, check));
  return out;
}

void write_capabilities(const WorkerCapabilities& in, pb::WorkerCapabilities& out) {
  out.set_memory_bytes(in.memory_bytes);
  out.set_decode_bytes_per_s(in.decode_bytes_per_s);
  out.set_prefill_ops_per_s(in.prefill_ops_per_s);
  out.set_threads(static_cast<uint32_t>(in.threads));
  out.set_device(in.device);
  out.set_numerics(in.numerics);
  if (in.pinned_blocks) write_blocks(*in.pinned_blocks, *out.mutable_pinned_blocks());
  out.set_pinned_model(in.pinned_model);
}
WorkerCapabilities read_capabilities(const pb::WorkerCapabilities& in, Checker& check) {
  WorkerCapabilities out;
  out.memory_bytes = in.memory_bytes();
  out.decode_bytes_per_s = check.measure(in.decode_bytes_per_s(), "decode_bytes_per_s");
  out.prefill_ops_per_s = check.measure(in.prefill_ops_per_s(), "prefill_ops_per_s");
  out.threads = check.in_range(in.threads(), 0, 1 << 20, "threads");
  out.device = check.text(in.device(), kMaxText, "device");
  out.numerics = check.text(in.numerics(), kMaxName, "numerics");
  if (in.has_pinned_blocks()) out.pinned_blocks = read_blocks(in.pinned_blocks(), check);
  out.pinned_model = check.text(in.pinned_model(), kMaxName, "pinned_model");
  return out;
}

void write_body(const Hello& in, pb::Frame& frame) {
  auto& out = *frame.mutable_hello();
  write_protocol(in.protocol, *out.mutable_protocol());
  out.set_worker(in.worker);
  out.set_incarnation(in.incarnation);
  out.set_version(in.version);
  out.set_address(in.address);
  write_capabilities(in.capabilities, *out.mutable_capabilities());
  for (const auto& instance : in.instances) write_instance(instance, *out.add_instances());
  if (in.engine) write_engine_report(*in.engine, *out.mutable_engine());
}
ControlMessage read_body(const pb::Hello& in, Checker& check) {
  Hello out;
  out.protocol = read_protocol(in.protocol(), check);
  out.worker = check.name(in.worker(), "worker");
  out.incarnation = in.incarnation();
  out.version = check.text(in.version(), kMaxName, "version");
  out.address = check.text(in.address(), kMaxText, "address");
  out.capabilities = read_capabilities(in.capabilities(), check);
  out.instances = read_instances(in.instances(), check);
  if (in.has_engine()) out.engine = read_engine_report(in.engine(), check);
  return out;
}

void write_body(const Welcome& in, pb::Frame& frame) {
  auto& out = *frame.mutable_welcome();
  write_protocol(in.protocol, *out.mutable_protocol());
  out.set_gateway(in.gateway);
  out.set_incarnation(in.incarnation);
  out.set_lease(in.lease);
  out.set_lease_ms(static_cast<uint32_t>(in.lease_ms));
}
ControlMessage read_body(const pb::Welcome& in, Checker& check) {
  Welcome out;
  out.protocol = read_protocol(in.protocol(), check);
  out.gateway = check.name(in.gateway(), "gateway");
  out.incarnation = in.incarnation();
  out.lease = in.lease();
  out.lease_ms = check.in_range(in.lease_ms(), 1, 1 << 30, "lease_ms");
  return out;
}

void write_body(const Heartbeat& in, pb::Frame& frame) {
  auto& out = *frame.mutable_heartbeat();
  out.set_lease(in.lease);
  out.set_number(in.number);
  out.set_draining(in.draining);
  for (const auto& instance : in.instances) write_instance(instance, *out.add_instances());
  for (const auto& link : in.links) {
    auto& entry = *out.add_links();
    entry.set_peer(link.peer);
    entry.set_rtt_s(link.rtt_s);
    entry.set_bytes_per_s(link.bytes_per_s);
  }
  if (in.engine) write_engine_report(*in.engine, *out.mutable_engine());
}
ControlMessage read_body(const pb::Heartbeat& in, Checker& check) {
  Heartbeat out;
  out.lease = in.lease();
  out.number = in.number();
  out.draining = in.draining();
  out.instances = read_instances(in.instances(), check);
  if (check.count(in.links_size(), kMaxLinks, "links"))
    for (const auto& entry : in.links())
      out.links.push_back({check.name(entry.peer(), "link.peer"), check.measure(entry.rtt_s(), "link.rtt_s"),
                           check.measure(entry.bytes_per_s(), "link.bytes_per_s")});
  if (in.has_engine()) out.engine = read_engine_report(in.engine(), check);
  return out;
}

void write_body(const HeartbeatAck& in, pb::Frame& frame) {
  frame.mutable_heartbeat_ack()->set_number(in.number);
}
ControlMessage read_body(const pb::HeartbeatAck& in, Checker&) {
  return HeartbeatAck{in.number()};
}

void write_body(const LoadInstance& in, pb::Frame& frame) {
  auto& out = *frame.mutable_load_instance();
  out.set_id(in.id);
  out.set_model(in.model);
  write_blocks(in.blocks, *out.mutable_blocks());
  out.set_kv_bytes(in.kv_bytes);
  out.set_context_length(static_cast<uint32_t>(in.context_length));
  out.set_load_options(in.load_options);
  for (const auto& peer : in.peers) out.add_peers(peer);
}
ControlMessage read_body(const pb::LoadInstance& in, Checker& check) {
  LoadInstance out;
  out.id = check.name(in.id(), "id");
  out.model = check.name(in.model(), "model");
  out.blocks = read_blocks(in.blocks(), check);
  check.require(out.blocks.size() > 0, "blocks are empty");
  out.kv_bytes = in.kv_bytes();
  out.context_length = check.in_range(in.context_length(), 0, kMaxTokens, "context_length");
  out.load_options = check.text(in.load_options(), kMaxText, "load_options");
  if (check.count(in.peers_size(), kMaxInstances, "peers"))
    for (const auto& peer : in.peers()) out.peers.push_back(check.text(peer, kMaxText, "peer"));
  if (in.role() != pb::ROLE_HYBRID || in.adapters_size() > 0)
    check.fail(unsupported("LoadInstance: roles and adapters are of a later protocol version"));
  return out;
}

void write_body(const UnloadInstance& in, pb::Frame& frame) {
  frame.mutable_unload_instance()->set_id(in.id);
}
ControlMessage read_body(const pb::UnloadInstance& in, Checker& check) {
  return UnloadInstance{check.name(in.id(), "id")};
}

void write_body(const Drain&, pb::Frame& frame) {
  frame.mutable_drain();
}
ControlMessage read_body(const pb::Drain&, Checker&) {
  return Drain{};
}

void write_body(const Goodbye& in, pb::Frame& frame) {
  frame.mutable_goodbye()->set_reason(in.reason.substr(0, kMaxText));
  frame.mutable_goodbye()->set_final(in.final);
}
ControlMessage read_body(const pb::Goodbye& in, Checker& check) {
  return Goodbye{check.text(in.reason(), kMaxText, "reason"), in.final()};
}

void write_body(const ProbePeer& in, pb::Frame& frame) {
  frame.mutable_probe_peer()->set_peer(in.peer);
  frame.mutable_probe_peer()->set_address(in.address);
}
ControlMessage read_body(const pb::ProbePeer& in, Checker& check) {
  return ProbePeer{check.name(in.peer(), "peer"), check.text(in.address(), kMaxText, "address")};
}

template <typename In>
Result<ControlMessage> checked(std::string_view name, const In& in) {
  Checker check(name);
  ControlMessage message = read_body(in, check);
  if (!check.status().ok()) return check.status();
  return message;
}

}  // namespace

void write_blocks(BlockRange blocks, pb::BlockRange& out) {
  out.set_first(static_cast<uint32_t>(blocks.first));
  out.set_last(static_cast<uint32_t>(blocks.last));
}
BlockRange read_blocks(const pb::BlockRange& in, Checker& check) {
  BlockRange out;
  out.first = check.in_range(in.first(), 0, kMaxBlocks, "blocks.first");
  out.last = check.in_range(in.last(), out.first, kMaxBlocks, "blocks.last");
  return out;
}

void write(const ControlMessage& message, pb::Frame& frame) {
  std::visit([&](const auto& m) { write_body(m, frame); }, message);
}

Result<ControlMessage> read_control(const pb::Frame& frame) {
  switch (frame.body_case()) {
    case pb::Frame::kHello:
      return checked("Hello", frame.hello());
    case pb::Frame::kWelcome:
      return checked("Welcome", frame.welcome());
    case pb::Frame::kHeartbeat:
      return checked("Heartbeat", frame.heartbeat());
    case pb::Frame::kHeartbeatAck:
      return checked("HeartbeatAck", frame.heartbeat_ack());
    case pb::Frame::kLoadInstance:
      return checked("LoadInstance", frame.load_instance());
    case pb::Frame::kUnloadInstance:
      return checked("UnloadInstance", frame.unload_instance());
    case pb::Frame::kDrain:
      return checked("Drain", frame.drain());
    case pb::Frame::kGoodbye:
      return checked("Goodbye", frame.goodbye());
    case pb::Frame::kProbePeer:
      return checked("ProbePeer", frame.probe_peer());
    default:
      return corrupt("frame: no control message");
  }
}

}  // namespace tessera::wire::convert
