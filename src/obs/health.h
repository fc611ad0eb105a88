// What /ready answers from: every part of the process says whether it can serve.
#pragma once

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "base/mutex.h"

namespace tessera::obs {

// Thread-safe.
class Health {
 public:
  // A part joins with its first call. `reason` says to a person why it is not ok; ignored when ok.
  void set(const std::string& component, bool ok, std::string reason = {});
  // A part that can be missed for a while: it never makes the process unready, only degraded.
  void set_optional(const std::string& component, bool ok, std::string reason = {});
  void remove(const std::string& component);
  // True when at least one part has joined and all are ok. Else `why` (may be null) gets
  // "model: loading; database: connection refused".
  bool ready(std::string* why = nullptr) const;
  // The optional parts that are not ok, each with its reason.
  std::vector<std::pair<std::string, std::string>> degraded() const;

 private:
  struct Component {
    bool ok = false;
    std::string reason;
    bool optional = false;
  };
  mutable Mutex mutex_;
  std::map<std::string, Component> components_ TESSERA_GUARDED_BY(mutex_);
};

}  // namespace tessera::obs
