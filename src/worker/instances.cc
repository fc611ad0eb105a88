#include "worker/instances.h"

#include <nlohmann/json.hpp>

#include "obs/log.h"

namespace tessera::worker {

InstanceTable::InstanceTable(std::string worker, std::filesystem::path folder,
                             InstanceEnvironment environment, cluster::InboxRegistry& registry)
    : worker_(std::move(worker)),
      folder_(std::move(folder)),
      environment_(std::move(environment)),
      registry_(registry),
      loader_(make_thread_executor("loader")),
      closer_(make_thread_executor("closer")) {}

InstanceTable::~InstanceTable() {
  stopping_ = true;
  loader_.reset();
  closer_.reset();
  MutexLock lock(mutex_);
  instances_.clear();
}

void InstanceTable::load(const LoadInstance& load) {
  {
    MutexLock lock(mutex_);
    if (instances_.count(load.id) > 0) return;
    InstanceReport& report = instances_[load.id].report;
    report.id = load.id;
    report.model = load.model;
    report.blocks = load.blocks;
  }
  loader_->post([this, load] { run(load); });
}

void InstanceTable::unload(const std::string& id) {
  {
    MutexLock lock(mutex_);
    auto found = instances_.find(id);
    if (found == instances_.end()) return;
    found->second.cancelled = true;
  }
  closer_->post([this, id] {
    std::shared_ptr<EngineHost> host;
    {
      MutexLock lock(mutex_);
      auto found = instances_.find(id);
      if (found == instances_.end()) return;
      host = std::move(found->second.host);
      instances_.erase(found);
    }
    host.reset();  // ends its engine; sessions that are left hear of it
    obs::log_info("worker", "a block range was unloaded", {{"instance", id}});
    environment_.changed();
  });
}

bool InstanceTable::update(const std::string& id, const std::function<void(InstanceReport&)>& change) {
  MutexLock lock(mutex_);
  auto found = instances_.find(id);
  if (found == instances_.end() || found->second.cancelled) return false;
  change(found->second.report);
  return true;
}

void InstanceTable::run(const LoadInstance& load) {
  std::unique_ptr<engine::Engine> engine;
  const Status status = prepare(load, engine);
  if (status.code() == Code::kCancelled || stopping_) return;
  if (!status.ok()) {
    obs::log_warn("worker", "a block range could not be loaded",
                  {{"model", load.model}, {"error", status.message()}});
    update(load.id, [&](InstanceReport& report) {
      report.state = InstanceState::kFailed;
      report.error = status.message();
    });
    environment_.changed();
    return;
  }
  const std::string numerics = engine->numerics().to_string();
  auto host = std::make_shared<EngineHost>(worker_ + "/" + load.id, std::move(engine), registry_);
  {
    MutexLock lock(mutex_);
    auto found = instances_.find(load.id);
    if (found == instances_.end() || found->second.cancelled) return;
    found->second.host = host;
    found->second.report.state = InstanceState::kReady;
    found->second.report.numerics = numerics;
  }
  obs::log_info("worker", "a block range is ready",
                {{"model", load.model}, {"first", load.blocks.first}, {"last", load.blocks.last}});
  environment_.changed();
}

Status InstanceTable::prepare(const LoadInstance& load, std::unique_ptr<engine::Engine>& engine) {
  TESSERA_ASSIGN_OR_RETURN(std::shared_ptr<fetch::Mirror> mirror, this->mirror(load.model));
  const std::vector<std::unique_ptr<fetch::RangeReader>> owned =
      environment_.readers(load, mirror->manifest());
  std::vector<fetch::RangeReader*> readers;
  for (const auto& reader : owned) readers.push_back(reader.get());
  TESSERA_RETURN_IF_ERROR(mirror->ensure_headers(readers));
  TESSERA_ASSIGN_OR_RETURN(std::vector<std::string> tensors,
                           environment_.needed_tensors(mirror->main_path(), load.blocks));
  auto last_told = std::chrono::steady_clock::now();
  const auto progress = [&](const fetch::MirrorProgress& progress) -> Status {
    const bool goes_on = update(load.id, [&](InstanceReport& report) {
      report.bytes_fetched = progress.done;
      report.bytes_total = progress.total;
    });
    if (!goes_on || stopping_) return cancelled("the range is no longer wanted");
    if (std::chrono::steady_clock::now() - last_told > std::chrono::seconds(1)) {
      last_told = std::chrono::steady_clock::now();
      environment_.changed();
    }
    return {};
  };
  TESSERA_RETURN_IF_ERROR(mirror->ensure(tensors, readers, progress));
  if (!update(load.id, [](InstanceReport& report) { report.state = InstanceState::kLoading; }))
    return cancelled("the range is no longer wanted");
  environment_.changed();
  TESSERA_ASSIGN_OR_RETURN(engine,
                           environment_.make_engine(load, mirror->main_path(), worker_ + "/" + load.id));
  return {};
}

Result<std::shared_ptr<fetch::Mirror>> InstanceTable::mirror(const std::string& model) {
  TESSERA_ASSIGN_OR_RETURN(Json json, environment_.manifest(model));
  TESSERA_ASSIGN_OR_RETURN(fetch::MirrorManifest manifest, fetch::MirrorManifest::from_json(json));
  MutexLock lock(mutex_);
  std::shared_ptr<fetch::Mirror>& known = mirrors_[model];
  if (known != nullptr && known->manifest().id() == manifest.id()) return known;
  TESSERA_ASSIGN_OR_RETURN(std::unique_ptr<fetch::Mirror> opened,
                           fetch::Mirror::open(folder_, std::move(manifest)));
  known = std::move(opened);
  return known;
}

// Speeds from what the engine did since the last report: steps that only decoded, steps that only prefilled.
void InstanceTable::observe(Instance& instance) {
  const engine::EngineStats now = instance.host->engine().stats();
  InstanceReport& report = instance.report;
  report.kv_tokens = now.kv_total * kKvBlockTokens;
  report.kv_tokens_free = (now.kv_free + now.kv_cached) * kKvBlockTokens;
  report.running = static_cast<int>(now.running);
  report.tokens_replayed = now.replayed_tokens;
  report.tokens_recomputed = now.recomputed_tokens;
  const int64_t steps = now.steps - instance.last.steps;
  const int64_t prefill = now.prefill_tokens - instance.last.prefill_tokens;
  const int64_t decode = now.decode_tokens - instance.last.decode_tokens;
  const double seconds = now.device_seconds - instance.last.device_seconds;
  auto average = [](double& value, double sample) {
    value = value == 0 ? sample : 0.7 * value + 0.3 * sample;
  };
  if (prefill == 0 && steps >= 8) average(report.decode_step_s, seconds / static_cast<double>(steps));
  if (decode == 0 && prefill >= 64) average(report.prefill_token_s, seconds / static_cast<double>(prefill));
  if (steps >= 8 || prefill >= 64) instance.last = now;
}

std::vector<InstanceReport> InstanceTable::reports() const {
  MutexLock lock(mutex_);
  std::vector<InstanceReport> reports;
  for (auto& [id, instance] : instances_) {
    if (instance.host != nullptr) observe(instance);
    reports.push_back(instance.report);
  }
  return reports;
}

Result<std::string> InstanceTable::read_file(const std::string& model, const std::string& file,
                                             uint64_t offset, uint64_t length) const {
  std::shared_ptr<fetch::Mirror> mirror;
  {
    MutexLock lock(mutex_);
    auto found = mirrors_.find(model);
    if (found != mirrors_.end()) mirror = found->second;
  }
  if (mirror == nullptr) return not_found("the model " + model + " is not here");
  return mirror->read(file, offset, length);
}

}  // namespace tessera::worker
