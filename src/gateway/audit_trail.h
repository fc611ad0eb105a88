// AuditTrail: everything that changes something, as the front lets it in, into the audit log.
#pragma once

#include <memory>

#include "base/executor.h"
#include "control/audit.h"
#include "gateway/routes.h"

namespace tessera::gateway {

// Thread-safe. Entries are written on `work`, in the order in which the answers were given. All references
// outlive it, and `work` runs nothing of it any more when it is destroyed.
class AuditTrail {
 public:
  AuditTrail(control::Audit& audit, Executor& work) : audit_(audit), work_(work) {}

  // The call, whose end writes an entry if its route changes something that is administered.
  Call follow(const Route& route, Call call);
  void write(control::AuditEntry entry);

 private:
  control::Audit& audit_;
  Executor& work_;
};

}  // namespace tessera::gateway
