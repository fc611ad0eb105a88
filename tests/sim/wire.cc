#include "sim/wire.h"

namespace tessera::sim {
namespace {

Epoch epoch_of(const Message& message) {
  return std::visit([](const auto& m) { return m.epoch; }, message);
}

bool is_to_hop(const Message& message) {
  return std::holds_alternative<OpenSession>(message) || std::holds_alternative<StartSession>(message) ||
         std::holds_alternative<Rows>(message) || std::holds_alternative<Token>(message);
}

uint64_t detail_of(const Message& message) {
  if (const auto* token = std::get_if<Token>(&message))
    return static_cast<uint64_t>(token->position) << 32 | static_cast<uint32_t>(token->sampled.token);
  if (const auto* rows = std::get_if<Rows>(&message))
    return static_cast<uint64_t>(rows->start) << 32 | rows->tokens.size();
  if (const auto* start = std::get_if<StartSession>(&message))
    return static_cast<uint64_t>(start->start) << 32 | static_cast<uint32_t>(start->send_from);
  return 0;
}

}  // namespace

size_t bytes_of(const Message& message) {
  size_t bytes = 96;
  if (const auto* open = std::get_if<OpenSession>(&message))
    bytes += open->tokens->size() * sizeof(TokenId) + open->route->size() * 64;
  if (const auto* rows = std::get_if<Rows>(&message))
    bytes += rows->tokens.size() * sizeof(TokenId) + rows->hidden.size() * sizeof(float);
  return bytes;
}

Wire::Wire(World& world, ProcessRef process, Receiver receive)
    : world_(world), process_(std::move(process)), receive_(std::move(receive)) {
  world_.wires[process_->node] = this;
}

Wire::~Wire() {
  auto found = world_.wires.find(process_->node);
  if (found != world_.wires.end() && found->second == this) world_.wires.erase(found);
}

void Wire::send(const std::string& to, Message message) {
  if (!process_->alive) return;
  if (const auto* open = std::get_if<OpenSession>(&message)) {
    gateways_[open->session] = open->gateway;
    world_.checker.open_sent(*open, open->hop == 0);
  }
  const std::string node = node_of(to);
  if (const auto* token = std::get_if<Token>(&message);
      token != nullptr && node == kGatewayNode && token->ticket != kForgedTicket)
    world_.checker.token_sent(*token);
  if (node == process_->node) {
    // Within a process there is no network, but still no call from within a call.
    world_.queue.after(Time(0), process_, [this, to, message = std::move(message)] { arrive(to, message); });
    return;
  }
  const auto shared = std::make_shared<const Message>(std::move(message));
  world_.net.send(
      process_, node, kDataChannel, bytes_of(*shared),
      [&world = world_, node, to, shared] { world.wires.at(node)->arrive(to, *shared); },
      [this, to, shared] { report_lost(to, *shared); });
}

void Wire::arrive(const std::string& inbox, Message message) {
  world_.trace.add(static_cast<uint64_t>(world_.queue.now().count()));
  world_.trace.add(inbox);
  world_.trace.add(message.index());
  world_.trace.add(session_of(message));
  world_.trace.add(epoch_of(message));
  world_.trace.add(detail_of(message));
  if (const auto* token = std::get_if<Token>(&message);
      token != nullptr && process_->node == kGatewayNode && token->ticket != kForgedTicket)
    world_.checker.token_at_gateway(*token);
  if (!world_.mutation.door) {
    take(inbox, std::move(message));
    return;
  }
  std::vector<Message> out;
  world_.mutation.door(inbox, std::move(message), out);
  for (Message& changed : out) take(inbox, std::move(changed));
}

void Wire::take(const std::string& inbox, Message message) {
  if (const auto* open = std::get_if<OpenSession>(&message)) gateways_[open->session] = open->gateway;
  if (receive_(inbox, message)) return;
  refuse(inbox, message);
}

std::string Wire::gateway_of(const Message& message) const {
  auto found = gateways_.find(session_of(message));
  return found == gateways_.end() ? std::string() : found->second;
}

void Wire::refuse(const std::string& inbox, const Message& message) {
  const std::string gateway = gateway_of(message);
  if (gateway.empty() || !is_to_hop(message)) return;
  if (const auto* open = std::get_if<OpenSession>(&message))
    send(gateway,
         Refused{open->session, open->epoch, open->hop, unavailable(inbox + " is not hosted here any more")});
  else
    send(gateway, Failed{session_of(message), epoch_of(message), -1,
                         unavailable(inbox + " does not take messages"), inbox});
}

void Wire::report_lost(const std::string& to, const Message& message) {
  const std::string gateway = gateway_of(message);
  const bool matters = is_to_hop(message) || std::holds_alternative<CloseSession>(message);
  if (gateway.empty() || gateway == to || !matters) return;
  send(gateway,
       Failed{session_of(message), epoch_of(message), -1, unavailable(to + " cannot be reached"), to});
}

}  // namespace tessera::sim
