// Reads a config.json so that no field is passed over in silence: each is used, known to be harmless, or
// refused by name.
#pragma once

#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

#include "base/json.h"

namespace tessera::model {

// Getters remember the first error and return their fallback (or the lower bound) after it, so that a family
// reads straight through; finish() tells. A null counts as absent.
class ConfigReader {
 public:
  // `where` is put before keys in messages: "" or "rope_scaling.".
  explicit ConfigReader(const Json& object, std::string where = "");

  bool has(std::string_view key) const { return find(key) != nullptr; }
  bool mentions(std::string_view key) const;  // present, be it as null
  // Null when absent; marks the key as used.
  const Json* get(std::string_view key);

  int required_count(std::string_view key, int max);  // in [1, max]
  int count(std::string_view key, int fallback, int min, int max);
  double number(std::string_view key, double fallback);  // finite
  double positive(std::string_view key, double fallback);
  float soft_cap(std::string_view key, double fallback);  // positive; 0 for a null: none
  bool flag(std::string_view key, bool fallback);
  std::string text(std::string_view key, std::string_view fallback);
  std::vector<double> numbers(std::string_view key, size_t max_size);
  std::vector<int> token_ids(std::string_view key, int vocab);  // one id or a list

  void ignore(std::string_view key) { used_.insert(std::string(key)); }
  void fail(Status status);
  Status refuse(std::string_view key, std::string_view why) const;
  const Status& status() const { return status_; }

  // The first error, or Unsupported naming a field that nothing used and that is not known to be harmless.
  Status finish() const;

 private:
  const Json* find(std::string_view key) const;

  const Json& object_;
  const std::string where_;
  std::set<std::string, std::less<>> used_;
  Status status_;
};

}  // namespace tessera::model
