// What messages do to an engine's sequences.
#include <algorithm>

#include "core/prefix_hash.h"
#include "engine/engine_loop.h"

namespace tessera::engine {

void EngineLoop::handle(Posted posted) {
  posted_at_ = posted.at;
  std::visit(
      [this](auto& m) {
        if constexpr (requires { this->on(m); }) on(m);
      },
      posted.message);
}

Sequence* EngineLoop::find(SessionId session, Epoch epoch) {
  auto found = sequences_.find(session);
  return found != sequences_.end() && found->second->epoch == epoch ? found->second.get() : nullptr;
}

void EngineLoop::forget(Sequence& sequence) {
  scheduler_.release(sequence);
  fence_.end(sequence.id, sequence.epoch);
  sequences_.erase(sequence.id);
}

void EngineLoop::fail(Sequence& sequence, Status reason) {
  sink_.send(sequence.gateway, Failed{sequence.id, sequence.epoch, sequence.hop, std::move(reason)});
  forget(sequence);
}

// The session may open again with the next epoch; its full blocks stay cached here.
void EngineLoop::give_up(Sequence& sequence) {
  sink_.send(sequence.gateway, Preempted{sequence.id, sequence.epoch, sequence.hop});
  forget(sequence);
}

void EngineLoop::on(const OpenSession& message) {
  if (fence_.is_stale(message.session, message.epoch)) return;
  auto found = sequences_.find(message.session);
  if (found != sequences_.end() && message.epoch <= found->second->epoch) return;
  if (Status status = open(message); !status.ok()) {
    sink_.send(message.gateway, Refused{message.session, message.epoch, message.hop, std::move(status)});
    return;
  }
  const Sequence& s = *sequences_.at(message.session);
  sink_.send(message.gateway, Opened{message.session, message.epoch, message.hop, s.kv_length,
                                     outputs_.kept_from(s.pages.view(), s.kv_length)});
}

Status EngineLoop::validate(const OpenSession& message) const {
  if (message.tokens == nullptr || message.tokens->empty() || message.route == nullptr)
    return invalid_argument("the session has no tokens or no route");
  const auto length = static_cast<int64_t>(message.tokens->size());
  if (message.prompt_tokens < 1 || message.prompt_tokens > length)
    return invalid_argument("the session's prompt length does not fit its tokens");
  const auto hops = static_cast<int>(message.route->size());
  // Not the request's fault: another route may go on.
  if (message.hop < 0 || message.hop >= hops ||
      (*message.route)[static_cast<size_t>(message.hop)].blocks != range() ||
      is_head_ != (message.hop == 0) || is_tail_ != (message.hop == hops - 1))
    return unavailable("the session's route does not fit blocks " + std::to_string(range().first) + ":" +
                       std::to_string(range().last) + " of this worker");
  if (message.max_length < length ||
      message.max_length < int64_t{message.prompt_tokens} + message.params.max_tokens)
    return invalid_argument("the session's length limit is below its prompt and max_tokens");
  if (message.max_length > options_.context_length)
    return invalid_argument("prompt and max_tokens need " + std::to_string(message.max_length) +
                            " tokens, the context has " + std::to_string(options_.context_length));
  if (message.max_length > scheduler_.capacity_tokens())
    return invalid_argument("prompt and max_tokens need " + std::to_string(message.max_length) +
                            " tokens, the KV cache holds " + std::to_string(scheduler_.capacity_tokens()));
  for (TokenId token : *message.tokens)
    if (token < 0 || token >= spec().vocab)
      return invalid_argument("token " + std::to_string(token) + " is not in the vocabulary");
  return {};
}

Status EngineLoop::open(const OpenSession& message) {
  auto found = sequences_.find(message.session);
  Status valid = validate(message);
  if (found != sequences_.end()) {
    if (valid.ok() && resume(*found->second, message)) return {};
    forget(*found->second);
  }
  TESSERA_RETURN_IF_ERROR(valid);
  return open_anew(message);
}

Status EngineLoop::open_anew(const OpenSession& message) {
  auto sequence = std::make_unique<Sequence>(scheduler_.pool());
  Sequence& s = *sequence;
  s.id = message.session;
  s.epoch = message.epoch;
  s.hop = message.hop;
  s.gateway = message.gateway;
  s.route = message.route;
  s.ticket = message.ticket;
  s.priority = message.priority;
  s.arrival = ++arrivals_;
  s.prompt_tokens = message.prompt_tokens;
  s.opened_tokens = static_cast<int>(message.tokens->size());
  s.max_length = message.max_length;
  s.rope_variant = spec().rope_variant(message.max_length);
  s.tokens = *message.tokens;
  s.may_hit = !message.params.prompt_logprobs;
  s.reuse_prefix = options_.prefix_cache;
  if (s.reuse_prefix) {
    const PrefixExtra extra{identity_, message.salt, s.rope_variant};
    s.hash_root = prefix_root(extra);
    s.hashes = prefix_hashes(s.tokens, extra);
  }
  if (is_tail_) s.sampling.open(message.params, s.tokens, s.prompt_tokens, spec().end_tokens);
  TESSERA_RETURN_IF_ERROR(scheduler_.admit(s));
  counts_.prefix_query_tokens += s.opened_tokens;
  counts_.prefix_hit_tokens += s.kv_length;
  sequences_.emplace(s.id, std::move(sequence));
  return {};
}

// A new epoch of a session that is open here: KV, outputs and sampler are cut to the committed tokens, and
// what is left goes on. False when the old state does not belong to these tokens.
bool EngineLoop::resume(Sequence& s, const OpenSession& message) {
  const std::vector<TokenId>& tokens = *message.tokens;
  const auto length = static_cast<int>(tokens.size());
  const int common = std::min(length, static_cast<int>(s.tokens.size()));
  if (s.hop != message.hop || s.max_length != message.max_length || s.priority != message.priority ||
      s.prompt_tokens != message.prompt_tokens || message.params.prompt_logprobs ||
      !std::equal(tokens.begin(), tokens.begin() + common, s.tokens.begin()))
    return false;
  s.high_water = std::max(s.high_water, std::min(s.kv_length, length));
  const int keep = std::min({s.kv_length, is_tail_ ? length - 1 : length, common});
  if (!scheduler_.truncate(s, keep))
    TESSERA_CHECK(scheduler_.truncate(s, keep / kKvBlockTokens * kKvBlockTokens), "a block boundary");
  s.epoch = message.epoch;
  s.gateway = message.gateway;
  s.route = message.route;
  s.ticket = message.ticket;
  s.tokens = tokens;
  s.hashes.resize(std::min(s.hashes.size(), tokens.size() / kKvBlockTokens));
  s.opened_tokens = length;
  s.input_end = s.kv_length;
  s.started = false;
  s.sample_at_end = false;
  s.hidden.clear();
  s.hidden_begin = 0;
  s.early_rows.clear();
  s.sampling = {};
  if (is_tail_) s.sampling.open(message.params, s.tokens, s.prompt_tokens, spec().end_tokens);
  return true;
}

void EngineLoop::on(const StartSession& message) {
  Sequence* sequence = find(message.session, message.epoch);
  if (sequence == nullptr || sequence->started) return;
  if (Status status = start(*sequence, message); !status.ok()) {
    fail(*sequence, std::move(status));
    return;
  }
  if (!is_tail_ && message.send_from < message.start && !replay(*sequence, message.start)) {
    give_up(*sequence);  // the outputs were evicted since it opened
    return;
  }
  for (Rows& rows : std::exchange(sequence->early_rows, {})) {
    on(rows);
    if (find(message.session, message.epoch) == nullptr) return;
  }
}

Status EngineLoop::start(Sequence& s, const StartSession& message) {
  const auto length = static_cast<int>(s.tokens.size());
  if (message.start < 0 || message.start > s.kv_length || (is_tail_ && message.start >= length) ||
      !scheduler_.truncate(s, message.start))
    return invalid_argument("a session cannot start at token " + std::to_string(message.start) + ": " +
                            std::to_string(s.kv_length) + " are cached");
  if (message.send_from < 0 || message.send_from > length)
    return invalid_argument("a session cannot send from token " + std::to_string(message.send_from));
  s.started = true;
  s.send_from = message.send_from;
  s.input_end = s.kv_length;
  if (is_head_) {
    s.input_end = length;
    s.sample_at_end = s.kv_length < length;
  }
  return {};
}

// Sends kept outputs of [send_from, last) in pieces that leave room for others on the link.
bool EngineLoop::replay(Sequence& s, int last) {
  constexpr int kPieceRows = 64;
  if (outputs_.kept_from(s.pages.view(), last) > s.send_from) return false;
  for (int first = s.send_from; first < last; first += kPieceRows) {
    const int end = std::min(first + kPieceRows, last);
    std::vector<float> hidden;
    if (!outputs_.read(s.pages.view(), first, end, hidden)) return false;
    send_rows(s, first, std::move(hidden), end == static_cast<int>(s.tokens.size()), true);
  }
  counts_.replayed_tokens += last - s.send_from;
  return true;
}

void EngineLoop::on(Rows& message) {
  Sequence* sequence = find(message.session, message.epoch);
  if (sequence == nullptr || message.ticket != sequence->ticket) return;
  if (!sequence->started) {
    // Its way is shorter than the gateway's. A hop sends no row twice, so this is bounded by the length.
    if (std::ssize(sequence->early_rows) < sequence->max_length)
      sequence->early_rows.push_back(std::move(message));
    return;
  }
  start_timing(*sequence);
  if (Status status = accept_rows(*sequence, message); !status.ok()) fail(*sequence, std::move(status));
}

Status EngineLoop::accept_rows(Sequence& s, Rows& rows) {
  const auto count = static_cast<int64_t>(rows.tokens.size());
  const auto hidden_size = static_cast<size_t>(spec().hidden);
  if (is_head_) return invalid_argument("rows were sent to the head of a route");
  if (count == 0 || rows.hidden.size() != rows.tokens.size() * hidden_size)
    return invalid_argument("rows do not have the model's hidden size");
  if (rows.start < 0 || rows.start + count > s.max_length)
    return invalid_argument("rows lie beyond the session's length limit");
  if (rows.start != s.input_end)
    return invalid_argument("rows start at token " + std::to_string(rows.start) + ", expected " +
                            std::to_string(s.input_end));
  for (size_t i = 0; i < rows.tokens.size(); ++i) {
    const size_t position = static_cast<size_t>(rows.start) + i;
    const TokenId token = rows.tokens[i];
    if (token < 0 || token >= spec().vocab || (position < s.tokens.size() && s.tokens[position] != token))
      return invalid_argument("rows carry another token at position " + std::to_string(position));
    if (position >= s.tokens.size()) s.tokens.push_back(token);
  }
  s.hidden.insert(s.hidden.end(), rows.hidden.begin(), rows.hidden.end());
  s.input_end = rows.start + static_cast<int>(count);
  s.sample_at_end = rows.sample;
  return {};
}

void EngineLoop::on(const Token& message) {
  Sequence* sequence = find(message.session, message.epoch);
  if (sequence == nullptr || !is_head_ || is_tail_ || message.ticket != sequence->ticket) return;
  Sequence& s = *sequence;
  start_timing(s);
  const auto length = static_cast<int>(s.tokens.size());
  if (!s.started || message.position < length) return;
  if (message.finish != FinishReason::kNone) {
    forget(s);
    return;
  }
  const TokenId token = message.sampled.token;
  if (message.position > length || length >= s.max_length || token < 0 || token >= spec().vocab) {
    fail(s, invalid_argument("the tail sent a token for position " + std::to_string(message.position) +
                             ", expected " + std::to_string(length)));
    return;
  }
  s.tokens.push_back(token);
  s.input_end = length + 1;
  s.sample_at_end = true;
}

void EngineLoop::on(const CloseSession& message) {
  fence_.end(message.session, message.epoch);
  auto found = sequences_.find(message.session);
  if (found != sequences_.end() && found->second->epoch <= message.epoch) forget(*found->second);
}

void EngineLoop::on(const TraceSteps& message) {
  Sequence* sequence = find(message.session, message.epoch);
  if (sequence == nullptr || message.steps <= 0) return;
  sequence->timer = std::make_unique<StepTimer>();
  sequence->timer->steps_left = message.steps;
}

}  // namespace tessera::engine
