// The verbs, one file each.
#pragma once

#include "app/command.h"

namespace tessera::app {

Command serve_command();
Command run_command();
Command chat_command();
Command pull_command();
Command models_command();
Command tokenize_command();
Command detokenize_command();
Command template_command();
Command logits_command();
Command bench_command();
Command doctor_command();
Command gateway_command();
Command worker_command();
Command status_command();
Command plan_command();
Command drain_command();
Command token_command();
Command keys_command();
Command jobs_command();
Command users_command();
Command audit_command();

}  // namespace tessera::app
