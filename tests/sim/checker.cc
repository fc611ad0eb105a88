#include "sim/checker.h"

namespace tessera::sim {

void Checker::violation(const std::string& what) {
  constexpr size_t kKept = 8;
  if (violations_.size() < kKept) violations_.push_back(what);
}

void Checker::open_sent(const OpenSession& open, bool to_first_hop) {
  Tapped& tapped = sessions_[open.session];
  if (open.epoch < tapped.epoch) violation("an epoch went back");
  tapped.epoch = open.epoch;
  if (open.epoch <= 1) return;
  if (to_first_hop) ++reopened_;
  // The tail's last token is one row more at every hop. A KV block that such rows filled is shared with the
  // prefix tree and cannot be cut inside: then it is computed again whole.
  const int committed = static_cast<int>(open.tokens->size());
  const int ahead = std::max(0, tapped.last_sent + 1 - committed) + 1;
  const bool filled_a_block = (committed - 1) / kKvBlockTokens != (committed + ahead) / kKvBlockTokens;
  recompute_allowance_ += ahead + (filled_a_block ? kKvBlockTokens : 0);
}

void Checker::token_sent(const Token& token) {
  Tapped& tapped = sessions_[token.session];
  tapped.last_sent = std::max(tapped.last_sent, token.position);
}

void Checker::token_at_gateway(const Token& token) {
  Tapped& tapped = sessions_[token.session];
  if (token.epoch == tapped.epoch) tapped.legitimate.insert(token.position);
}

Epoch Checker::current_epoch(SessionId session) const {
  auto found = sessions_.find(session);
  return found == sessions_.end() ? 0 : found->second.epoch;
}

void Checker::started(ClientRequest& client, SessionId session) {
  client.session = session;
  client.heard = 0;
  ++client.attempts;
}

void Checker::heard(ClientRequest& client, SessionId session, const Token& token) {
  const std::string who = "request " + std::to_string(client.number) + " (session " +
                          std::to_string(session) + "), position " + std::to_string(token.position) + ": ";
  if (client.session != session || client.outcome != Outcome::kPending) {
    violation(who + "a token after the end");
    return;
  }
  const int expected_position = static_cast<int>(client.request.prompt.size() + client.heard);
  if (token.position != expected_position)
    violation(who + "expected position " + std::to_string(expected_position) + " (I2)");
  if (sessions_[session].legitimate.count(token.position) == 0)
    violation(who + "heard from an epoch that was over (I5)");
  if (client.heard >= client.expected.tokens.size()) {
    violation(who + "more tokens than the undisturbed answer has (I1)");
    return;
  }
  const SampledToken& expected = client.expected.tokens[client.heard];
  if (token.sampled.token != expected.token)
    violation(who + "token " + std::to_string(token.sampled.token) + ", expected " +
              std::to_string(expected.token) + " (I1)");
  if (token.sampled.has_logprobs != expected.has_logprobs ||
      token.sampled.logprobs.logprob != expected.logprobs.logprob)
    violation(who + "other log-probabilities (I1)");
  if (client.request.params.prompt_logprobs && client.heard == 0 &&
      token.prompt_logprobs.size() != client.request.prompt.size())
    violation(who + "the prompt's scores are missing");
  ++client.heard;
  const bool is_last = client.heard == client.expected.tokens.size();
  if (token.finish != (is_last ? client.expected.finish : FinishReason::kNone))
    violation(who + "finish reason differs");
  if (token.finish != FinishReason::kNone) client.outcome = Outcome::kDone;
}

void Checker::failed(ClientRequest& client, SessionId session, const Status& reason) {
  if (client.session != session || client.outcome != Outcome::kPending) {
    violation("request " + std::to_string(client.number) + " failed after its end");
    return;
  }
  client.outcome = Outcome::kFailed;
  if (allowed.count(reason.code()) == 0)
    violation("request " + std::to_string(client.number) + " ended with " + reason.to_string());
  if (reason.message().empty()) violation("an error without a reason");
}

}  // namespace tessera::sim
