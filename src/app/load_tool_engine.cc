// The compute half alone has no HTTP.
#include "app/command.h"
#include "app/load_tool.h"

namespace tessera::app {

int run_load(const LoadOptions&, bool) {
  return report(
      unsupported("this build of the compute half has no HTTP client: bench --url needs the whole program"));
}

}  // namespace tessera::app
