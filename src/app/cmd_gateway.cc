// gateway: the API and the control port of a cluster; workers do the computing.
#include <cstdio>
#include <future>
#include <nlohmann/json.hpp>
#include <set>

#include "app/commands.h"
#include "app/control_plane.h"
#include "app/gateway_file.h"
#include "app/http_service.h"
#include "app/job_host.h"
#include "app/model_shape.h"
#include "app/range_engine.h"
#include "base/clock.h"
#include "fetch/model_name.h"
#include "gateway/cluster_gateway.h"
#include "gateway/cluster_metrics.h"
#include "gateway/cluster_routes.h"
#include "gateway/engine_hub.h"
#include "gateway/session_completer.h"
#include "gateway/storage_watch.h"
#include "obs/log.h"
#include "store/redis_state.h"

namespace tessera::app {
namespace {

// A worker must have room for a whole sequence: longer ones only where they are asked for.
constexpr int kDefaultContext = 4096;

struct GatewayOptions : HttpOptions, JobOptions {
  std::vector<std::string> models;
  std::string quantize;
  std::string dtype = "auto";
  std::string kv_dtype = "auto";
  int context = 0;
  int control_port = 8443;
  std::string control_host = "0.0.0.0";
  std::string advertise;
  std::string activations = "lossless";
  int lease = 3000;
  int failover_timeout = 60;
  int token_hours = 24;
  std::string database;
  std::string redis;
  template <typename V>
  void fields(V& v) {
    v("model", models,
      "a model to serve, as for `tessera serve`; repeat for several; without it, what the workers' engines "
      "serve");
    v("quantize", quantize, "workers quantise float weights at load: int8 or int4");
    v("dtype", dtype, "auto (as stored) or float32 (the exact, slow reference path)");
    v("kv-dtype", kv_dtype, "auto, float32, bfloat16 or float16");
    v("context", context,
      "tokens a sequence may grow to; every worker must have room for one; 0 = the model's, at most 4096");
    v("control-port", control_port, "where workers join; 0 = any free one");
    v("control-host", control_host, "address that the control port listens on");
    v("advertise", advertise, "HOST[:PORT],… that the join command names; default: this machine's name");
    v("activations", activations,
      "between workers: lossless, or int8 or fp8 for slow links (then tokens are no longer exact)");
    v("lease", lease, "milliseconds of silence after which a worker counts as lost");
    v("failover-timeout", failover_timeout, "seconds that a stream waits for a substitute worker");
    v("token-hours", token_hours, "hours that a join token is valid");
    v("database", database,
      "postgresql://USER:PASSWORD@HOST/NAME that holds the state of several gateways; default: a file");
    v("redis", redis, "redis://[USER:PASSWORD@]HOST[:PORT][/N] that several gateways share limits in");
    HttpOptions::fields(v);
    JobOptions::fields(v);
  }
};

Result<RowEncoding> parse_encoding(const std::string& text) {
  if (text == "lossless") return RowEncoding::kLossless;
  if (text == "int8") return RowEncoding::kInt8;
  if (text == "fp8") return RowEncoding::kFp8;
  return invalid_argument("--activations takes lossless, int8 or fp8, not '" + text + "'");
}

Status check(const GatewayOptions& options) {
  TESSERA_RETURN_IF_ERROR(check_http_options(options));
  TESSERA_RETURN_IF_ERROR(check_job_options(options));
  TESSERA_RETURN_IF_ERROR(parse_encoding(options.activations).status());
  if (options.control_port < 0 || options.control_port > 65535)
    return invalid_argument("--control-port is between 0 and 65535");
  if (options.lease < 100) return invalid_argument("--lease is at least 100 milliseconds");
  if (options.failover_timeout < 1) return invalid_argument("--failover-timeout is at least 1 second");
  if (options.token_hours < 1) return invalid_argument("--token-hours is at least 1");
  return {};
}

// Loads and unloads what the gateway serves, now and while it runs.
class ServedModels {
 public:
  ServedModels(const GatewayOptions& options, gateway::ClusterGateway& cluster, gateway::EngineHub& engines,
               obs::Metrics& metrics)
      : options_(options),
        cluster_(cluster),
        engines_(engines),
        metrics_(metrics),
        prepare_(make_thread_executor("prepare")) {}

