// The gateway's completer over a local cluster: what `serve`, `run` and `chat` ask.
#pragma once

#include <memory>

#include "api/completer.h"
#include "app/local_cluster.h"

namespace tessera::app {

// Owns the thread that renders templates and tokenises; `local` must outlive it.
class LocalCompleter {
 public:
  explicit LocalCompleter(LocalCluster& local);
  const std::shared_ptr<api::Completer>& get() const { return completer_; }
  void settle() { drain(*prepare_); }  // as LocalCluster's, and before it

 private:
  std::shared_ptr<api::Completer> completer_;
  std::unique_ptr<Executor> prepare_;  // thread "prepare"; ends before the completer
};

}  // namespace tessera::app
