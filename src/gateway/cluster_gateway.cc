#include "gateway/cluster_gateway.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <map>
#include <nlohmann/json.hpp>

#include "base/mutex.h"
#include "base/rng.h"
#include "cluster/probe.h"
#include "core/identity_name.h"
#include "gateway/engine_hub.h"
#include "gateway/model_files.h"
#include "obs/log.h"
#include "store/postgres_database.h"
#include "store/sqlite_database.h"
#include "wire/address.h"
#include "wire/control_server.h"
#include "wire/join_token.h"

namespace tessera::gateway {
namespace {

constexpr std::string_view kName = "gateway";
constexpr int64_t kRenewalCheck = 3600;  // seconds, at the latest

std::string own_host_name() {
  char name[256] = "127.0.0.1";
  ::gethostname(name, sizeof name - 1);
  return name;
}

class ClusterGatewayImpl final : public ClusterGateway,
                                 public wire::ControlHandler,
                                 public control::ControlSink,
                                 public MessageSink {
 public:
  explicit ClusterGatewayImpl(ClusterGatewayOptions options)
      : options_(std::move(options)), files_(options_.home / "state" / "manifests") {}

  ~ClusterGatewayImpl() override {
    if (options_.engines != nullptr) options_.engines->connect({});
    server_.reset();    // no more events, and no stream is attached
    executor_->stop();  // no more tasks: the sessions and the coordinator may go
  }

  Status open() {
    TESSERA_ASSIGN_OR_RETURN(database_, options_.database_url.empty()
                                            ? store::open_sqlite(options_.home / "state" / "tessera.db")
                                            : store::open_postgres(options_.database_url));
    TESSERA_ASSIGN_OR_RETURN(identities_, control::Identities::open(*database_, clock_));
    const int64_t now = clock_.unix_time_ms() / 1000;
    wire::CertificateAuthority::Options certificates;
    certificates.certificate_life = options_.certificate_life;
    TESSERA_ASSIGN_OR_RETURN(wire::CertificateAuthority authority,
                             wire::CertificateAuthority::open(options_.home / "tls", certificates, now));
    authority_.emplace(std::move(authority));
    TESSERA_ASSIGN_OR_RETURN(wire::Identity identity, authority_->make_gateway_identity(kName, now));
    control::CoordinatorOptions coordinator;
    coordinator.gateway = kName;
    coordinator.incarnation = system_entropy() | 1;
    coordinator.lease = options_.lease;
    coordinator.engines = options_.engines;
    if (options_.engines != nullptr)
      options_.engines->connect([this](const std::string& worker, const EngineMessage& message) {
        const std::shared_ptr<wire::WorkerStream> stream = stream_of(worker, true);
        return stream != nullptr && stream->send(message);
      });
    first_session_ = (coordinator.incarnation >> 24) << 24;
    coordinator_.emplace(coordinator, *this, *executor_, clock_);
    identity_.emplace(std::move(identity));
    TESSERA_ASSIGN_OR_RETURN(server_, wire::ControlServer::start(options_.listen, *identity_, *this));
    recorder_->post([this] { renew_own(); });
    return {};
  }

  Result<std::string> make_join_url(bool rotate) override {
    if (rotate) {
      TESSERA_ASSIGN_OR_RETURN(std::vector<control::TokenRecord> tokens, identities_->list_tokens());
      for (const control::TokenRecord& token : tokens)
        if (!token.revoked) TESSERA_RETURN_IF_ERROR(identities_->revoke_token(token.id));
    }
    const int64_t expires = clock_.unix_time_ms() / 1000 + options_.token_life.count();
    TESSERA_ASSIGN_OR_RETURN(wire::JoinToken token, wire::JoinToken::make(expires, authority_->sha256()));
    control::TokenTerms terms;
    terms.expires_unix_ms = expires * 1000;
    TESSERA_RETURN_IF_ERROR(identities_->add_token(token.secret, terms).status());
    const std::string hosts =
        options_.advertise.empty() ? own_host_name() + ",127.0.0.1" : options_.advertise;
    return "tessera://" + wire::with_default_port(hosts, server_->port()) + "/" + token.text();
  }
  int control_port() const override { return server_->port(); }
  wire::RelayStats relay_stats() const override { return server_->relay_stats(); }

  cluster::SessionManager& add_model(ClusterModel model) override {
    const std::string name = model.shape.name;
    files_.add(name, model.source, model.origin);
    cluster::SessionManager* sessions = nullptr;
    {
      MutexLock lock(mutex_);
      Serving& serving = models_[name];
      if (serving.sessions == nullptr) {
        cluster::SessionManagerOptions options;
        options.name = std::string(kName) + "/" + name;
        options.first_id = first_session_ + (static_cast<uint64_t>(models_.size()) << 40);
        options.failover_timeout = options_.failover_timeout;
        options.on_failover = [this, name](const cluster::Failover& failover) {
          on_failover(name, failover);
        };
        serving.sessions =
            std::make_unique<cluster::SessionManager>(options, *this, *executor_, coordinator_->router(name));
      }
      serving.served = true;
      serving.probe_token = model.probe_token;
      sessions = serving.sessions.get();
    }
    coordinator_->add_model({model.shape, model.load_options, model.encoding, sessions});
    return *sessions;
  }

  void remove_model(const std::string& name) override {
    {
      MutexLock lock(mutex_);
      auto found = models_.find(name);
      if (found == models_.end()) return;
      found->second.served = false;
    }
    coordinator_->remove_model(name);
    files_.remove(name);
  }

  void probe(std::function<void(Status)> done) override {
    std::vector<std::pair<cluster::SessionManager*, TokenId>> targets;
    {
      MutexLock lock(mutex_);
      for (auto& [name, model] : models_)
        if (model.served) targets.emplace_back(model.sessions.get(), model.probe_token);
    }
    if (targets.empty()) {
      done(not_found("no model is loaded"));
      return;
    }
    struct Pending {
      std::atomic<size_t> left;
      std::function<void(Status)> done;
      std::atomic<bool> told{false};
    };
    auto pending = std::make_shared<Pending>();
    pending->left = targets.size();
    pending->done = std::move(done);
    for (auto& [sessions, token] : targets)
      cluster::probe(*sessions, token, [pending](const Status& status) {
        const bool last = --pending->left == 0;
        if ((last || !status.ok()) && !pending->told.exchange(true)) pending->done(status);
      });
  }

  void list_sessions(size_t most, std::function<void(Sessions)> done) override {
    struct Walk {
      std::vector<std::pair<std::string, cluster::SessionManager*>> left;
      Sessions found;
      std::function<void(Sessions)> done;
    };
    auto walk = std::make_shared<Walk>(Walk{managers(), {}, std::move(done)});
    next_of(walk, most);
  }
  void trace(SessionId session, int steps, cluster::TraceCollector::Done done) override {
    trace_in(managers(), session, steps, std::move(done));
  }

  void settle() override { drain(*executor_); }

  control::Coordinator& coordinator() override { return *coordinator_; }
  control::Identities& identities() override { return *identities_; }
  store::Database& database() override { return *database_; }

 private:
  struct Serving {
    std::unique_ptr<cluster::SessionManager> sessions;
    bool served = false;
    TokenId probe_token = 0;
  };
  struct Attached {
    std::shared_ptr<wire::WorkerStream> stream;
    uint64_t connection = 0;
    bool checked = false;   // the database knows of nothing against it
    bool welcomed = false;  // the coordinator took it: sessions' messages may follow
  };

  // --- control port ---
  Result<wire::Membership> join(const wire::JoinRequest& request) override {
    TESSERA_RETURN_IF_ERROR(identities_->redeem_token(request.token_secret).status());
    const std::string wanted = make_identity_name(request.wanted_name);
    TESSERA_ASSIGN_OR_RETURN(control::WorkerIdentity worker, identities_->admit(wanted, ""));
    obs::log_info("cluster", "a worker got its certificate", {{"worker", worker.name}});
    return issue(worker.name, request.csr_pem);
  }
  Result<wire::Membership> renew(const std::string& worker, const std::string& csr_pem) override {
    TESSERA_RETURN_IF_ERROR(identities_->admit(worker, worker).status());
    return issue(worker, csr_pem);
  }
  Result<wire::Membership> renew_expired(const std::string& chain_pem, const std::string& csr_pem) override {
    TESSERA_ASSIGN_OR_RETURN(const std::string worker,
                             authority_->check_expired(chain_pem, csr_pem, clock_.unix_time_ms() / 1000));
    TESSERA_ASSIGN_OR_RETURN(const Digest sum, wire::certificate_sha256(chain_pem));
    TESSERA_RETURN_IF_ERROR(identities_->check_certificate(worker, to_hex(sum)));
    return renew(worker, csr_pem);
  }
  // The gateway's own certificate, two thirds into its life; on recorder_.
  void renew_own() {
    const int64_t now = clock_.unix_time_ms() / 1000;
    const auto info = wire::certificate_info(identity_->get()->chain_pem);
    if (info.ok() && info->should_renew(now)) {
      Result<wire::Identity> fresh = authority_->make_gateway_identity(kName, now);
      Status status = fresh.ok() ? identity_->replace(std::move(fresh).value()) : fresh.status();
      if (status.ok())
        obs::log_info("cluster", "the gateway's certificate is renewed");
      else
        obs::log_warn("cluster", "the gateway's certificate could not be renewed",
                      {{"why", status.message()}});
    }
    const int64_t wait = info.ok() ? info->renew_unix_s() - now : 0;
    recorder_->post_after(std::chrono::seconds(std::clamp<int64_t>(wait, 1, kRenewalCheck)),
                          [this] { renew_own(); });
  }
  Result<wire::Membership> issue(const std::string& worker, const std::string& csr_pem) {
    TESSERA_ASSIGN_OR_RETURN(std::string chain,
                             authority_->issue(csr_pem, worker, clock_.unix_time_ms() / 1000));
    TESSERA_ASSIGN_OR_RETURN(wire::CertificateInfo info, wire::certificate_info(chain));
    TESSERA_ASSIGN_OR_RETURN(Digest sum, wire::certificate_sha256(chain));
    TESSERA_RETURN_IF_ERROR(
        identities_->record_certificate(worker, to_hex(sum), info.not_after_unix_s * 1000));
    return wire::Membership{worker, std::move(chain)};
  }

  // The database may wait for the disk, which gRPC's threads must not: the worker attaches when the recorder
  // has looked it up. It says nothing before it hears Welcome.
  void on_attach(std::shared_ptr<wire::WorkerStream> stream, Hello hello) override {
    const uint64_t connection = ++last_connection_;
    std::shared_ptr<wire::WorkerStream> old;
    {
      MutexLock lock(mutex_);
      old = std::exchange(attached_[hello.worker], {std::move(stream), connection}).stream;
    }
    if (old != nullptr) old->close(Goodbye{"this worker connected again", false});
    recorder_->post([this, connection, hello = std::move(hello)] { check_attached(connection, hello); });
  }
  void check_attached(uint64_t connection, const Hello& hello) {
    const auto known = identities_->find_worker(hello.worker);
    MutexLock lock(mutex_);  // held until the coordinator's task is posted: on_detach's comes after it
    auto found = attached_.find(hello.worker);
    if (found == attached_.end() || found->second.connection != connection) return;
    if (known.ok() && known->revoked) {
      found->second.stream->close(Goodbye{"this worker was expelled: " + known->revoked_reason, true});
      return;
    }
    found->second.checked = true;
    coordinator_->attach(connection, hello);
  }
  bool may_relay(const std::string& worker) override {
    MutexLock lock(mutex_);
    auto found = attached_.find(worker);
    return found != attached_.end() && found->second.checked;
  }
  void on_control(wire::WorkerStream& stream, ControlMessage message) override {
    if (const uint64_t connection = connection_of(stream); connection != 0)
      coordinator_->receive(stream.worker(), connection, std::move(message));
  }
  void on_message(wire::WorkerStream& stream, std::string to, Message message) override {
    const size_t slash = to.find('/');
    if (slash == std::string::npos || to.compare(0, slash, kName) != 0 || connection_of(stream) == 0) return;
    if (cluster::SessionManager* sessions = sessions_of(to.substr(slash + 1)))
      sessions->deliver_from(stream.worker(), std::move(message));
  }
  void on_engine(wire::WorkerStream& stream, EngineMessage message) override {
    if (options_.engines != nullptr && connection_of(stream) != 0)
      options_.engines->receive(stream.worker(), std::move(message));
  }
  void on_detach(wire::WorkerStream& stream, const Status& why) override {
    uint64_t connection = 0;
    {
      MutexLock lock(mutex_);
      auto found = attached_.find(stream.worker());
      if (found == attached_.end() || found->second.stream.get() != &stream) return;
      connection = found->second.connection;
      attached_.erase(found);
    }
    // Unknown to the coordinator if it was never checked: then nothing happens.
    coordinator_->detach(
        stream.worker(), connection,
        why.ok() ? unavailable("its connection ended") : why.with_context("its connection ended"));
  }
  Result<std::string> read_file(const std::string&, const std::string& model, const std::string& file,
                                uint64_t offset, uint64_t length) override {
    return files_.read(model, file, offset, length);
  }
  Result<std::string> manifest(const std::string&, const std::string& model) override {
    return files_.manifest(model);
  }

  uint64_t connection_of(const wire::WorkerStream& stream) {
    MutexLock lock(mutex_);
    auto found = attached_.find(stream.worker());
    const bool known =
        found != attached_.end() && found->second.stream.get() == &stream && found->second.checked;
    return known ? found->second.connection : 0;
  }
  std::shared_ptr<wire::WorkerStream> stream_of(const std::string& worker, bool for_sessions) {
    MutexLock lock(mutex_);
    auto found = attached_.find(worker);
    if (found == attached_.end() || (for_sessions && !found->second.welcomed)) return nullptr;
    return found->second.stream;
  }
  std::vector<std::pair<std::string, cluster::SessionManager*>> managers() {
    MutexLock lock(mutex_);
    std::vector<std::pair<std::string, cluster::SessionManager*>> all;
    for (const auto& [name, model] : models_) all.emplace_back(name, model.sessions.get());
    return all;
  }
  // One model after the other: each answers on the executor.
  template <typename Walk>
  static void next_of(const std::shared_ptr<Walk>& walk, size_t most) {
    if (walk->left.empty()) return walk->done(std::move(walk->found));
    const auto [name, sessions] = walk->left.back();
    walk->left.pop_back();
    sessions->list(most, [walk, most, name = name](std::vector<cluster::SessionView> views) {
      walk->found.emplace_back(name, std::move(views));
      next_of(walk, most);
    });
  }
  // Only one of them knows the session.
  static void trace_in(std::vector<std::pair<std::string, cluster::SessionManager*>> left, SessionId session,
                       int steps, cluster::TraceCollector::Done done) {
    if (left.empty()) return done(Status(Code::kNotFound, "no such session runs"));
    cluster::SessionManager* sessions = left.back().second;
    left.pop_back();
    sessions->trace(session, steps,
                    [left = std::move(left), session, steps, done](Result<cluster::SessionTrace> trace) {
                      if (!trace.ok() && trace.status().code() == Code::kNotFound)
                        return trace_in(left, session, steps, done);
                      done(std::move(trace));
                    });
  }
  cluster::SessionManager* sessions_of(const std::string& model) {
    MutexLock lock(mutex_);
    auto found = models_.find(model);
    return found == models_.end() ? nullptr : found->second.sessions.get();
  }

  // --- to the workers ---
  void send(const std::string& worker, ControlMessage message) override {
    const std::shared_ptr<wire::WorkerStream> stream = stream_of(worker, false);
    if (stream == nullptr) return;
    if (const auto* goodbye = std::get_if<Goodbye>(&message)) {
      stream->close(*goodbye);
      return;
    }
    stream->send(message);
    if (!std::holds_alternative<Welcome>(message)) return;
    MutexLock lock(mutex_);
    auto found = attached_.find(worker);
    if (found != attached_.end() && found->second.stream == stream) found->second.welcomed = true;
  }
  void send(const std::string& to, Message message) override {
    // A worker ends a stream on which a session speaks before Welcome: until then it is not connected.
    const std::shared_ptr<wire::WorkerStream> stream = stream_of(std::string(cluster::process_of(to)), true);
    if (stream != nullptr && stream->send(to, message)) return;
    std::optional<Message> answer = cluster::Receipt(message).answer(to, "no connection to it", false);
    if (!answer) return;
    MutexLock lock(mutex_);
    for (auto& [name, model] : models_)
      model.sessions->deliver(*answer);  // session ids are the gateway's own
  }

  void on_failover(const std::string& model, const cluster::Failover& failover) {
    obs::log_info("cluster",
                  failover.recovered ? "a session went on elsewhere" : "a session found no other way",
                  {{"model", model},
                   {"worker", failover.inbox},
                   {"cause", failover.cause},
                   {"stall_ms", failover.stall.count()}});
    control::FailoverRecord record;
    record.unix_ms = failover.unix_time_ms;
    record.worker = std::string(cluster::process_of(failover.inbox));
    record.model = model;
    record.cause = failover.cause;
    record.sessions = 1;
    record.stall_ms = static_cast<double>(failover.stall.count());
    recorder_->post([this, record] {
      if (Status status = identities_->record_failover(record); !status.ok())
        obs::log_warn("cluster", "a failover could not be recorded", {{"error", status.message()}});
    });
  }

  const ClusterGatewayOptions options_;
  SystemClock clock_;
  ModelFiles files_;
  std::unique_ptr<store::Database> database_;
  std::unique_ptr<control::Identities> identities_;
  std::optional<wire::CertificateAuthority> authority_;
  std::optional<wire::LiveIdentity> identity_;
  uint64_t first_session_ = 0;
  std::atomic<uint64_t> last_connection_{0};
  const std::unique_ptr<Executor> executor_ =
      make_thread_executor("sessions");  // the coordinator's and every session's; outlives both
  Mutex mutex_;
  std::map<std::string, Serving> models_ TESSERA_GUARDED_BY(mutex_);
  std::map<std::string, Attached> attached_ TESSERA_GUARDED_BY(mutex_);
  std::unique_ptr<Executor> recorder_ = make_thread_executor("recorder");  // may wait for the disk
  std::optional<control::Coordinator> coordinator_;
  std::unique_ptr<wire::ControlServer> server_;
};

}  // namespace

Result<std::unique_ptr<ClusterGateway>> ClusterGateway::start(ClusterGatewayOptions options) {
  auto gateway = std::make_unique<ClusterGatewayImpl>(std::move(options));
  TESSERA_RETURN_IF_ERROR(gateway->open());
  return std::unique_ptr<ClusterGateway>(std::move(gateway));
}

}  // namespace tessera::gateway
