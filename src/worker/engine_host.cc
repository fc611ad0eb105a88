#include "worker/engine_host.h"

namespace tessera::worker {

EngineHost::EngineHost(std::string name, std::unique_ptr<engine::Engine> engine,
                       cluster::InboxRegistry& transport)
    : name_(std::move(name)), engine_(std::move(engine)), transport_(transport) {
  transport_.add(name_, *this);
  engine_->start();
}

EngineHost::~EngineHost() {
  transport_.remove(name_);
  engine_->stop();
}

}  // namespace tessera::worker
