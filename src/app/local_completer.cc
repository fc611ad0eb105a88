#include "app/local_completer.h"

#include "base/clock.h"
#include "gateway/session_completer.h"

namespace tessera::app {

LocalCompleter::LocalCompleter(LocalCluster& local) : prepare_(make_thread_executor("prepare")) {
  const OpenedModel& opened = local.model();
  gateway::ServedModel served;
  served.info.id = opened.served_name;
  served.info.created = SystemClock().unix_time_ms() / 1000;
  served.info.context_length = opened.context_length;
  served.info.vocab_size = opened.spec.vocab;
  served.info.has_tokenizer = opened.text.tokenizer != nullptr;
  served.info.has_chat_template = opened.text.chat_template != nullptr;
  served.text = opened.text;
  served.system_fingerprint = local.fingerprint();
  completer_ = gateway::make_session_completer(std::move(served), local.sessions(), *prepare_);
}

}  // namespace tessera::app
