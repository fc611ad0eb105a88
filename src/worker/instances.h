// InstanceTable: the block ranges that a worker hosts: fetches their tensors, loads them, runs an engine for
// each, reports on them, and serves its peers what it fetched.
#pragma once

#include <atomic>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/executor.h"
#include "base/mutex.h"
#include "cluster/worker_member.h"
#include "fetch/mirror.h"
#include "worker/engine_host.h"

namespace tessera::worker {

// What the process around it provides. Called on the loader's thread; may wait.
struct InstanceEnvironment {
  // The gateway's manifest of a model, as it was sent.
  std::function<Result<Json>(const std::string& model)> manifest;
  // Where its pieces come from, the nearest first.
  std::function<std::vector<std::unique_ptr<fetch::RangeReader>>(const LoadInstance& load,
                                                                 const fetch::MirrorManifest& manifest)>
      readers;
  // Names of the tensors that the range needs, from the mirror's headers alone.
  std::function<Result<std::vector<std::string>>(const std::filesystem::path& model, BlockRange blocks)>
      needed_tensors;
  std::function<Result<std::unique_ptr<engine::Engine>>(
      const LoadInstance& load, const std::filesystem::path& model, const std::string& inbox)>
      make_engine;
  std::function<void(const ProbePeer& peer)> probe;
  std::function<std::vector<LinkReport>()> links;
  std::function<void(const std::string& gateway)> forget_sessions;
  std::function<void()> changed;  // WorkerMember::instances_changed(); any thread
};

// Thread-safe. One range is fetched and loaded at a time, on a thread of its own.
class InstanceTable final : public cluster::MemberHost {
 public:
  InstanceTable(std::string worker, std::filesystem::path folder, InstanceEnvironment environment,
                cluster::InboxRegistry& registry);
  ~InstanceTable() override;  // ends the engines

  void load(const LoadInstance& load) override;
  void unload(const std::string& id) override;
  void forget_sessions(const std::string& gateway) override { environment_.forget_sessions(gateway); }
  void probe(const ProbePeer& peer) override { environment_.probe(peer); }
  std::vector<InstanceReport> reports() const override;
  std::vector<LinkReport> links() const override { return environment_.links(); }

  // For peers: bytes of a model's file that are here and right.
  Result<std::string> read_file(const std::string& model, const std::string& file, uint64_t offset,
                                uint64_t length) const;

 private:
  struct Instance {
    InstanceReport report;
    std::shared_ptr<EngineHost> host;  // kReady
    bool cancelled = false;
    engine::EngineStats last;  // when the observed speeds were last taken
  };

  void run(const LoadInstance& load);
  Status prepare(const LoadInstance& load, std::unique_ptr<engine::Engine>& engine);
  Result<std::shared_ptr<fetch::Mirror>> mirror(const std::string& model);
  bool update(const std::string& id, const std::function<void(InstanceReport&)>& change);
  static void observe(Instance& instance);

  const std::string worker_;
  const std::filesystem::path folder_;
  const InstanceEnvironment environment_;
  cluster::InboxRegistry& registry_;
  std::atomic<bool> stopping_{false};
  mutable Mutex mutex_;
  mutable std::map<std::string, Instance> instances_ TESSERA_GUARDED_BY(mutex_);
  std::map<std::string, std::shared_ptr<fetch::Mirror>> mirrors_ TESSERA_GUARDED_BY(mutex_);  // by model
  std::unique_ptr<Executor> loader_;  // thread "loader"
  std::unique_ptr<Executor> closer_;  // thread "closer": an engine ends while another loads
};

}  // namespace tessera::worker
