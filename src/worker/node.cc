#include "worker/node.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <net/if.h>

#include <nlohmann/json.hpp>
#include <thread>

#include "base/json.h"
#include "base/mutex.h"
#include "base/rng.h"
#include "cluster/worker_member.h"
#include "core/identity_name.h"
#include "fetch/hub_reader.h"
#include "obs/log.h"
#include "wire/address.h"
#include "wire/control_client.h"
#include "wire/peer_links.h"
#include "wire/relay.h"
#include "worker/transport.h"
#include "worker/worker_identity.h"

namespace tessera::worker {
namespace {

namespace fs = std::filesystem;

constexpr std::chrono::seconds kReadStall{10};
constexpr std::chrono::seconds kManifestDeadline{600};  // a gateway may have to hash the model first
constexpr std::chrono::seconds kProbeAgain{1};

// IPv4 addresses of this machine that another one may reach.
std::vector<std::string> own_addresses() {
  std::vector<std::string> result;
  ifaddrs* list = nullptr;
  if (::getifaddrs(&list) != 0) return result;
  for (ifaddrs* entry = list; entry != nullptr; entry = entry->ifa_next) {
    if (entry->ifa_addr == nullptr || entry->ifa_addr->sa_family != AF_INET) continue;
    if ((entry->ifa_flags & IFF_UP) == 0 || (entry->ifa_flags & IFF_LOOPBACK) != 0) continue;
    char text[INET_ADDRSTRLEN];
    const auto* address = reinterpret_cast<const sockaddr_in*>(entry->ifa_addr);
    if (::inet_ntop(AF_INET, &address->sin_addr, text, sizeof text) != nullptr) result.emplace_back(text);
  }
  ::freeifaddrs(list);
  if (result.size() > 8) result.resize(8);
  return result;
}

// "HOST,HOST:PORT" with the port that we listen on where none is given.
Result<std::string> advertised(const NodeOptions& options, int port) {
  std::string list = options.advertise;
  if (list.empty()) {
    const std::string host = options.listen.substr(0, options.listen.rfind(':'));
    if (host != "0.0.0.0" && host != "[::]") {
      list = host;
    } else {
      for (const std::string& address : own_addresses()) list += (list.empty() ? "" : ",") + address;
      list += (list.empty() ? "" : ",") + std::string("127.0.0.1");
    }
  }
  const std::string result = wire::with_default_port(list, port);
  TESSERA_RETURN_IF_ERROR(wire::parse_addresses(result).status().with_context("--advertise"));
  return result;
}

// Pieces from another process of the cluster.
class WireReader final : public fetch::RangeReader {
 public:
  WireReader(std::string name, std::string model, std::unique_ptr<wire::RemoteFiles> files)
      : name_(std::move(name)), model_(std::move(model)), files_(std::move(files)) {}
  const std::string& name() const override { return name_; }
  Status read(const std::string& path, uint64_t offset, uint64_t bytes,
              const std::function<Status(std::span<const uint8_t>)>& sink) override {
    return files_->read(
        model_, path, offset, bytes, [&sink](std::string_view chunk) { return sink(as_bytes(chunk)); },
        kReadStall);
  }

