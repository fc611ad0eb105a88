// What usage costs: prices by type, a tenant's own before its plan's before the defaults.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>

#include "base/status.h"

namespace tessera::control {

enum class UsageType {
  kLlmTokens,    // prompt and answer
  kLlmRequests,  // answered by an engine that counts no tokens
  kImageGen,
  kImagePixels,
  kWhisperSeconds,
  kEmbeddingTokens,
  kGpuSeconds
};
constexpr size_t kUsageTypes = 7;
std::string_view usage_type_name(UsageType type);  // "llm_tokens"
Result<UsageType> parse_usage_type(std::string_view name);

// Nano (control/tenants.h) for a thousand units: integers, so that bills add up exactly.
class PriceList {
 public:
  static PriceList defaults();
  // {"llm_tokens": 0.002, …}: tokens by the thousand, everything else by the unit. InvalidArgument names what
  // is no type or no price (0 to a million).
  static Result<PriceList> parse(std::string_view json);
  // As parse() takes it.
  std::string text() const;
  // These prices, and the other list's where these are silent.
  PriceList over(const PriceList& other) const;
  // Rounded to the nearest nano. 0 for a type without a price.
  int64_t amount(UsageType type, int64_t quantity) const;

 private:
  std::map<UsageType, int64_t> per_thousand_;
};

}  // namespace tessera::control
