// Requests to an engine beside completions: is it there, what does it serve, what can it do.
#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/status.h"
#include "net/http_client.h"
#include "worker/external/load_figures.h"
#include "worker/external/profile.h"

namespace tessera::worker::external {

struct EngineAddress {
  std::string base;     // of net::api_base(): "http://127.0.0.1:8000"
  std::string api_key;  // of the engine; may be empty
  std::string ca_file;  // for https; empty: the system's
};

// What was found out about an engine that answers.
struct EngineProbe {
  std::string version;
  std::vector<EngineModel> models;
  EngineFeatures features = 0;        // probed and documented
  std::vector<std::string> refusals;  // what it said to the probes that it failed, for the log
};

// One thread; waits.
class EngineHttp {
 public:
  EngineHttp(EngineAddress address, const EngineProfile& profile,
             std::shared_ptr<net::HttpCanceller> canceller);

  // ok when the engine serves; else one sentence.
  Status health();
  Result<std::vector<EngineModel>> models();
  std::string version();  // empty: it does not say
  LoadFigures load();     // all -1 when it does not say
  // Asks the engine to do each thing with the first of its models, or `model`, a few tokens each.
  Result<EngineProbe> probe(const std::string& model);
  void abort(const std::string& request_id);  // where the profile has a route for it

  // Headers of every request.
  static net::Headers headers(const EngineAddress& address);

 private:
  Result<Json> get_json(const std::string& path);
  Result<Json> post_json(const std::string& path, const OrderedJson& body, std::chrono::seconds limit);
  net::HttpClientRequest request(const std::string& path, std::chrono::milliseconds limit) const;
  int context_of(const Json& entry, const std::string& name);
  bool tried(EngineProbe& probe, EngineFeatures feature, const Result<Json>& answer,
             bool (*good)(const Json& answer));

  const EngineAddress address_;
  const EngineProfile& profile_;
  const std::shared_ptr<net::HttpCanceller> canceller_;
};

}  // namespace tessera::worker::external