 private:
  const std::string name_;
  const std::string model_;
  const std::unique_ptr<wire::RemoteFiles> files_;
};

class NodeImpl final : public Node,
                       public wire::GatewayEvents,
                       public wire::PeerHandler,
                       public wire::PeerEvents,
                       public Uplink,
                       public cluster::MemberLink {
 public:
  NodeImpl(NodeOptions options, wire::LiveIdentity identity, IdentityFolder folder,
           std::string gateway_addresses)
      : options_(std::move(options)),
        identity_(std::move(identity)),
        folder_(std::move(folder)),
        gateway_addresses_(std::move(gateway_addresses)),
        transport_(identity_.name(), *this),
        executor_(make_thread_executor("member")),
        ended_future_(ended_.get_future()) {}

  // First nobody outside tells us anything, then the member ends, then the engines, and last the ways out
  // that engines send on.
  ~NodeImpl() override {
    renewal_.reset();
    if (stream_ != nullptr) stream_->stop();
    server_.reset();
    end_member();
    instances_.reset();
    links_.reset();
    relay_.reset();
    executor_.reset();
  }

  Status start() {
    const uint64_t incarnation = system_entropy() | 1;
    TESSERA_ASSIGN_OR_RETURN(relay_, wire::RelayClient::create(gateway_addresses_, identity_));
    links_ = wire::PeerLinks::create(identity_, incarnation, *this, {}, relay_.get());
    instances_ = std::make_unique<InstanceTable>(identity_.name(), options_.home / "models" / ".parts",
                                                 environment(), transport_);
    TESSERA_ASSIGN_OR_RETURN(server_, wire::PeerServer::start(options_.listen, identity_, *this));
    TESSERA_RETURN_IF_ERROR(choose_address());
    cluster::WorkerMemberOptions member;
    member.worker = identity_.name();
    member.incarnation = incarnation;
    member.version = options_.version;
    member.address = address_;
    member.capabilities = options_.capabilities;
    {
      MutexLock lock(member_mutex_);
      member_ = std::make_unique<cluster::WorkerMember>(member, *instances_, *this, *executor_, clock_,
                                                        [this](Status why) { end(std::move(why)); });
    }
    TESSERA_ASSIGN_OR_RETURN(stream_, wire::GatewayStream::start(gateway_addresses_, identity_, *this));
    ready_ = true;
    if (wire::is_relay_address(address_)) relay_->accept_to(own_server());
    renewal_.emplace(folder_.path(), gateway_addresses_, identity_);
    return {};
  }

  const std::string& name() const override { return identity_.name(); }
  std::string address() const override { return address_; }
  void drain() override { member_->drain(); }
  std::future<Status> ended() override { return std::move(ended_future_); }

 private:
  // On its executor, behind the tasks that it has posted there.
  void end_member() {
    std::unique_ptr<cluster::WorkerMember> member;
    {
      MutexLock lock(member_mutex_);
      member = std::move(member_);
    }
    std::promise<void> ended;
    executor_->post([&] {
      member.reset();
      ended.set_value();
    });
    ended.get_future().wait();
  }

  // Where neighbours reach us: at our own addresses if the gateway does, else through the gateway.
  Status choose_address() {
    TESSERA_ASSIGN_OR_RETURN(address_, advertised(options_, server_->port()));
    const std::string through_gateway = wire::relay_address(identity_.name());
    if (options_.relay == RelayMode::kAlways) {
      address_ = through_gateway;
      return {};
    }
    for (;; std::this_thread::sleep_for(kProbeAgain)) {
      auto reached = wire::probe_reachability(gateway_addresses_, *identity_.get(), address_);
      if (reached.status().code() == Code::kUnsupported) return {};  // a gateway that knows no tunnels
      if (reached.status().code() == Code::kUnavailable) {
        obs::log_warn("worker", "waiting for the gateway", {{"why", reached.status().message()}});
        continue;
      }
      if (!reached.ok()) return reached.status();
      if (!reached->empty()) return {};
      if (options_.relay == RelayMode::kNever)
        return unavailable(
            "nobody reaches this worker at " + address_ + ": open TCP port " +
            std::to_string(server_->port()) +
            " to incoming connections (firewall, port forwarding), name the address that leads "
            "there with --advertise, or let the gateway carry its traffic with --relay auto");
      obs::log_warn("worker", "nobody reaches this worker directly: the gateway carries its traffic",
                    {{"tried", address_}});
      address_ = through_gateway;
      return {};
    }
  }

  // As a tunnel's last step dials it.
  wire::Address own_server() const {
    auto listen = wire::parse_listen_address(options_.listen);
    wire::Address address{listen.ok() ? listen->host : "", server_->port()};
    if (address.host.empty() || address.host == "0.0.0.0" || address.host == "::") address.host = "127.0.0.1";
    return address;
  }

  InstanceEnvironment environment() {
    InstanceEnvironment env;
    env.manifest = [this](const std::string& model) -> Result<Json> {
      TESSERA_ASSIGN_OR_RETURN(auto files, wire::RemoteFiles::open(gateway_addresses_, identity_,
                                                                   std::string(wire::kGatewayDnsName)));
      TESSERA_ASSIGN_OR_RETURN(std::string text, files->manifest(model, kManifestDeadline));
      return parse_json(text);
    };
    env.readers = [this](const LoadInstance& load, const fetch::MirrorManifest& manifest) {
      return readers(load, manifest);
    };
    env.needed_tensors = options_.needed_tensors;
    env.make_engine = [this](const LoadInstance& load, const fs::path& model, const std::string& inbox) {
      return options_.make_engine(load, model, inbox, transport_);
    };
    env.probe = [this](const ProbePeer& peer) {
      if (links_->learn(peer.peer, peer.address).ok()) links_->probe(peer.peer);
    };
    env.links = [this] { return links_->reports(); };
    env.forget_sessions = [this](const std::string& gateway) { transport_.forget_sessions(gateway); };
    env.changed = [this] {
      MutexLock lock(member_mutex_);
      if (member_ != nullptr) member_->instances_changed();
    };
    return env;
  }

  // This disk, then neighbours, then the gateway, then the hub that the model came from.
  std::vector<std::unique_ptr<fetch::RangeReader>> readers(const LoadInstance& load,
                                                           const fetch::MirrorManifest& manifest) {
    std::vector<std::unique_ptr<fetch::RangeReader>> result;
    std::error_code error;
    if (!options_.models.empty() && !manifest.files.empty()) {
      for (const auto& entry : fs::directory_iterator(options_.models, error)) {
        // A folder of the store that holds files of these names and sizes: every piece is checked anyhow.
        const fs::path file = entry.path() / manifest.files.front().path;
        if (fs::file_size(file, error) == manifest.files.front().bytes && !error)
          result.push_back(fetch::make_disk_reader(entry.path()));
      }
    }
    for (const std::string& peer : load.peers) {  // "NAME=ADDRESSES"
      const size_t equals = peer.find('=');
      if (equals == std::string::npos) continue;
      const std::string name = peer.substr(0, equals);
      if (auto files = wire::RemoteFiles::open(peer.substr(equals + 1), identity_, name, {}, relay_.get());
          files.ok())
        result.push_back(std::make_unique<WireReader>(name, load.model, std::move(files).value()));
    }
    auto gateway = wire::RemoteFiles::open(gateway_addresses_, identity_, std::string(wire::kGatewayDnsName));
    if (gateway.ok())
      result.push_back(std::make_unique<WireReader>("gateway", load.model, std::move(gateway).value()));
    if (auto name = fetch::parse_hub_name(manifest.origin); !manifest.origin.empty() && name.ok())
      result.push_back(fetch::make_hub_reader({*http_, options_.hf_endpoint, options_.hf_token, {}}, *name));
    return result;
  }

  // --- the gateway's stream ---
  Hello hello() override { return member_->hello(); }
  void on_control(ControlMessage message) override { member_->receive(std::move(message)); }
  void on_message(std::string to, Message message) override {
    transport_.from_gateway(to, std::move(message));
  }
  void on_down(const Status& why, bool final) override {
    obs::log_warn("worker", final ? "the gateway refused this worker" : "no connection to the gateway",
                  {{"why", why.message()}});
    member_->disconnected();
    if (final) end(why);
  }

  // --- neighbours ---
  void on_message(const std::string& /*peer*/, std::string to, Message message) override {
    transport_.from_peer(to, std::move(message));
  }
  Result<std::string> read_file(const std::string& /*peer*/, const std::string& model,
                                const std::string& file, uint64_t offset, uint64_t length) override {
    return instances_->read_file(model, file, offset, length);
  }
  Result<std::string> manifest(const std::string&, const std::string&) override {
    return not_found("manifests come from the gateway");
  }
  void undelivered(const std::string& /*peer*/, const std::string& to, Message message,
                   const Status& why) override {
    transport_.undelivered(to, message, why);
  }
  void down(const std::string& peer, const Status& why) override { transport_.peer_down(peer, why); }

  // --- ways out ---
  bool send_to_gateway(const std::string& inbox, Message message) override {
    return ready_ && stream_->send(inbox, message);
  }
  bool send_to_peer(const std::string& worker, const std::string& address, const std::string& inbox,
                    Message message) override {
    if (!address.empty() && !links_->learn(worker, address).ok()) return false;
    links_->send(inbox, std::move(message));
    return true;
  }
  void send(ControlMessage message) override {
    if (ready_) stream_->send(message);
  }
  void reconnect() override {}  // the gateway ends the stream after its Goodbye; the stream dials again

  void end(Status why) {
    std::call_once(end_once_, [&] { ended_.set_value(std::move(why)); });
  }

  const NodeOptions options_;
  const wire::LiveIdentity identity_;
  const IdentityFolder folder_;
  const std::string gateway_addresses_;
  const std::unique_ptr<fetch::HttpGetter> http_ = fetch::make_net_getter();
  SystemClock clock_;
  std::string address_;
  WorkerTransport transport_;
  std::unique_ptr<Executor> executor_;  // thread "member"
  Mutex member_mutex_;                  // of the pointer, for instances_, which outlives it
  std::unique_ptr<cluster::WorkerMember> member_;
  std::unique_ptr<wire::RelayClient> relay_;
  std::unique_ptr<InstanceTable> instances_;
  std::unique_ptr<wire::PeerLinks> links_;
  std::unique_ptr<wire::PeerServer> server_;
  std::unique_ptr<wire::GatewayStream> stream_;
  std::atomic<bool> ready_{false};  // stream_ may be used
  std::optional<IdentityRenewal> renewal_;
  std::once_flag end_once_;
  std::promise<Status> ended_;
  std::future<Status> ended_future_;
};

}  // namespace

Result<std::unique_ptr<Node>> Node::start(NodeOptions options) {
  TESSERA_ASSIGN_OR_RETURN(StartIdentity start, start_identity(options.join, options.home, options.name));
  auto node = std::make_unique<NodeImpl>(std::move(options), std::move(start.identity),
                                         std::move(start.folder), std::move(start.gateway_addresses));
  TESSERA_RETURN_IF_ERROR(node->start());
  return std::unique_ptr<Node>(std::move(node));
}

}  // namespace tessera::worker
