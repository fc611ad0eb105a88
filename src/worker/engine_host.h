// EngineHost: a worker's engine as a named inbox of the transport.
#pragma once

#include <memory>
#include <string>

#include "cluster/transport.h"
#include "engine/engine.h"

namespace tessera::worker {

// Thread-safe. Registers on construction, leaves the transport before the engine stops.
class EngineHost final : public cluster::Inbox {
 public:
  EngineHost(std::string name, std::unique_ptr<engine::Engine> engine, cluster::InboxRegistry& transport);
  ~EngineHost() override;

  bool deliver(Message message) override { return engine_->post(std::move(message)); }
  const std::string& name() const { return name_; }
  engine::Engine& engine() { return *engine_; }

 private:
  const std::string name_;
  const std::unique_ptr<engine::Engine> engine_;
  cluster::InboxRegistry& transport_;
};

}  // namespace tessera::worker
