// How `status`, `plan`, `drain` … find the gateway whose state lies in TESSERA_HOME.
#pragma once

#include <string>

#include "base/status.h"

namespace tessera::app {

struct GatewayAddress {
  std::string url;
  std::string api_key;  // empty: open
};
// $TESSERA_HOME/state/gateway.json, for the owner's eyes only.
Status write_gateway_file(const GatewayAddress& address);
// NotFound says how to name one.
Result<GatewayAddress> read_gateway_file();

}  // namespace tessera::app
