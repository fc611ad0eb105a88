#include "wire/relay_hub.h"

#include <algorithm>
#include <atomic>
#include <deque>
#include <vector>

#include "base/secrets.h"
#include "core/identity_name.h"
#include "obs/log.h"
#include "wire/channel.h"
#include "wire/join_token.h"

namespace tessera::wire {
namespace {

namespace pb = tessera::v1;

constexpr size_t kMaxChunk = 256 << 10;  // of a tunnel, framing included
constexpr size_t kMaxOffers = 256;       // that wait for a worker to read them

Result<std::string> new_tunnel_id() {
  return random_text(16);
}

bool parse_chunk(const grpc::ByteBuffer& buffer, pb::RelayChunk& chunk) {
  grpc::Slice slice;
  return (buffer.TrySingleSlice(&slice).ok() || buffer.DumpToSingleSlice(&slice).ok()) &&
         chunk.ParseFromArray(slice.begin(), static_cast<int>(slice.size()));
}

}  // namespace

// One stream of a tunnel. Reads on demand: the next chunk when the last one was written to the other end.
// Keeps itself alive until gRPC is done with it.
class RelayEnd final : public RelayHub::EndReactor, public std::enable_shared_from_this<RelayEnd> {
 public:
  RelayEnd(RelayHub& hub, grpc::CallbackServerContext* context, std::string worker)
      : worker(std::move(worker)), hub_(hub), context_(context) {}

  const std::string worker;
  const RelayHub::Clock::time_point opened = RelayHub::Clock::now();
  std::string tunnel;  // its id, once it has one; guarded by the hub's mutex
  RelayHub::Clock::time_point last_active() const { return last_active_.load(); }

  void start() {
    self_ = shared_from_this();
    read();
  }
  // What it reads goes to `other` from here on.
  void pair_with(std::shared_ptr<RelayEnd> other) {
    MutexLock lock(mutex_);
    if (!ending_) other_ = std::move(other);
  }
  void read() {
    MutexLock lock(mutex_);
    if (!ending_) StartRead(&received_);
  }
  void write(grpc::ByteBuffer bytes) {
    MutexLock lock(mutex_);
    if (ending_) return;
    sending_ = std::move(bytes);
    writing_ = true;
    StartWrite(&sending_);
  }
  // A write that the peer does not take is cut off.
  void end(const Status& status) {
    MutexLock lock(mutex_);
    if (ending_) return;
    ending_ = true;
    reason_ = status;
    if (writing_)
      context_->TryCancel();  // OnWriteDone comes, then the stream finishes
    else
      Finish(to_grpc(reason_));
  }

  void OnReadDone(bool ok) override {
    if (!ok) return close({});
    std::shared_ptr<RelayEnd> other;
    {
      MutexLock lock(mutex_);
      if (ending_) return;  // what was refused wants nothing
      other = other_;
    }
    const size_t size = received_.Length();
    if (size > kMaxChunk) return close(invalid_argument("a chunk of a tunnel is at most 256 KiB"));
    if (other != nullptr) {
      last_active_ = RelayHub::Clock::now();
      hub_.bytes_ += size;
      other->write(std::move(received_));
      return;
    }
    pb::RelayChunk first;
    if (!parse_chunk(received_, first)) return close(corrupt("no chunk of a tunnel"));
    received_.Clear();
    if (Status status = hub_.begin(shared_from_this(), first); !status.ok()) close(status);
  }
  void OnWriteDone(bool ok) override {
    std::shared_ptr<RelayEnd> other;
    {
      MutexLock lock(mutex_);
      writing_ = false;
      if (ending_) {
        Finish(to_grpc(reason_));
        return;
      }
      other = other_;
    }
    if (!ok) return close({});
    last_active_ = RelayHub::Clock::now();
    if (other != nullptr) other->read();
  }
  void OnCancel() override { close({}); }
  void OnDone() override {
    {
      MutexLock lock(mutex_);
      other_ = nullptr;
    }
    hub_.gone(shared_from_this());
    const auto last = std::move(self_);
  }

 private:
  // An error is this end's own fault; both hear it.
  void close(const Status& why) {
    hub_.ended(shared_from_this(), why);
    end(why);
  }

