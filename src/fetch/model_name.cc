#include "fetch/model_name.h"

#include <algorithm>

namespace tessera::fetch {
namespace {

constexpr size_t kMaxNameBytes = 512;

bool is_letter_or_digit(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}
bool all_of_name(std::string_view text, std::string_view more) {
  return std::all_of(text.begin(), text.end(),
                     [&](char c) { return is_letter_or_digit(c) || more.find(c) != std::string_view::npos; });
}

}  // namespace

bool is_safe_path(std::string_view path) {
  if (path.empty() || path.size() > kMaxNameBytes) return false;
  for (char c : path) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f || c == '\\') return false;
  }
  while (true) {
    const size_t slash = path.find('/');
    const std::string_view part = path.substr(0, slash);
    if (part.empty() || part.front() == '.' || part.size() > 200) return false;
    if (slash == std::string_view::npos) return true;
    path.remove_prefix(slash + 1);
  }
}

Result<HubName> parse_hub_name(std::string_view name) {
  const Status refused = invalid_argument("'" + std::string(name.substr(0, kMaxNameBytes)) +
                                          "' is not of the form ORG/NAME[@REVISION][:FILE]");
  if (name.size() > kMaxNameBytes) return refused;
  HubName hub;
  if (const size_t colon = name.find(':'); colon != std::string_view::npos) {
    hub.file = std::string(name.substr(colon + 1));
    if (!is_safe_path(hub.file)) return refused;
    name = name.substr(0, colon);
  }
  if (const size_t at = name.find('@'); at != std::string_view::npos) {
    hub.revision = std::string(name.substr(at + 1));
    if (!is_safe_path(hub.revision) || !all_of_name(hub.revision, "-._/")) return refused;
    name = name.substr(0, at);
  }
  hub.repository = std::string(name);
  if (std::count(name.begin(), name.end(), '/') != 1 || !is_safe_path(name) || !all_of_name(name, "-._/"))
    return refused;
  return hub;
}

}  // namespace tessera::fetch
