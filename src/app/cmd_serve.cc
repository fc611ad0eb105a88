// serve: gateway and worker in one process; the default way to use Tessera.
#include "app/commands.h"
#include "app/control_plane.h"
#include "app/gateway_file.h"
#include "app/http_service.h"
#include "app/job_host.h"
#include "app/local_completer.h"
#include "obs/log.h"

namespace tessera::app {
namespace {

struct ServeOptions : ModelOptions, HttpOptions, JobOptions {
  template <typename V>
  void fields(V& v) {
    ModelOptions::fields(v);
    v("served-name", served_name, "the model's name in the API; default: what --model says");
    HttpOptions::fields(v);
    JobOptions::fields(v);
  }
};

Status serve_until_stopped(const ServeOptions& options, StopSignals& signals) {
  obs::Metrics metrics;
  obs::Health health;
  TESSERA_ASSIGN_OR_RETURN(auto control, ControlPlane::open(options, nullptr, nullptr));
  TESSERA_ASSIGN_OR_RETURN(auto local, LocalCluster::start(options, &metrics));
  health.set("model", true);
  LocalCompleter completer(*local);
  api::ModelSet models;
  models.add(completer.get());
  publish_session_gauges(metrics, local->sessions(), local->model().served_name);
  TESSERA_ASSIGN_OR_RETURN(auto jobs, JobHost::open(options, control->database(), models, metrics,
                                                    [](const std::function<void(int)>& done) { done(1); }));
  std::vector<gateway::RouteGroup*> groups = control->groups();
  groups.push_back(jobs->routes());
  return serve_http(options, signals,
                    {models, metrics, health,
                     [&local](gateway::Readiness::Callback done) { local->probe(std::move(done)); },
                     control->authenticator(), groups, &control->admission(), &control->audit(),
                     [&local, &control](const std::string& url) {
                       publish_gateway(url, control->admin_key());
                       obs::log_info("serve", "listening on " + url,
                                     {{"model", local->model().served_name},
                                      {"context", local->model().context_length},
                                      {"blocks", static_cast<int>(local->workers().size())}});
                     },
                     [&local, &completer, &control, &jobs] {
                       jobs->stop();
                       control->settle();
                       completer.settle();
                       local->settle();
                       control->settle();  // again: what ended meanwhile is metered
                     }});
}

int serve(ServeOptions& options) {
  Status status = check_http_options(options);
  if (status.ok()) status = check_job_options(options);
  if (status.ok()) status = start_logging(options.log_level, options.log_format, options.log_file);
  if (!status.ok()) return report(status);
  StopSignals signals;
  status = serve_until_stopped(options, signals);
  return status.ok() ? kDone : report(status);
}

}  // namespace

Command serve_command() {
  auto options = std::make_shared<ServeOptions>();
  return {"serve", "serves a model through an OpenAI-compatible API",
          "  tessera serve --model smollm2:135m\n"
          "  tessera serve --model ./llama-3.2-1b.gguf --host 0.0.0.0 --api-key secret --context 8192",
          fields_of(*options), [options] { return serve(*options); }};
}

}  // namespace tessera::app
