#include "obs/health.h"

#include <utility>

namespace tessera::obs {

void Health::set(const std::string& component, bool ok, std::string reason) {
  MutexLock lock(mutex_);
  components_[component] = {ok, ok ? std::string() : std::move(reason), false};
}

void Health::set_optional(const std::string& component, bool ok, std::string reason) {
  MutexLock lock(mutex_);
  components_[component] = {ok, ok ? std::string() : std::move(reason), true};
}

void Health::remove(const std::string& component) {
  MutexLock lock(mutex_);
  components_.erase(component);
}

bool Health::ready(std::string* why) const {
  MutexLock lock(mutex_);
  std::string problems;
  bool any = false;
  for (const auto& [name, component] : components_) {
    any = any || !component.optional;
    if (component.ok || component.optional) continue;
    if (!problems.empty()) problems += "; ";
    problems += name + ": " + (component.reason.empty() ? "not ready" : component.reason);
  }
  if (!any) problems = "nothing has started yet";
  if (why) *why = problems;
  return problems.empty();
}

std::vector<std::pair<std::string, std::string>> Health::degraded() const {
  MutexLock lock(mutex_);
  std::vector<std::pair<std::string, std::string>> parts;
  for (const auto& [name, component] : components_)
    if (component.optional && !component.ok) parts.emplace_back(name, component.reason);
  return parts;
}

}  // namespace tessera::obs
