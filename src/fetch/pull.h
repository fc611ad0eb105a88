// From a model's name to files on this machine.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include "fetch/catalogue.h"
#include "fetch/download.h"
#include "fetch/store.h"

namespace tessera::fetch {

struct PullOptions {
  std::string hf_endpoint = "https://huggingface.co";
  std::string hf_token;          // empty: none
  Progress* progress = nullptr;  // may be null
  HttpGetter* http = nullptr;    // null: over the network
  RetryPolicy retry;
};

// What to open for `name`, without asking the network: a short name of the catalogue that was pulled, a path
// that exists, or a hub name that was pulled. Else NotFound, with a sentence that says what to do.
Result<std::filesystem::path> resolve_model(std::string_view name, const ModelStore& store,
                                            const Catalogue& catalogue);

// Brings a catalogue's or hub's model into the store and answers what to open. Every file is checked against
// its sum; nothing appears in the store before all are there. What a broken pull left is used by the next.
Result<std::filesystem::path> pull_model(std::string_view name, const ModelStore& store,
                                         const Catalogue& catalogue, const PullOptions& options);

}  // namespace tessera::fetch
