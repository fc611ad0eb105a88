// Asking a running gateway from the terminal.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "base/json.h"

namespace tessera::app {

struct ClusterOptions {
  std::string gateway;
  std::string api_key;
  bool json = false;
  template <typename V>
  void fields(V& v) {
    v("gateway", gateway, "URL of the gateway; default: the one whose state lies in TESSERA_HOME");
    v("api-key", api_key, "its API key");
    v("json", json, "for scripts");
  }
};

// The answer's JSON; an error carries the gateway's own sentence. `body` null: none.
Result<Json> ask_gateway(const ClusterOptions& options, const std::string& method, const std::string& path,
                         const Json& body = Json());

// A field of an answer; empty where it is missing, null or no text.
std::string text_at(const Json& object, const char* name);
// For --json: one line on stdout; kDone.
int print_json(const Json& json);

}  // namespace tessera::app
