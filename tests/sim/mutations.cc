#include "sim/mutations.h"

namespace tessera::sim {
namespace {

using Out = std::vector<Message>;

// A change to every message of one kind: `change` returns whether the message is still delivered.
template <typename Kind>
Mutation changing(std::function<bool(const std::string& to, Kind& message)> change) {
  Mutation mutation;
  mutation.door = [change = std::move(change)](const std::string& to, Message message, Out& out) {
    if (auto* kind = std::get_if<Kind>(&message); kind != nullptr && !change(to, *kind)) return;
    out.push_back(std::move(message));
  };
  return mutation;
}

bool is_gateway(const std::string& inbox) {
  return node_of(inbox) == kGatewayNode;
}

// A token of the route before comes late and is taken for the first one of the new route.
Mutation no_epoch_check() {
  auto last = std::make_shared<std::map<SessionId, Token>>();
  Mutation mutation;
  mutation.door = [last](const std::string& to, Message message, Out& out) {
    if (const auto* token = std::get_if<Token>(&message); token != nullptr && is_gateway(to)) {
      auto before = last->find(token->session);
      if (before != last->end() && before->second.epoch < token->epoch) {
        Token stale = before->second;
        stale.epoch = token->epoch;
        stale.position = token->position;
        out.push_back(stale);
      }
      (*last)[token->session] = *token;
    }
    out.push_back(std::move(message));
  };
  return mutation;
}

Mutation repeat_token() {
  Mutation mutation;
  mutation.stream = [](const Token& token, std::vector<Token>& out) {
    out.assign(token.position % 10 == 7 ? 2 : 1, token);
  };
  return mutation;
}

Mutation skip_position() {
  Mutation mutation;
  mutation.stream = [](const Token& token, std::vector<Token>& out) {
    if (token.position % 10 != 7) out.push_back(token);
  };
  return mutation;
}

std::vector<NamedMutation> make_mutations() {
  std::vector<NamedMutation> all;
  all.push_back({"drop-replay", "crash",
                 [] { return changing<Rows>([](const std::string&, Rows& rows) { return !rows.replay; }); }});
  all.push_back({"wrong-replay", "crash", [] {
                   return changing<Rows>([](const std::string&, Rows& rows) {
                     if (rows.replay) rows.hidden.back() += 1;
                     return true;
                   });
                 }});
  all.push_back({"no-epoch-check", "pause", no_epoch_check});
  all.push_back({"repeat-token", "calm", repeat_token});
  all.push_back({"skip-position", "calm", skip_position});
  all.push_back({"lose-token", "calm", [] {
                   return changing<Token>([](const std::string& to, Token& token) {
                     return !is_gateway(to) || token.position % 16 != 9;
                   });
                 }});
  all.push_back({"other-token", "calm", [] {
                   return changing<Token>([](const std::string& to, Token& token) {
                     if (is_gateway(to) && token.position % 16 == 9) token.sampled.token ^= 1;
                     return true;
                   });
                 }});
  all.push_back({"no-logprobs", "calm", [] {
                   return changing<Token>([](const std::string&, Token& token) {
                     token.sampled.has_logprobs = false;
                     return true;
                   });
                 }});
  all.push_back({"drop-close", "cancel", [] {
                   return changing<CloseSession>([](const std::string&, CloseSession&) { return false; });
                 }});
  all.push_back({"drop-failure", "blips",
                 [] { return changing<Failed>([](const std::string&, Failed&) { return false; }); }});
  all.push_back({"forget-kept-kv", "crash", [] {
                   return changing<StartSession>([](const std::string&, StartSession& start) {
                     start.start = start.start / (2 * kKvBlockTokens) * kKvBlockTokens;
                     return true;
                   });
                 }});
  all.push_back({"drop-preempted", "tiny-kv",
                 [] { return changing<Preempted>([](const std::string&, Preempted&) { return false; }); }});
  return all;
}

}  // namespace

const std::vector<NamedMutation>& mutations() {
  static const std::vector<NamedMutation> all = make_mutations();
  return all;
}

}  // namespace tessera::sim
