// The models that are served right now, by name.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "api/caller.h"
#include "api/completer.h"
#include "api/errors.h"
#include "base/mutex.h"

namespace tessera::api {

// Thread-safe. A completer handed out stays alive for its holder after remove().
class ModelSet {
 public:
  // Served under completer->info().id; a completer of the same name is replaced.
  void add(std::shared_ptr<Completer> completer);
  void remove(const std::string& name);

  // nullopt (a request without `model`): the only model, or a 400 when there are several. Unknown: 404.
  ApiResult<std::shared_ptr<Completer>> find(const std::optional<std::string>& name) const;
  // As find(), within what the caller may use: else 403.
  ApiResult<std::shared_ptr<Completer>> find_for(const Caller& caller,
                                                 const std::optional<std::string>& name) const;
  std::vector<ModelInfo> list() const;  // in the order of add()

 private:
  struct Entry {
    std::string name;
    std::shared_ptr<Completer> completer;
  };
  mutable Mutex mutex_;
  std::vector<Entry> entries_ TESSERA_GUARDED_BY(mutex_);
};

}  // namespace tessera::api
