// Checker: what every run must keep, seen from outside: clients' streams against the undisturbed answer, and
// a tap on the session messages.
#pragma once

#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "cluster/session_manager.h"
#include "sim/reference.h"

namespace tessera::sim {

enum class Outcome { kPending, kDone, kFailed, kCancelled, kRefused };

// One request of one client; a new gateway gets it again from the beginning.
struct ClientRequest {
  int number = 0;
  std::string model;
  cluster::SessionRequest request;
  Answer expected;
  Outcome outcome = Outcome::kPending;
  SessionId session = 0;  // of the running attempt; 0: none
  size_t heard = 0;       // tokens of the running attempt
  int attempts = 0;
};

class Checker {
 public:
  // Errors that a session may end with here; without them every stream must be whole.
  std::set<Code> allowed;

  void violation(const std::string& what);
  const std::vector<std::string>& violations() const { return violations_; }

  // --- the tap ---
  void open_sent(const OpenSession& open, bool to_first_hop);
  void token_sent(const Token& token);  // by a tail, to the gateway
  void token_at_gateway(const Token& token);
  // Rows that hops may have computed beyond what the gateway had committed when it opened anew.
  int64_t recompute_allowance() const { return recompute_allowance_; }
  int64_t reopened() const { return reopened_; }
  Epoch current_epoch(SessionId session) const;

  // --- the clients ---
  void started(ClientRequest& client, SessionId session);
  void heard(ClientRequest& client, SessionId session, const Token& token);
  void failed(ClientRequest& client, SessionId session, const Status& reason);

 private:
  struct Tapped {
    Epoch epoch = 0;
    int last_sent = 0;         // highest position that a tail sent
    std::set<int> legitimate;  // positions that came with the epoch that was then current
    bool ended = false;
  };

  std::vector<std::string> violations_;
  std::map<SessionId, Tapped> sessions_;
  int64_t recompute_allowance_ = 0;
  int64_t reopened_ = 0;
};

}  // namespace tessera::sim
