// Reads typed fields of a user's JSON object. The first wrong field is kept as the error and later reads give
// their fallback, so a parser reads everything in a row and asks once at the end.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "api/errors.h"
#include "base/json.h"

namespace tessera::api {

// Not thread-safe; `object` must outlive the reader and be a JSON object. An absent field and one that is
// null are the same: the fallback. Ranges include both ends.
class FieldReader {
 public:
  explicit FieldReader(const Json& object) : object_(object) {}

  // nullptr when absent or null.
  const Json* find(const char* name) const;
  bool boolean(const char* name, bool fallback);
  int64_t integer(const char* name, int64_t fallback, int64_t low, int64_t high);
  double number(const char* name, double fallback, double low, double high);
  std::string text(const char* name, std::string fallback = {});
  std::vector<std::string> texts(const char* name, std::vector<std::string> fallback = {});
  // Token ids inside [0, vocab_size); `what` names the list in messages.
  std::vector<TokenId> token_ids(const Json& list, const std::string& what, int vocab_size);

  void fail(ApiError error);
  // 400 with `param` = name.
  void fail(const std::string& name, std::string message);
  const std::optional<ApiError>& error() const { return error_; }
  bool ok() const { return !error_; }

 private:
  const Json& object_;
  std::optional<ApiError> error_;
};

// The value as an integer: JSON integers, and floats without a fraction (1e3). nullopt for all else, and for
// what does not fit.
std::optional<int64_t> json_integer(const Json& value);

}  // namespace tessera::api
