#include "app/model_names.h"

#include "base/config.h"
#include "fetch/pull.h"

namespace tessera::app {

Result<std::filesystem::path> find_model(const std::string& name) {
  if (name.empty())
    return invalid_argument("say which model: --model NAME, for example --model smollm2:135m");
  const fetch::ModelStore store{std::filesystem::path(tessera_home()) / "models"};
  return fetch::resolve_model(name, store, fetch::Catalogue::built_in());
}

}  // namespace tessera::app