  // One thread at a time.
  Status load(const std::string& name) {
    ModelOptions model;
    model.model = name;
    model.dtype = options_.dtype;
    model.quantize = options_.quantize;
    model.kv_dtype = options_.kv_dtype;
    model.context = options_.context;
    TESSERA_ASSIGN_OR_RETURN(OpenedModel opened, open_model(model));
    if (loaded_.count(opened.served_name) > 0)
      return invalid_argument(opened.served_name + " is loaded already");
    const int context =
        options_.context > 0 ? options_.context : std::min(opened.context_length, kDefaultContext);
    gateway::ClusterModel what;
    TESSERA_ASSIGN_OR_RETURN(what.shape, model_shape(opened, context));
    what.source = opened.source;
    // Where else its bytes are: the file names of the store are the hub's.
    if (std::error_code error; !std::filesystem::exists(name, error) && fetch::parse_hub_name(name).ok())
      what.origin = name;
    what.load_options =
        dump_json(Json{{"dtype", model.dtype}, {"quantize", model.quantize}, {"kv_dtype", model.kv_dtype}});
    TESSERA_ASSIGN_OR_RETURN(what.encoding, parse_encoding(options_.activations));
    what.probe_token = probe_token(opened.spec);
    cluster::SessionManager& sessions = cluster_.add_model(std::move(what));
    publish_session_gauges(metrics_, sessions, opened.served_name);

    gateway::ServedModel served;
    served.info.id = opened.served_name;
    served.info.created = SystemClock().unix_time_ms() / 1000;
    served.info.context_length = context;
    served.info.vocab_size = opened.spec.vocab;
    served.info.has_tokenizer = opened.text.tokenizer != nullptr;
    served.info.has_chat_template = opened.text.chat_template != nullptr;
    served.text = opened.text;
    served.system_fingerprint = "fp_" + opened.identity.substr(0, 12);
    engines_.add_own(gateway::make_session_completer(std::move(served), sessions, *prepare_));
    loaded_.insert(opened.served_name);
    obs::log_info("cluster", "a model is served", {{"model", opened.served_name}, {"context", context}});
    return {};
  }

  Status unload(const std::string& name) {
    if (loaded_.erase(name) == 0) return not_found("the model " + name + " is not loaded");
    engines_.remove_own(name);
    cluster_.remove_model(name);
    obs::log_info("cluster", "a model is no longer served", {{"model", name}});
    return {};
  }

  void settle() { drain(*prepare_); }  // as ClusterGateway's, and before it

