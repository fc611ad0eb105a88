// The compute half alone has no model store: a model is a path.
#include "app/model_names.h"

namespace tessera::app {

Result<std::filesystem::path> find_model(const std::string& name) {
  if (name.empty()) return invalid_argument("say which model: --model PATH");
  std::error_code error;
  if (std::filesystem::exists(name, error)) return std::filesystem::path(name);
  return not_found(name + " does not exist; this build of the compute half takes paths only");
}

}  // namespace tessera::app
