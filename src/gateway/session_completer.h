// SessionCompleter: our own way to complete a request. Renders the chat template, tokenises, opens one
// session per choice, and turns committed tokens back into text, stop strings and log-probabilities.
#pragma once

#include <memory>

#include "api/completer.h"
#include "base/executor.h"
#include "cluster/session_manager.h"
#include "text/model_text.h"

namespace tessera::gateway {

struct ServedModel {
  api::ModelInfo info;
  text::ModelText text;
  std::string system_fingerprint;  // names the numerics class: equal fingerprints give equal tokens
};

// Thread-safe. `sessions` and `prepare` (where templates and tokenizers run) must outlive it and its
// completions.
std::shared_ptr<api::Completer> make_session_completer(ServedModel model, cluster::SessionManager& sessions,
                                                       Executor& prepare);

}  // namespace tessera::gateway
