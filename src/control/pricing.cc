#include "control/pricing.h"

#include <cmath>
#include <nlohmann/json.hpp>

#include "base/json.h"
#include "control/tenants.h"

namespace tessera::control {
namespace {

constexpr std::array<std::string_view, kUsageTypes> kNames = {
    "llm_tokens",      "llm_requests",     "image_gen",  "image_pixels",
    "whisper_seconds", "embedding_tokens", "gpu_seconds"};
constexpr double kMostPrice = 1e6;
constexpr int64_t kThousand = 1000;

// How many units a price as written is for.
int64_t units_of(UsageType type) {
  return type == UsageType::kLlmTokens || type == UsageType::kEmbeddingTokens ? kThousand : 1;
}

}  // namespace

std::string_view usage_type_name(UsageType type) {
  return kNames[static_cast<size_t>(type)];
}

Result<UsageType> parse_usage_type(std::string_view name) {
  for (size_t i = 0; i < kNames.size(); ++i)
    if (kNames[i] == name) return static_cast<UsageType>(i);
  return invalid_argument("'" + std::string(name) + "' is no type of usage");
}

PriceList PriceList::defaults() {
  return *parse(R"({"llm_tokens": 0.002, "llm_requests": 0.01, "image_gen": 0.1, "image_pixels": 0.00001,
                    "whisper_seconds": 0.006, "embedding_tokens": 0.0001, "gpu_seconds": 0.001})");
}

Result<PriceList> PriceList::parse(std::string_view text) {
  TESSERA_ASSIGN_OR_RETURN(const Json json, parse_json(text));
  if (!json.is_object()) return invalid_argument("prices are an object: {\"llm_tokens\": 0.002}");
  PriceList list;
  for (const auto& [name, value] : json.items()) {
    TESSERA_ASSIGN_OR_RETURN(const UsageType type, parse_usage_type(name));
    if (!value.is_number() || !(value.get<double>() >= 0) || value.get<double>() > kMostPrice)
      return invalid_argument("the price of '" + name + "' must be between 0 and a million");
    const double nano = value.get<double>() * static_cast<double>(kNano);
    list.per_thousand_[type] = std::llround(nano * static_cast<double>(kThousand / units_of(type)));
  }
  return list;
}

std::string PriceList::text() const {
  Json json = Json::object();
  for (const auto& [type, price] : per_thousand_)
    json[std::string(usage_type_name(type))] = static_cast<double>(price) / static_cast<double>(kNano) /
                                               static_cast<double>(kThousand / units_of(type));
  return dump_json(json);
}

PriceList PriceList::over(const PriceList& other) const {
  PriceList merged = *this;
  merged.per_thousand_.insert(other.per_thousand_.begin(), other.per_thousand_.end());
  return merged;
}

int64_t PriceList::amount(UsageType type, int64_t quantity) const {
  const auto price = per_thousand_.find(type);
  if (price == per_thousand_.end() || quantity <= 0) return 0;
  __extension__ using Wide = __int128;
  const Wide nano = (static_cast<Wide>(price->second) * quantity + kThousand / 2) / kThousand;
  return nano > INT64_MAX ? INT64_MAX : static_cast<int64_t>(nano);
}

}  // namespace tessera::control
