// StorageWatch: says in /health and in the log when the servers that hold the state are away, and back.
#pragma once

#include <chrono>
#include <memory>
#include <string>

#include "base/executor.h"
#include "obs/health.h"
#include "store/database.h"
#include "store/state.h"

namespace tessera::gateway {

// Asks both again and again, on a thread of its own. All references outlive it.
class StorageWatch {
 public:
  // `database`, `shared`: null for those that lie in this process.
  StorageWatch(store::Database* database, store::State* shared, obs::Health& health,
               std::chrono::milliseconds period = std::chrono::seconds(1));
  ~StorageWatch();

 private:
  void look();
  void tell(const std::string& part, bool& was_ok, const Status& status, const std::string& meaning);

  store::Database* const database_;
  store::State* const shared_;
  obs::Health& health_;
  const std::chrono::milliseconds period_;
  bool database_ok_ = true, shared_ok_ = true;  // as last told
  const std::unique_ptr<Executor> thread_ = make_thread_executor("storage");
};

}  // namespace tessera::gateway
