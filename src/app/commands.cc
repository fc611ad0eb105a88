#include "app/commands.h"

namespace tessera::app {

std::vector<Command> all_commands() {
  return {serve_command(),    run_command(),        chat_command(),     pull_command(),   models_command(),
          gateway_command(),  worker_command(),     status_command(),   plan_command(),   drain_command(),
          token_command(),    keys_command(),       users_command(),    audit_command(),  jobs_command(),
          tokenize_command(), detokenize_command(), template_command(), logits_command(), bench_command(),
          doctor_command()};
}

}  // namespace tessera::app
