// HttpFront: everything that the gateway answers over HTTP. Finds the route, checks origin, caller and role,
// counts and logs the request.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "api/model_set.h"
#include "api/service.h"
#include "base/clock.h"
#include "base/executor.h"
#include "gateway/admission.h"
#include "gateway/audit_trail.h"
#include "gateway/authenticator.h"
#include "gateway/cors.h"
#include "gateway/readiness.h"
#include "gateway/request_record.h"
#include "gateway/routes.h"
#include "net/http.h"
#include "obs/metrics.h"

namespace tessera::gateway {

struct FrontOptions {
  std::vector<std::string> cors_origins;  // pages that may call; "*" for all
  std::vector<RouteGroup*> groups;        // what is answered beside the front's own routes
  AuditTrail* audit = nullptr;            // keeps what changes something; null: nobody does
  bool tls = false;                       // served over HTTPS only
  Admission* admission = nullptr;         // limits and measures inference; null: neither
};

// Thread-safe. All references must outlive it; the HTTP server must be stopped before it is destroyed, and
// `work` must run nothing of it any more.
class HttpFront final : public net::HttpHandler {
 public:
  // `work`: where texts of any length are tokenised, off the I/O threads.
  HttpFront(FrontOptions options, Authenticator& authenticator, const api::ModelSet& models,
            obs::Metrics& metrics, Readiness& readiness, Executor& work, const Clock& clock);

  void handle(net::HttpRequest request, std::shared_ptr<net::ResponseWriter> writer) override;

  // From now on work is refused with 503; running answers go on, /health and /metrics still answer.
  void start_draining() { draining_ = true; }
  // Ends the answers that are still running with an error (in a stream its last event) and says whose they
  // were: the requests' ids.
  std::vector<std::string> cut_running() const;
  int active_requests() const { return metrics_.active(); }
  const std::vector<Route>& routes() const { return table_.all(); }

 private:
  std::vector<Route> all_routes(const std::vector<RouteGroup*>& groups);
  std::vector<Route> own_routes();
  void run(const Route& route, const Call& call) const;
  void enter(const Route& route, Call call) const;
  void complete(api::Endpoint endpoint, const Call& call) const;
  using TextRoute = net::HttpResponse(const std::string& body, const api::Caller& caller,
                                      const api::ModelSet& models);
  void work_on_text(const Call& call, TextRoute* run);
  void ready(const Call& call) const;

  const Cors cors_;
  const api::ModelSet& models_;
  obs::Metrics& registry_;
  Readiness& readiness_;
  Executor& work_;
  const api::CompletionService completions_;
  RequestMetrics metrics_;
  Authenticator& authenticator_;
  Admission* const admission_;
  AuditTrail* const audit_;
  const net::Headers security_headers_;
  const RouteTable table_;
  std::atomic<bool> draining_{false};
  std::atomic<int> text_pending_{0};
};

}  // namespace tessera::gateway