  RelayHub& hub_;
  grpc::CallbackServerContext* const context_;
  std::atomic<RelayHub::Clock::time_point> last_active_{RelayHub::Clock::now()};
  Mutex mutex_;
  std::shared_ptr<RelayEnd> other_ TESSERA_GUARDED_BY(mutex_);
  bool writing_ TESSERA_GUARDED_BY(mutex_) = false;
  bool ending_ TESSERA_GUARDED_BY(mutex_) = false;
  Status reason_ TESSERA_GUARDED_BY(mutex_);
  grpc::ByteBuffer received_;  // belongs to the read under way, then to OnReadDone
  grpc::ByteBuffer sending_;   // belongs to the write under way
  std::shared_ptr<RelayEnd> self_;
};

// A worker that takes tunnels.
class RelayListener final : public RelayHub::ListenReactor,
                            public std::enable_shared_from_this<RelayListener> {
 public:
  RelayListener(RelayHub& hub, std::string worker) : worker(std::move(worker)), hub_(hub) {}
  const std::string worker;

  void start() { self_ = shared_from_this(); }
  void offer(const std::string& tunnel, const std::string& from) {
    MutexLock lock(mutex_);
    if (ending_ || waiting_.size() >= kMaxOffers) return;  // a tunnel that nobody takes ends by itself
    waiting_.emplace_back();
    waiting_.back().set_tunnel(tunnel);
    waiting_.back().set_from(from);
    if (!writing_) write_next();
  }
  void end(const Status& status) {
    MutexLock lock(mutex_);
    if (ending_) return;
    ending_ = true;
    reason_ = status;
    if (!writing_) Finish(to_grpc(reason_));
  }

  void OnWriteDone(bool ok) override {
    MutexLock lock(mutex_);
    writing_ = false;
    waiting_.pop_front();
    if (!ok && !ending_) {
      ending_ = true;
      reason_ = unavailable("the worker is gone");
    }
    if (ending_)
      Finish(to_grpc(reason_));
    else if (!waiting_.empty())
      write_next();
  }
  void OnCancel() override { end(cancelled("the worker is gone")); }
  void OnDone() override {
    hub_.listener_gone(shared_from_this());
    const auto last = std::move(self_);
  }

 private:
  void write_next() TESSERA_REQUIRES(mutex_) {
    writing_ = true;
    StartWrite(&waiting_.front());
  }
  RelayHub& hub_;
  Mutex mutex_;
  std::deque<pb::RelayOffer> waiting_ TESSERA_GUARDED_BY(mutex_);
  bool writing_ TESSERA_GUARDED_BY(mutex_) = false;
  bool ending_ TESSERA_GUARDED_BY(mutex_) = false;
  Status reason_ TESSERA_GUARDED_BY(mutex_);
  std::shared_ptr<RelayListener> self_;
};

RelayHub::RelayHub(std::function<bool(const std::string&)> may_relay, const RelayLimits& limits)
    : may_relay_(std::move(may_relay)), limits_(limits), timer_(make_thread_executor("relay")) {
  sweep_later();
}

RelayHub::~RelayHub() = default;

RelayHub::EndReactor* RelayHub::open_end(grpc::CallbackServerContext* context, const std::string& worker) {
  auto end = std::make_shared<RelayEnd>(*this, context, worker);
  Status status;
  const bool member = !worker.empty() && may_relay_(worker);
  {
    MutexLock lock(mutex_);
    const auto of_worker =
        std::count_if(ends_.begin(), ends_.end(), [&](const auto& other) { return other->worker == worker; });
    if (!member)
      status = Status(Code::kPermissionDenied, "tunnels are for attached workers of the cluster only");
    else if (of_worker >= limits_.max_tunnels_per_worker || ends_.size() / 2 >= size_t(limits_.max_tunnels))
      status = resource_exhausted("the gateway carries too many tunnels of " + worker + " or altogether");
    else
      ends_.insert(end);
    if (!status.ok()) ++stats_.refused;
  }
  end->start();
  if (!status.ok()) end->end(status);
  return end.get();
}

RelayHub::ListenReactor* RelayHub::open_listener(grpc::CallbackServerContext*, const std::string& worker) {
  auto listener = std::make_shared<RelayListener>(*this, worker);
  listener->start();
  if (worker.empty() || !may_relay_(worker)) {
    listener->end({Code::kPermissionDenied, "tunnels are for attached workers of the cluster only"});
    return listener.get();
  }
  std::shared_ptr<RelayListener> old;
  {
    MutexLock lock(mutex_);
    old = std::exchange(listeners_[worker], listener);
  }
  if (old != nullptr) old->end(cancelled("this worker listens on another stream"));
  return listener.get();
}

RelayStats RelayHub::stats() const {
  MutexLock lock(mutex_);
  RelayStats stats = stats_;
  stats.open = tunnels_.size();
  stats.bytes = bytes_;
  return stats;
}

Status RelayHub::begin(const std::shared_ptr<RelayEnd>& end, const pb::RelayChunk& first) {
  Status status = invalid_argument("a tunnel's end begins with `open` or `accept`");
  if (first.part_case() == pb::RelayChunk::kOpen) status = open_tunnel(end, first.open());
  if (first.part_case() == pb::RelayChunk::kAccept) status = accept_tunnel(end, first.accept());
  if (!status.ok()) {
    MutexLock lock(mutex_);
    ++stats_.refused;
  }
  return status;
}

Status RelayHub::open_tunnel(const std::shared_ptr<RelayEnd>& end, const std::string& target) {
  TESSERA_RETURN_IF_ERROR(check_identity_name(target));
  TESSERA_ASSIGN_OR_RETURN(const std::string id, new_tunnel_id());
  const bool attached = may_relay_(target);
  std::shared_ptr<RelayListener> listener;
  {
    MutexLock lock(mutex_);
    const auto found = listeners_.find(target);
    if (!attached || found == listeners_.end())
      return not_found("no tunnel leads to " + target + ": it is not connected to this gateway");
    const auto of_target =
        std::count_if(tunnels_.begin(), tunnels_.end(), [&](const auto& t) { return t.second.to == target; });
    if (of_target >= limits_.max_tunnels_per_worker)
      return resource_exhausted("the gateway carries too many tunnels to " + target);
    listener = found->second;
    end->tunnel = id;
    const auto now = Clock::now();
    tunnels_[id] = {end->worker, target, end, nullptr, now, now};
    ++stats_.opened;
  }
  listener->offer(id, end->worker);
  return {};
}

Status RelayHub::accept_tunnel(const std::shared_ptr<RelayEnd>& end, const std::string& id) {
  std::shared_ptr<RelayEnd> dialler;
  {
    MutexLock lock(mutex_);
    const auto found = tunnels_.find(id);
    if (found == tunnels_.end() || found->second.to != end->worker || found->second.accepter != nullptr)
      return not_found("this tunnel is not, or no longer, offered to " + end->worker);
    end->tunnel = id;
    found->second.accepter = end;
    dialler = found->second.dialler;
  }
  end->pair_with(dialler);
  dialler->pair_with(end);
  end->read();
  dialler->read();
  return {};
}

void RelayHub::ended(const std::shared_ptr<RelayEnd>& end, const Status& why) {
  std::shared_ptr<RelayEnd> dialler, accepter;
  {
    MutexLock lock(mutex_);
    const auto found = tunnels_.find(end->tunnel);
    if (found == tunnels_.end()) return;
    dialler = found->second.dialler;
    accepter = found->second.accepter;
    tunnels_.erase(found);
  }
  if (dialler != end) dialler->end(why);
  if (accepter != nullptr && accepter != end) accepter->end(why);
}

void RelayHub::gone(const std::shared_ptr<RelayEnd>& end) {
  MutexLock lock(mutex_);
  ends_.erase(end);
}

void RelayHub::listener_gone(const std::shared_ptr<RelayListener>& listener) {
  MutexLock lock(mutex_);
  const auto found = listeners_.find(listener->worker);
  if (found != listeners_.end() && found->second == listener) listeners_.erase(found);
}

void RelayHub::sweep_later() {
  const auto period = std::min({limits_.accept_timeout, limits_.idle_timeout, limits_.absence}) / 4;
  timer_->post_after(std::max(period, std::chrono::milliseconds(10)), [this] { sweep(); });
}

// Ends what waits, idles or belongs to a worker that has left.
void RelayHub::sweep() {
  std::set<std::string> workers;
  {
    MutexLock lock(mutex_);
    for (const auto& [id, tunnel] : tunnels_) workers.insert({tunnel.from, tunnel.to});
  }
  std::erase_if(workers, [this](const std::string& worker) { return may_relay_(worker); });
  std::vector<std::pair<std::shared_ptr<RelayEnd>, Status>> over;
  const auto now = Clock::now();
  {
    MutexLock lock(mutex_);
    for (auto& [id, tunnel] : tunnels_) {
      const bool absent = workers.count(tunnel.from) > 0 || workers.count(tunnel.to) > 0;
      if (!absent) tunnel.seen_attached = now;
      if (now - tunnel.seen_attached > limits_.absence)
        over.emplace_back(tunnel.dialler, unavailable("a worker at an end of this tunnel has left"));
      else if (tunnel.accepter == nullptr && now - tunnel.opened > limits_.accept_timeout)
        over.emplace_back(tunnel.dialler, deadline_exceeded(tunnel.to + " did not take the tunnel"));
      else if (tunnel.accepter != nullptr &&
               now - std::max(tunnel.dialler->last_active(), tunnel.accepter->last_active()) >
                   limits_.idle_timeout)
        over.emplace_back(tunnel.dialler, deadline_exceeded("nothing passed through the tunnel"));
    }
    for (const auto& end : ends_)
      if (end->tunnel.empty() && now - end->opened > limits_.accept_timeout)
        over.emplace_back(end, deadline_exceeded("a tunnel's end must say what it is for"));
  }
  for (auto& [end, why] : over) {
    obs::log_debug("wire", "a tunnel is ended", {{"worker", end->worker}, {"why", why.message()}});
    ended(end, why);
    end->end(why);
  }
  sweep_later();
}

}  // namespace tessera::wire