 private:
  const GatewayOptions& options_;
  gateway::ClusterGateway& cluster_;
  gateway::EngineHub& engines_;
  obs::Metrics& metrics_;
  std::set<std::string> loaded_;
  std::unique_ptr<Executor> prepare_;  // ends before the completers
};

void publish_relay_gauges(obs::Metrics& metrics, gateway::ClusterGateway& cluster) {
  auto& open = metrics.gauge("tessera_relay_tunnels", "Tunnels to workers behind NAT, now");
  auto& opened = metrics.gauge("tessera_relay_tunnels_opened", "Tunnels since the start");
  auto& refused = metrics.gauge("tessera_relay_tunnels_refused", "Tunnels that were refused since the start");
  auto& bytes = metrics.gauge("tessera_relay_bytes", "Bytes through tunnels since the start");
  metrics.on_collect([&open, &opened, &refused, &bytes, &cluster] {
    const wire::RelayStats stats = cluster.relay_stats();
    open.set(static_cast<double>(stats.open));
    opened.set(static_cast<double>(stats.opened));
    refused.set(static_cast<double>(stats.refused));
    bytes.set(static_cast<double>(stats.bytes));
  });
}

// Workers that host something.
void count_workers(control::Coordinator& coordinator, const std::function<void(int)>& done) {
  coordinator.view([done](const control::ClusterView& view) {
    int serving = 0;
    for (const control::WorkerView& worker : view.workers) {
      serving += worker.engine && worker.state == "ready";
      serving += std::any_of(worker.instances.begin(), worker.instances.end(), [&](const auto& instance) {
        return worker.state != "lost" && instance.report.state == InstanceState::kReady;
      });
    }
    done(serving);
  });
}

// Null without a url. One that does not answer now may do so later.
Result<std::unique_ptr<store::State>> open_shared_state(const std::string& url) {
  if (url.empty()) return std::unique_ptr<store::State>();
  return store::open_redis(url);
}

Status serve_cluster(const GatewayOptions& options, StopSignals& signals) {
  gateway::ClusterGatewayOptions cluster_options;
  cluster_options.home = tessera_home();
  cluster_options.listen = options.control_host + ":" + std::to_string(options.control_port);
  cluster_options.advertise = options.advertise;
  cluster_options.version = TESSERA_VERSION;
  cluster_options.lease = std::chrono::milliseconds(options.lease);
  cluster_options.token_life = std::chrono::hours(options.token_hours);
  cluster_options.failover_timeout = std::chrono::seconds(options.failover_timeout);
  cluster_options.database_url = options.database;
  obs::Metrics metrics;
  obs::Health health;
  TESSERA_ASSIGN_OR_RETURN(auto redis, open_shared_state(options.redis));
  const SystemClock clock;
  api::ModelSet served;
  gateway::EngineHub engines(served, metrics, clock);
  cluster_options.engines = &engines;
  TESSERA_ASSIGN_OR_RETURN(auto cluster, gateway::ClusterGateway::start(cluster_options));
  const gateway::StorageWatch watch(options.database.empty() ? nullptr : &cluster->database(), redis.get(),
                                    health);
  publish_relay_gauges(metrics, *cluster);
  ServedModels models(options, *cluster, engines, metrics);
  for (const std::string& name : options.models) TESSERA_RETURN_IF_ERROR(models.load(name));
  health.set("control", true);
  gateway::publish_cluster(metrics, cluster->coordinator());
  auto work = make_thread_executor("cluster-work");
  gateway::ClusterRoutes routes(*cluster,
                                {[&models](const std::string& name) { return models.load(name); },
                                 [&models](const std::string& name) { return models.unload(name); }},
                                *work);
  TESSERA_ASSIGN_OR_RETURN(const std::string join, cluster->make_join_url(false));
  TESSERA_ASSIGN_OR_RETURN(auto control, ControlPlane::open(options, &cluster->database(), redis.get()));
  std::vector<gateway::RouteGroup*> groups = control->groups();
  groups.push_back(&routes);
  TESSERA_ASSIGN_OR_RETURN(
      auto jobs, JobHost::open(options, cluster->database(), served, metrics, [&cluster](const auto& done) {
        count_workers(cluster->coordinator(), done);
      }));
  groups.push_back(jobs->routes());
  Status status = serve_http(
      options, signals,
      {served, metrics, health,
       [&cluster, &engines](gateway::Readiness::Callback done) {
         // Of our own models a token crosses every hop; an engine has shown its tokens to its worker's
         // probes.
         cluster->probe([&engines, done = std::move(done)](const Status& status) {
           if (status.code() != Code::kNotFound) return done(status);
           done(engines.any_ready() ? Status() : unavailable(status.message() + " and no engine serves one"));
         });
       },
       control->authenticator(), groups, &control->admission(), &control->audit(),
       [&](const std::string& url) {
         obs::log_info("gateway", "listening on " + url, {{"control_port", cluster->control_port()}});
         publish_gateway(url, control->admin_key());
         std::printf("tessera worker --join %s\n", join.c_str());
         std::fflush(stdout);
       },
       [&] {
         jobs->stop();
         control->settle();
         engines.settle();
         models.settle();
         cluster->settle();
         control->settle();  // again: what ended meanwhile is metered
       }});
  // Requests that still wait for the coordinator go on to `work`: none is left when it has answered once
  // more.
  std::promise<void> quiet;
  cluster->coordinator().view([&quiet](const control::ClusterView&) { quiet.set_value(); });
  quiet.get_future().wait();
  work.reset();
  return status;
}

int run_gateway(GatewayOptions& options) {
  Status status = check(options);
  if (status.ok()) status = start_logging(options.log_level, options.log_format, options.log_file);
  if (!status.ok()) return report(status);
  StopSignals signals;
  status = serve_cluster(options, signals);
  return status.ok() ? kDone : report(status);
}

}  // namespace

Command gateway_command() {
  auto options = std::make_shared<GatewayOptions>();
  return {"gateway", "serves a model that workers on other machines compute",
          "Prints the command that joins a worker, one line, on stdout.\n"
          "  tessera gateway --model smollm2:135m\n"
          "  tessera gateway --model ./llama-70b --quantize int4 --host 0.0.0.0 --api-key secret",
          fields_of(*options), [options] { return run_gateway(*options); }};
}

}  // namespace tessera::app
