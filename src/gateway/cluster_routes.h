// ClusterRoutes: what people and scripts ask a cluster over HTTP, under /api/v1/.
//
//   GET    /api/v1/cluster               workers, models, links, sessions, failovers
//   GET    /api/v1/cluster/plan          the placement, its predictions and reasons
//   GET    /api/v1/cluster/sessions      what runs and waits, with the hops of each
//   POST   /api/v1/cluster/trace         {"session": ID, "tokens": N}: where the time of its next tokens goes
//   POST   /api/v1/cluster/drain         {"worker": NAME}
//   POST   /api/v1/cluster/tokens        {"rotate": bool} → {"join": "tessera://…"}
//   GET    /api/v1/models                what is loaded
//   POST   /api/v1/models                {"model": NAME}: loads it
//   DELETE /api/v1/models/NAME           unloads it
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "base/executor.h"
#include "base/json.h"
#include "gateway/cluster_gateway.h"
#include "gateway/routes.h"

namespace tessera::gateway {

Json cluster_json(const control::ClusterView& view, const std::vector<control::FailoverRecord>& failovers);

class ClusterRoutes final : public RouteGroup {
 public:
  struct Models {
    std::function<Status(const std::string& name)> load;  // may wait; called on `work`
    std::function<Status(const std::string& name)> unload;
  };
  // Both must outlive it and what `work` still runs.
  ClusterRoutes(ClusterGateway& gateway, Models models, Executor& work)
      : gateway_(gateway), models_(std::move(models)), work_(work) {}

  std::vector<Route> routes() override;

 private:
  using Done = std::function<void(net::HttpResponse)>;
  using Change = void (ClusterRoutes::*)(const Json& body, const Done& done);
  Route change(std::string path, Change run);  // POST with a JSON object
  void cluster(const Done& done);
  void plan(const Done& done);
  void list_sessions(const Done& done);
  void trace(const Json& body, const Done& done);
  void drain(const Json& body, const Done& done);
  void token(const Json& body, const Done& done);
  void list_models(const Done& done);
  void load_model(const Json& body, const Done& done);
  void change_models(const std::string& name, bool load, const Done& done);

  ClusterGateway& gateway_;
  const Models models_;
  Executor& work_;
};

}  // namespace tessera::gateway
