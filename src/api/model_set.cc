#include "api/model_set.h"

#include <algorithm>

namespace tessera::api {

void ModelSet::add(std::shared_ptr<Completer> completer) {
  std::string name = completer->info().id;
  MutexLock lock(mutex_);
  for (Entry& entry : entries_) {
    if (entry.name != name) continue;
    entry.completer = std::move(completer);
    return;
  }
  entries_.push_back({std::move(name), std::move(completer)});
}

void ModelSet::remove(const std::string& name) {
  MutexLock lock(mutex_);
  entries_.erase(
      std::remove_if(entries_.begin(), entries_.end(), [&](const Entry& e) { return e.name == name; }),
      entries_.end());
}

ApiResult<std::shared_ptr<Completer>> ModelSet::find(const std::optional<std::string>& name) const {
  MutexLock lock(mutex_);
  if (entries_.empty()) return service_unavailable("No model is loaded yet.");
  if (!name) {
    if (entries_.size() == 1) return entries_[0].completer;
    return invalid_request("Several models are served: name one in 'model'.", "model");
  }
  for (const Entry& entry : entries_)
    if (entry.name == *name) return entry.completer;
  return model_not_found(*name);
}

ApiResult<std::shared_ptr<Completer>> ModelSet::find_for(const Caller& caller,
                                                         const std::optional<std::string>& name) const {
  auto found = find(name);
  if (std::holds_alternative<ApiError>(found)) return found;
  const std::string model = std::get<0>(found)->info().id;
  if (!caller.may_use_model(model)) return model_not_allowed(model);
  return found;
}

std::vector<ModelInfo> ModelSet::list() const {
  MutexLock lock(mutex_);
  std::vector<ModelInfo> infos;
  for (const Entry& entry : entries_) infos.push_back(entry.completer->info());
  return infos;
}

}  // namespace tessera::api
