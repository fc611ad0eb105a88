#include "app/gateway_file.h"

#include <sys/stat.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/config.h"
#include "base/files.h"
#include "base/json.h"
#include "base/secrets.h"
#include "obs/log.h"

namespace tessera::app {
namespace {

std::filesystem::path path() {
  return std::filesystem::path(tessera_home()) / "state" / "gateway.json";
}

constexpr std::string_view kAdminPrefix = "adm_";
constexpr size_t kAdminKeyBytes = 32;

}  // namespace

Result<std::string> keep_admin_key() {
  if (Result<GatewayAddress> kept = read_gateway_file(); kept.ok() && kept->api_key.starts_with(kAdminPrefix))
    return kept->api_key;
  TESSERA_ASSIGN_OR_RETURN(const std::string drawn, random_text(kAdminKeyBytes));
  const std::string key = std::string(kAdminPrefix) + drawn;
  TESSERA_RETURN_IF_ERROR(write_gateway_file({"", key}));
  return key;
}

Status write_gateway_file(const GatewayAddress& address) {
  std::error_code error;
  std::filesystem::create_directories(path().parent_path(), error);
  const mode_t old = ::umask(077);
  Status status =
      write_file_atomic(path(), dump_json(Json{{"url", address.url}, {"api_key", address.api_key}}));
  ::umask(old);
  return status;
}

void publish_gateway(const std::string& url, const std::string& admin_key) {
  if (Status kept = write_gateway_file({url, admin_key}); !kept.ok())
    obs::log_warn("gateway", "other verbs will not find this gateway", {{"error", kept.message()}});
}

Result<GatewayAddress> read_gateway_file() {
  auto text = read_file(path(), 1 << 20);
  const Status none = not_found("no gateway has run with this TESSERA_HOME (" + tessera_home() +
                                "): name one with --gateway URL");
  if (!text.ok()) return none;
  TESSERA_ASSIGN_OR_RETURN(Json json, parse_json(*text));
  if (!json.is_object() || !json.contains("url") || !json["url"].is_string())
    return corrupt(path().string() + " does not name a gateway");
  if (json["url"].get_ref<const std::string&>().empty()) return none;  // it has not listened yet
  return GatewayAddress{json["url"].get<std::string>(), json.value("api_key", "")};
}

}  // namespace tessera::app
