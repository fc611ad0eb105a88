#include "worker/external/external_node.h"

#include <atomic>
#include <mutex>
#include <optional>

#include "base/rng.h"
#include "cluster/worker_member.h"
#include "core/identity_name.h"
#include "obs/log.h"
#include "wire/control_client.h"
#include "worker/worker_identity.h"

namespace tessera::worker::external {
namespace {

class ExternalNode final : public Node,
                           public wire::GatewayEvents,
                           public cluster::MemberHost,
                           public cluster::MemberLink {
 public:
  ExternalNode(ExternalNodeOptions options, wire::LiveIdentity identity, IdentityFolder folder,
               std::string gateway_addresses)
      : options_(std::move(options)),
        identity_(std::move(identity)),
        folder_(std::move(folder)),
        gateway_addresses_(std::move(gateway_addresses)),
        executor_(make_thread_executor("member")),
        ended_future_(ended_.get_future()) {}

  // First nobody outside tells us anything and nobody asks for reports, then the engine ends, and last what
  // it calls.
  ~ExternalNode() override {
    renewal_.reset();
    if (stream_ != nullptr) stream_->stop();
    executor_->stop();
    engine_.reset();
    member_.reset();
  }

  Status start() {
    engine_ = std::make_unique<ExternalEngine>(
        options_.engine, [this](const EngineMessage& message) { return ready_ && stream_->send(message); },
        [this] {
          if (ready_) member_->instances_changed();
        });
    cluster::WorkerMemberOptions member;
    member.worker = identity_.name();
    member.incarnation = system_entropy() | 1;
    member.version = options_.version;
    member.capabilities.device =
        std::string(options_.engine.profile->title) + " at " + options_.engine.address.base;
    member_ = std::make_unique<cluster::WorkerMember>(member, *this, *this, *executor_, clock_,
                                                      [this](Status why) { end(std::move(why)); });
    TESSERA_ASSIGN_OR_RETURN(stream_, wire::GatewayStream::start(gateway_addresses_, identity_, *this));
    ready_ = true;
    renewal_.emplace(folder_.path(), gateway_addresses_, identity_);
    return {};
  }

  const std::string& name() const override { return identity_.name(); }
  std::string address() const override { return options_.engine.address.base; }
  void drain() override { member_->drain(); }
  std::future<Status> ended() override { return std::move(ended_future_); }

 private:
  // --- the gateway's stream ---
  Hello hello() override { return member_->hello(); }
  void on_control(ControlMessage message) override {
    if (std::holds_alternative<Drain>(message)) engine_->drain();
    member_->receive(std::move(message));
  }
  void on_message(std::string, Message) override {}  // it has no sessions
  void on_engine(EngineMessage message) override {
    if (auto* request = std::get_if<EngineRequest>(&message)) engine_->submit(std::move(*request));
    if (const auto* cancel = std::get_if<EngineCancel>(&message)) engine_->cancel(cancel->id);
  }
  void on_down(const Status& why, bool final) override {
    obs::log_warn("worker", final ? "the gateway refused this worker" : "no connection to the gateway",
                  {{"why", why.message()}});
    engine_->cancel_all();  // the gateway has told its clients already
    member_->disconnected();
    if (final) end(why);
  }

  // --- what the membership asks ---
  void load(const LoadInstance& load) override {
    obs::log_warn("worker", "the gateway asks an engine's worker for blocks", {{"model", load.model}});
  }
  void unload(const std::string&) override {}
  void forget_sessions(const std::string&) override { engine_->cancel_all(); }
  void probe(const ProbePeer&) override {}
  std::vector<InstanceReport> reports() const override { return {}; }
  std::vector<LinkReport> links() const override { return {}; }
  std::optional<EngineReport> engine() const override { return engine_->report(); }

  void send(ControlMessage message) override {
    if (ready_) stream_->send(message);
  }
  void reconnect() override {}  // the gateway ends the stream after its Goodbye; the stream dials again
  void end(Status why) {
    std::call_once(end_once_, [&] { ended_.set_value(std::move(why)); });
  }

  const ExternalNodeOptions options_;
  const wire::LiveIdentity identity_;
  const IdentityFolder folder_;
  const std::string gateway_addresses_;
  SystemClock clock_;
  std::unique_ptr<Executor> executor_;  // thread "member"
  std::unique_ptr<ExternalEngine> engine_;
  std::unique_ptr<cluster::WorkerMember> member_;
  std::unique_ptr<wire::GatewayStream> stream_;
  std::atomic<bool> ready_{false};  // stream_ and member_ may be used
  std::optional<IdentityRenewal> renewal_;
  std::once_flag end_once_;
  std::promise<Status> ended_;
  std::future<Status> ended_future_;
};

}  // namespace

Result<std::unique_ptr<Node>> start_external_node(ExternalNodeOptions options) {
  TESSERA_ASSIGN_OR_RETURN(StartIdentity start, start_identity(options.join, options.home, options.name));
  auto node = std::make_unique<ExternalNode>(std::move(options), std::move(start.identity),
                                             std::move(start.folder), std::move(start.gateway_addresses));
  TESSERA_RETURN_IF_ERROR(node->start());
  return std::unique_ptr<Node>(std::move(node));
}

}  // namespace tessera::worker::external
