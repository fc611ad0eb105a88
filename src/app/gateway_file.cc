#include "app/gateway_file.h"

#include <sys/stat.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/config.h"
#include "base/files.h"
#include "base/json.h"

namespace tessera::app {
namespace {

std::filesystem::path path() {
  return std::filesystem::path(tessera_home()) / "state" / "gateway.json";
}

}  // namespace

Status write_gateway_file(const GatewayAddress& address) {
  std::error_code error;
  std::filesystem::create_directories(path().parent_path(), error);
  const mode_t old = ::umask(077);
  Status status =
      write_file_atomic(path(), dump_json(Json{{"url", address.url}, {"api_key", address.api_key}}));
  ::umask(old);
  return status;
}

Result<GatewayAddress> read_gateway_file() {
  auto text = read_file(path(), 1 << 20);
  if (!text.ok())
    return not_found("no gateway has run with this TESSERA_HOME (" + tessera_home() +
                     "): name one with --gateway URL");
  TESSERA_ASSIGN_OR_RETURN(Json json, parse_json(*text));
  if (!json.is_object() || !json.contains("url") || !json["url"].is_string())
    return corrupt(path().string() + " does not name a gateway");
  return GatewayAddress{json["url"].get<std::string>(), json.value("api_key", "")};
}

}  // namespace tessera::app
