// Loads an OpenAI-compatible server the way clients do: open loop (arrivals at a rate), closed loop (N
// clients), or a trace of conversations.
#pragma once

#include <string>

#include "base/config.h"

namespace tessera::app {

struct LoadOptions {
  std::string url;
  std::string api_key;
  std::string served_model;
  std::optional<double> rate;
  int clients = 1;
  int requests = 64;
  int input_tokens = 128;
  int output_tokens = 128;
  std::string trace;
  double ttft_limit_ms = 0;
  double gap_limit_ms = 0;
  template <typename V>
  void fields(V& v) {
    v("url", url, "load this server instead, e.g. http://127.0.0.1:8080");
    v("bearer", api_key, "API key of that server");
    v("served-model", served_model, "name of the model to ask for; default: the server's first");
    v("rate", rate, "requests a second, arriving at random (Poisson)");
    v("clients", clients, "without --rate: clients that each ask again as soon as they are answered");
    v("requests", requests, "how many requests in all");
    v("input", input_tokens, "prompt length: random token ids where the server takes them");
    v("output", output_tokens, "tokens to generate");
    v("trace", trace,
      "JSON lines, one a turn: {\"client\",\"shared\",\"new\",\"out\"}; a client's turns follow each other");
    v("ttft-limit-ms", ttft_limit_ms, "goodput counts requests with a first token within this; 0 = no limit");
    v("gap-limit-ms", gap_limit_ms, "… and a mean gap between tokens within this; 0 = no limit");
  }
};

// Exit status: 1 when a request failed.
int run_load(const LoadOptions& options, bool json);

}  // namespace tessera::app
