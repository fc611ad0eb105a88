#include <algorithm>
#include <limits>

#include "wire/codec_convert.h"
#include "wire/row_codec.h"

namespace tessera::wire::convert {
namespace {

void write_status(const tessera::Status& status, pb::Status& out) {
  out.set_code(static_cast<pb::StatusCode>(status.code()));
  out.set_message(status.message().substr(0, kMaxText));
}

tessera::Status read_status(const pb::Status& in, Checker& check) {
  const Code code = check.enumeration(in.code(), Code::kInternal, "reason.code");
  check.require(code != Code::kOk, "reason is no error");
  return {code, check.text(in.message(), kMaxText, "reason.message")};
}

TokenId read_token(uint32_t value, Checker& check, std::string_view field) {
  return check.in_range(value, 0, kMaxVocab - 1, field);
}

template <typename Repeated>
std::vector<TokenId> read_tokens(const Repeated& in, int most, Checker& check, std::string_view field) {
  std::vector<TokenId> tokens;
  if (!check.count(in.size(), most, field)) return tokens;
  tokens.reserve(static_cast<size_t>(in.size()));
  for (uint32_t token : in) tokens.push_back(read_token(token, check, field));
  return tokens;
}

// session, epoch, hop: at the head of every message, most have no more.
template <typename In, typename Out>
void write_ids(const In& in, Out& out) {
  out.set_session(in.session);
  out.set_epoch(in.epoch);
}
template <typename Out, typename In>
Out read_ids(const In& in) {
  Out out;
  out.session = in.session();
  out.epoch = in.epoch();
  return out;
}
template <typename In>
int read_hop(const In& in, Checker& check) {
  return check.in_range(in.hop(), 0, kMaxHops - 1, "hop");
}

}  // namespace

void write_params(const SamplingParams& in, pb::SamplingParams& out) {
  out.set_temperature(in.temperature);
  out.set_top_k(static_cast<uint32_t>(in.top_k));
  out.set_top_p(in.top_p);
  out.set_min_p(in.min_p);
  out.set_repetition_penalty(in.repetition_penalty);
  out.set_presence_penalty(in.presence_penalty);
  out.set_frequency_penalty(in.frequency_penalty);
  for (const auto& [token, bias] : in.logit_bias) {
    auto& entry = *out.add_logit_bias();
    entry.set_token(static_cast<uint32_t>(token));
    entry.set_bias(bias);
  }
  out.set_seed(in.seed);
  out.set_choice(in.choice);
  out.set_max_tokens(static_cast<uint32_t>(in.max_tokens));
  out.set_min_tokens(static_cast<uint32_t>(in.min_tokens));
  out.set_ignore_eos(in.ignore_eos);
  for (TokenId token : in.stop_token_ids) out.add_stop_token_ids(static_cast<uint32_t>(token));
  out.set_top_logprobs(in.top_logprobs);
  out.set_prompt_logprobs(in.prompt_logprobs);
}

SamplingParams read_params(const pb::SamplingParams& in, Checker& check) {
  SamplingParams out;
  out.temperature = check.finite(in.temperature(), "temperature");
  check.require(out.temperature >= 0, "temperature is negative");
  out.top_k = check.in_range(in.top_k(), 0, kMaxVocab, "top_k");
  out.top_p = check.finite(in.top_p(), "top_p");
  out.min_p = check.finite(in.min_p(), "min_p");
  check.require(out.top_p >= 0 && out.top_p <= 1 && out.min_p >= 0 && out.min_p <= 1,
                "top_p or min_p is no probability");
  out.repetition_penalty = check.finite(in.repetition_penalty(), "repetition_penalty");
  check.require(out.repetition_penalty > 0, "repetition_penalty is not positive");
  out.presence_penalty = check.finite(in.presence_penalty(), "presence_penalty");
  out.frequency_penalty = check.finite(in.frequency_penalty(), "frequency_penalty");
  if (check.count(in.logit_bias_size(), kMaxVocab, "logit_bias"))
    for (const auto& entry : in.logit_bias())
      out.logit_bias.emplace_back(read_token(entry.token(), check, "logit_bias.token"),
                                  check.finite(entry.bias(), "logit_bias.bias"));
  out.seed = in.seed();
  out.choice = in.choice();
  out.max_tokens = check.in_range(in.max_tokens(), 0, kMaxTokens, "max_tokens");
  out.min_tokens = check.in_range(in.min_tokens(), 0, kMaxTokens, "min_tokens");
  out.ignore_eos = in.ignore_eos();
  out.stop_token_ids = read_tokens(in.stop_token_ids(), kMaxVocab, check, "stop_token_ids");
  out.top_logprobs = check.signed_in_range(in.top_logprobs(), -1, kMaxTopLogprobs, "top_logprobs");
  out.prompt_logprobs = in.prompt_logprobs();
  return out;
}

namespace {

void write_sampled(const SampledToken& in, pb::SampledToken& out) {
  out.set_token(in.token);
  out.set_has_logprobs(in.has_logprobs);
  out.set_logprob(in.logprobs.logprob);
  for (const auto& [token, logprob] : in.logprobs.top) {
    auto& entry = *out.add_top();
    entry.set_token(static_cast<uint32_t>(token));
    entry.set_logprob(logprob);
  }
}

SampledToken read_sampled(const pb::SampledToken& in, Checker& check) {
  SampledToken out;
  out.token = check.signed_in_range(in.token(), -1, kMaxVocab - 1, "sampled.token");
  out.has_logprobs = in.has_logprobs();
  out.logprobs.logprob = in.logprob();  // minus infinity is a fair answer, NaN is none
  check.require(!std::isnan(in.logprob()), "logprob is not a number");
  if (check.count(in.top_size(), kMaxTopLogprobs, "sampled.top"))
    for (const auto& entry : in.top()) {
      check.require(!std::isnan(entry.logprob()), "logprob is not a number");
      out.logprobs.top.emplace_back(read_token(entry.token(), check, "top.token"), entry.logprob());
    }
  return out;
}

void write_body(const OpenSession& in, pb::Frame& frame) {
  auto& out = *frame.mutable_open_session();
  write_ids(in, out);
  out.set_gateway(in.gateway);
  if (in.route != nullptr)
    for (const Hop& hop : *in.route) {
      auto& entry = *out.add_route();
      entry.set_worker(hop.worker);
      write_blocks(hop.blocks, *entry.mutable_blocks());
      entry.set_encoding(static_cast<pb::RowEncoding>(hop.encoding));
      entry.set_address(hop.address);
    }
  out.set_hop(static_cast<uint32_t>(in.hop));
  if (in.tokens != nullptr) out.mutable_tokens()->Add(in.tokens->begin(), in.tokens->end());
  out.set_prompt_tokens(static_cast<uint32_t>(in.prompt_tokens));
  out.set_max_length(static_cast<uint32_t>(in.max_length));
  write_params(in.params, *out.mutable_params());
  out.set_salt(in.salt);
  out.set_priority(in.priority);
  out.set_ticket(in.ticket);
  out.set_traceparent(in.traceparent);
}

std::shared_ptr<const Route> read_route(const pb::OpenSession& in, Checker& check) {
  auto route = std::make_shared<Route>();
  if (!check.count(in.route_size(), kMaxHops, "route")) return route;
  int next = 0;
  for (const auto& entry : in.route()) {
    Hop hop;
    hop.worker = check.name(entry.worker(), "route.worker");
    hop.blocks = read_blocks(entry.blocks(), check);
    check.require(hop.blocks.first == next && hop.blocks.size() > 0,
                  "the route's ranges do not follow each other");
    next = hop.blocks.last;
    hop.encoding = check.enumeration(entry.encoding(), RowEncoding::kFp8, "route.encoding");
    hop.address = check.text(entry.address(), kMaxText, "route.address");
    route->push_back(std::move(hop));
  }
  return route;
}

Message read_body(const pb::OpenSession& in, Checker& check) {
  auto out = read_ids<OpenSession>(in);
  out.gateway = check.name(in.gateway(), "gateway");
  out.route = read_route(in, check);
  out.hop = check.in_range(in.hop(), 0, static_cast<int>(out.route->size()) - 1, "hop");
  auto tokens = read_tokens(in.tokens(), kMaxTokens, check, "tokens");
  check.require(!tokens.empty(), "tokens are missing");
  out.prompt_tokens = check.in_range(in.prompt_tokens(), 1, static_cast<int>(tokens.size()), "prompt_tokens");
  out.max_length = check.in_range(in.max_length(), static_cast<int>(tokens.size()), kMaxTokens, "max_length");
  out.tokens = std::make_shared<const std::vector<TokenId>>(std::move(tokens));
  out.params = read_params(in.params(), check);
  out.salt = check.text(in.salt(), kMaxName, "salt");
  out.priority = in.priority();
  out.ticket = in.ticket();
  out.traceparent = check.text(in.traceparent(), kMaxName, "traceparent");
  if (!in.adapter().empty() || in.media_size() > 0)
    check.fail(unsupported("OpenSession: adapters and media are of a later protocol version"));
  return out;
}

void write_body(const StartSession& in, pb::Frame& frame) {
  auto& out = *frame.mutable_start_session();
  write_ids(in, out);
  out.set_start(static_cast<uint32_t>(in.start));
  out.set_send_from(static_cast<uint32_t>(in.send_from));
}

Message read_body(const pb::StartSession& in, Checker& check) {
  auto out = read_ids<StartSession>(in);
  out.start = check.in_range(in.start(), 0, kMaxTokens, "start");
  out.send_from = check.in_range(in.send_from(), 0, kMaxTokens, "send_from");
  return out;
}

void write_body(const Rows& in, pb::Frame& frame) {
  auto& out = *frame.mutable_rows();
  write_ids(in, out);
  out.set_start(static_cast<uint32_t>(in.start));
  out.mutable_tokens()->Add(in.tokens.begin(), in.tokens.end());
  if (!in.tokens.empty()) out.set_hidden_size(static_cast<uint32_t>(in.hidden.size() / in.tokens.size()));
  out.set_sample(in.sample);
  out.set_replay(in.replay);
  out.set_encoding(static_cast<pb::RowEncoding>(in.encoding));
  out.set_ticket(in.ticket);
}

Result<Message> read_rows(const pb::Rows& in, std::span<const uint8_t> payload) {
  Checker check("Rows");
  auto out = read_ids<Rows>(in);
  out.start = check.in_range(in.start(), 0, kMaxTokens, "start");
  out.tokens = read_tokens(in.tokens(), kMaxRows, check, "tokens");
  const int hidden_size = check.in_range(in.hidden_size(), 0, kMaxHiddenSize, "hidden_size");
  out.sample = in.sample();
  out.replay = in.replay();
  out.encoding = check.enumeration(in.encoding(), RowEncoding::kFp8, "encoding");
  out.ticket = in.ticket();
  if (in.parents_size() + in.positions_size() + in.auxiliary_size() > 0 || !in.tree_mask().empty())
    check.fail(unsupported("Rows: trees and auxiliary tensors are of a later protocol version"));
  if (!check.status().ok()) return check.status();
  auto hidden = decode_rows(out.encoding, payload, out.tokens.size(), static_cast<uint64_t>(hidden_size));
  if (!hidden.ok()) return hidden.status().with_context("Rows");
  out.hidden = *std::move(hidden);
  return Message(std::move(out));
}

void write_body(const Token& in, pb::Frame& frame) {
  auto& out = *frame.mutable_token();
  write_ids(in, out);
  out.set_position(static_cast<uint32_t>(in.position));
  write_sampled(in.sampled, *out.mutable_sampled());
  out.set_finish(static_cast<pb::FinishReason>(in.finish));
  for (const auto& entry : in.prompt_logprobs) write_sampled(entry, *out.add_prompt_logprobs());
  out.set_ticket(in.ticket);
}

Message read_body(const pb::Token& in, Checker& check) {
  auto out = read_ids<Token>(in);
  out.position = check.in_range(in.position(), 0, kMaxTokens, "position");
  out.sampled = read_sampled(in.sampled(), check);
  out.finish = check.enumeration(in.finish(), FinishReason::kError, "finish");
  if (check.count(in.prompt_logprobs_size(), kMaxTokens, "prompt_logprobs"))
    for (const auto& entry : in.prompt_logprobs()) out.prompt_logprobs.push_back(read_sampled(entry, check));
  out.ticket = in.ticket();
  if (in.draft_size() + in.draft_parents_size() > 0)
    check.fail(unsupported("Token: drafts are of a later protocol version"));
  return out;
}

void write_body(const CloseSession& in, pb::Frame& frame) {
  write_ids(in, *frame.mutable_close_session());
}
Message read_body(const pb::CloseSession& in, Checker&) {
  return read_ids<CloseSession>(in);
}

void write_body(const Opened& in, pb::Frame& frame) {
  auto& out = *frame.mutable_opened();
  write_ids(in, out);
  out.set_hop(static_cast<uint32_t>(in.hop));
  out.set_cached_tokens(static_cast<uint32_t>(in.cached_tokens));
  out.set_outputs_from(static_cast<uint32_t>(in.outputs_from));
}
Message read_body(const pb::Opened& in, Checker& check) {
  auto out = read_ids<Opened>(in);
  out.hop = read_hop(in, check);
  out.cached_tokens = check.in_range(in.cached_tokens(), 0, kMaxTokens, "cached_tokens");
  out.outputs_from = check.in_range(in.outputs_from(), 0, kMaxTokens, "outputs_from");
  return out;
}

void write_body(const Refused& in, pb::Frame& frame) {
  auto& out = *frame.mutable_refused();
  write_ids(in, out);
  out.set_hop(static_cast<uint32_t>(in.hop));
  write_status(in.reason, *out.mutable_reason());
}
Message read_body(const pb::Refused& in, Checker& check) {
  auto out = read_ids<Refused>(in);
  out.hop = read_hop(in, check);
  out.reason = read_status(in.reason(), check);
  return out;
}

void write_body(const Preempted& in, pb::Frame& frame) {
  auto& out = *frame.mutable_preempted();
  write_ids(in, out);
  out.set_hop(static_cast<uint32_t>(in.hop));
}
Message read_body(const pb::Preempted& in, Checker& check) {
  auto out = read_ids<Preempted>(in);
  out.hop = read_hop(in, check);
  return out;
}

void write_body(const Failed& in, pb::Frame& frame) {
  auto& out = *frame.mutable_failed();
  write_ids(in, out);
  out.set_hop(static_cast<uint32_t>(in.hop));
  write_status(in.reason, *out.mutable_reason());
  out.set_peer(in.peer);
}
Message read_body(const pb::Failed& in, Checker& check) {
  auto out = read_ids<Failed>(in);
  out.hop = read_hop(in, check);
  out.reason = read_status(in.reason(), check);
  out.peer = check.text(in.peer(), kMaxName, "peer");
  return out;
}

void write_body(const TraceSteps& in, pb::Frame& frame) {
  auto& out = *frame.mutable_trace_steps();
  write_ids(in, out);
  out.set_steps(static_cast<uint32_t>(in.steps));
}
Message read_body(const pb::TraceSteps& in, Checker& check) {
  auto out = read_ids<TraceSteps>(in);
  out.steps = check.in_range(in.steps(), 0, kMaxTokens, "steps");
  return out;
}

constexpr int64_t kMaxMicroseconds = std::numeric_limits<int32_t>::max();  // half an hour

uint64_t clamped_us(int64_t microseconds) {
  return static_cast<uint64_t>(std::clamp<int64_t>(microseconds, 0, kMaxMicroseconds));
}

void write_body(const StepTrace& in, pb::Frame& frame) {
  auto& out = *frame.mutable_step_trace();
  write_ids(in, out);
  out.set_hop(static_cast<uint32_t>(in.hop));
  out.set_position(static_cast<uint32_t>(in.position));
  out.set_rows(static_cast<uint32_t>(in.rows));
  out.set_batch_rows(static_cast<uint32_t>(in.batch_rows));
  out.set_wake_us(clamped_us(in.wake_us));
  out.set_queue_us(clamped_us(in.queue_us));
  out.set_compute_us(clamped_us(in.compute_us));
  out.set_send_us(clamped_us(in.send_us));
}
Message read_body(const pb::StepTrace& in, Checker& check) {
  auto out = read_ids<StepTrace>(in);
  out.hop = read_hop(in, check);
  out.position = check.in_range(in.position(), 0, kMaxTokens, "position");
  out.rows = check.in_range(in.rows(), 0, kMaxTokens, "rows");
  out.batch_rows = check.in_range(in.batch_rows(), 0, kMaxTokens, "batch_rows");
  out.wake_us = check.in_range(in.wake_us(), 0, kMaxMicroseconds, "wake_us");
  out.queue_us = check.in_range(in.queue_us(), 0, kMaxMicroseconds, "queue_us");
  out.compute_us = check.in_range(in.compute_us(), 0, kMaxMicroseconds, "compute_us");
  out.send_us = check.in_range(in.send_us(), 0, kMaxMicroseconds, "send_us");
  return out;
}

template <typename In>
Result<Message> checked(std::string_view name, const In& in) {
  Checker check(name);
  Message message = read_body(in, check);
  if (!check.status().ok()) return check.status();
  return message;
}

}  // namespace

void write(const Message& message, pb::Frame& frame) {
  std::visit([&](const auto& m) { write_body(m, frame); }, message);
}

Result<Message> read_session(const pb::Frame& frame, std::span<const uint8_t> payload) {
  switch (frame.body_case()) {
    case pb::Frame::kOpenSession:
      return checked("OpenSession", frame.open_session());
    case pb::Frame::kStartSession:
      return checked("StartSession", frame.start_session());
    case pb::Frame::kRows:
      return read_rows(frame.rows(), payload);
    case pb::Frame::kToken:
      return checked("Token", frame.token());
    case pb::Frame::kCloseSession:
      return checked("CloseSession", frame.close_session());
    case pb::Frame::kOpened:
      return checked("Opened", frame.opened());
    case pb::Frame::kRefused:
      return checked("Refused", frame.refused());
    case pb::Frame::kPreempted:
      return checked("Preempted", frame.preempted());
    case pb::Frame::kFailed:
      return checked("Failed", frame.failed());
    case pb::Frame::kTraceSteps:
      return checked("TraceSteps", frame.trace_steps());
    case pb::Frame::kStepTrace:
      return checked("StepTrace", frame.step_trace());
    default:
      return corrupt("frame: no session message");
  }
}

}  // namespace tessera::wire::convert
