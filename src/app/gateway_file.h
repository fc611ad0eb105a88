// How `status`, `plan`, `drain` … find the gateway whose state lies in TESSERA_HOME.
#pragma once

#include <string>

#include "base/status.h"

namespace tessera::app {

struct GatewayAddress {
  std::string url;
  std::string api_key;  // the administrator's
};
// The administrator's key of the gateway whose state lies in TESSERA_HOME: drawn at its first start, kept in
// gateway.json.
Result<std::string> keep_admin_key();
// $TESSERA_HOME/state/gateway.json, for the owner's eyes only.
Status write_gateway_file(const GatewayAddress& address);
// The same at a start: a warning in the log where it cannot be written.
void publish_gateway(const std::string& url, const std::string& admin_key);
// NotFound says how to name one.
Result<GatewayAddress> read_gateway_file();

}  // namespace tessera::app
