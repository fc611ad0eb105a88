#include "wire/peer_links.h"

#include <map>

#include "wire/peer_link.h"

namespace tessera::wire {
namespace {

constexpr std::chrono::seconds kTick{1};

std::string peer_of(const std::string& inbox) {
  return inbox.substr(0, inbox.find('/'));
}

class PeerLinksImpl final : public PeerLinks {
 public:
  PeerLinksImpl(const LiveIdentity& identity, uint64_t incarnation, PeerEvents& events,
                const LinkOptions& options, RelayClient* relay)
      : identity_(identity), incarnation_(incarnation), events_(events), options_(options), relay_(relay) {
    executor_->post_after(kTick, [this] { tick(); });
  }
  // The links' streams end first: their callbacks use the executor.
  ~PeerLinksImpl() override {
    {
      MutexLock lock(mutex_);
      stopping_ = true;
      for (auto& [peer, link] : links_) {
        link->stop();
        ended_.push_back(link);
      }
    }
    for (const auto& link : ended_) link->wait_closed();
    executor_.reset();
  }

  Status learn(const std::string& peer, std::string_view addresses) override {
    if (is_relay_address(addresses) && addresses != relay_address(peer))
      return invalid_argument(std::string(addresses) + " is another worker than " + peer);
    TESSERA_ASSIGN_OR_RETURN(auto list, addresses_to_dial(addresses, relay_));
    link(peer)->set_addresses(std::string(addresses), std::move(list));
    return {};
  }
  void forget(const std::string& peer) override {
    MutexLock lock(mutex_);
    const auto found = links_.find(peer);
    if (found == links_.end()) return;
    found->second->stop();
    ended_.push_back(found->second);
    links_.erase(found);
    std::erase_if(ended_, [](const auto& link) { return link->closed(); });
  }
  void send(const std::string& to, Message message) override { link(peer_of(to))->send(to, message); }
  void probe(const std::string& peer) override { link(peer)->probe(); }
  std::vector<LinkReport> reports() const override {
    std::vector<LinkReport> all;
    MutexLock lock(mutex_);
    for (const auto& [peer, link] : links_)
      if (auto report = link->report()) all.push_back(*std::move(report));
    return all;
  }

 private:
  std::shared_ptr<PeerLink> link(const std::string& peer) {
    MutexLock lock(mutex_);
    auto& slot = links_[peer];
    if (slot == nullptr)
      slot = std::make_shared<PeerLink>(peer, identity_, incarnation_, events_, *executor_, options_, relay_);
    return slot;
  }
  void tick() {
    MutexLock lock(mutex_);
    if (stopping_) return;
    for (const auto& [peer, link] : links_) link->tick();
    executor_->post_after(kTick, [this] { tick(); });
  }

  const LiveIdentity identity_;
  const uint64_t incarnation_;
  PeerEvents& events_;
  const LinkOptions options_;
  RelayClient* const relay_;  // may be null
  std::unique_ptr<Executor> executor_ = make_thread_executor("peer-links");
  mutable Mutex mutex_;  // taken before a link's
  std::map<std::string, std::shared_ptr<PeerLink>> links_ TESSERA_GUARDED_BY(mutex_);
  std::vector<std::shared_ptr<PeerLink>> ended_;  // stopped, their streams perhaps not yet gone
  bool stopping_ TESSERA_GUARDED_BY(mutex_) = false;
};

}  // namespace

std::unique_ptr<PeerLinks> PeerLinks::create(const LiveIdentity& identity, uint64_t incarnation,
                                             PeerEvents& events, const LinkOptions& options,
                                             RelayClient* relay) {
  return std::make_unique<PeerLinksImpl>(identity, incarnation, events, options, relay);
}

}  // namespace tessera::wire
