// A worker process that stands for another engine: joins like every worker, keeps its stream to the gateway,
// and answers whole requests that come on it. No data port: it is reached through that stream alone.
#pragma once

#include <memory>

#include "worker/external/external_engine.h"
#include "worker/node.h"

namespace tessera::worker::external {

struct ExternalNodeOptions {
  std::string join;  // tessera://HOST:PORT[,HOST:PORT…]/TOKEN
  std::string name;  // wanted; empty: after the host
  std::filesystem::path home;
  std::string version;
  ExternalEngineOptions engine;
};

// As Node::start.
Result<std::unique_ptr<Node>> start_external_node(ExternalNodeOptions options);

}  // namespace tessera::worker::external
