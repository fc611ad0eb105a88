// Verbs of the compute half alone (TESSERA_CLUSTER=OFF).
#include "app/commands.h"

namespace tessera::app {

std::vector<Command> all_commands() {
  return {tokenize_command(), detokenize_command(), template_command(),
          logits_command(),   bench_command(),      doctor_command()};
}

}  // namespace tessera::app
