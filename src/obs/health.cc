#include "obs/health.h"

#include <utility>

namespace tessera::obs {

void Health::set(const std::string& component, bool ok, std::string reason) {
  MutexLock lock(mutex_);
  components_[component] = {ok, ok ? std::string() : std::move(reason)};
}

void Health::remove(const std::string& component) {
  MutexLock lock(mutex_);
  components_.erase(component);
}

bool Health::ready(std::string* why) const {
  MutexLock lock(mutex_);
  std::string problems;
  for (const auto& [name, component] : components_) {
    if (component.ok) continue;
    if (!problems.empty()) problems += "; ";
    problems += name + ": " + (component.reason.empty() ? "not ready" : component.reason);
  }
  if (components_.empty()) problems = "nothing has started yet";
  if (why) *why = problems;
  return problems.empty();
}

}  // namespace tessera::obs
