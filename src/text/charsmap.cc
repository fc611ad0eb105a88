#include "text/charsmap.h"

namespace tessera::text {
namespace {

// Fields of a unit of the double array.
bool has_leaf(uint32_t unit) {
  return (unit >> 8 & 1) != 0;
}
uint32_t value(uint32_t unit) {
  return unit & 0x7FFFFFFF;
}
uint32_t label(uint32_t unit) {
  return unit & 0x800000FF;
}
uint32_t offset(uint32_t unit) {
  return (unit >> 10) << ((unit & 0x200) >> 6);
}

uint32_t little_endian(const uint8_t* bytes) {
  return static_cast<uint32_t>(bytes[0]) | static_cast<uint32_t>(bytes[1]) << 8 |
         static_cast<uint32_t>(bytes[2]) << 16 | static_cast<uint32_t>(bytes[3]) << 24;
}

}  // namespace

Result<Charsmap> Charsmap::parse(std::span<const uint8_t> blob) {
  Charsmap map;
  if (blob.empty()) return map;
  if (blob.size() < 4) return corrupt("the precompiled character map is shorter than its header");
  const uint32_t trie_bytes = little_endian(blob.data());
  if (trie_bytes > blob.size() - 4 || trie_bytes % 4 != 0 || trie_bytes == 0)
    return corrupt("the precompiled character map's tree does not fit its " + std::to_string(blob.size()) +
                   " bytes");
  map.units_.resize(trie_bytes / 4);
  for (size_t i = 0; i < map.units_.size(); ++i) map.units_[i] = little_endian(blob.data() + 4 + 4 * i);
  const auto rest = blob.subspan(4 + trie_bytes);
  map.replacements_.assign(rest.begin(), rest.end());
  if (map.replacements_.empty() || map.replacements_.back() != '\0') map.replacements_.push_back('\0');
  return map;
}

std::optional<Charsmap::Match> Charsmap::find(std::string_view text, bool longest) const {
  std::optional<Match> match;
  if (units_.empty()) return match;
  size_t node = offset(units_[0]);
  for (size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<uint8_t>(text[i]);
    node ^= byte;
    if (node >= units_.size() || label(units_[node]) != byte) break;
    const uint32_t unit = units_[node];
    node ^= offset(unit);
    if (!has_leaf(unit)) continue;
    if (node >= units_.size()) break;
    const uint32_t at = value(units_[node]);
    if (at >= replacements_.size()) break;
    match = Match{i + 1, std::string_view(replacements_.data() + at)};
    if (!longest) break;
  }
  return match;
}

}  // namespace tessera::text
