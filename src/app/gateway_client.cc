#include "app/gateway_client.h"

#include <chrono>
#include <cstdio>

#include "app/command.h"
#include "app/gateway_file.h"
#include "net/http_client.h"

namespace tessera::app {

Result<Json> ask_gateway(const ClusterOptions& options, const std::string& method, const std::string& path,
                         const Json& body) {
  GatewayAddress address{options.gateway, options.api_key};
  if (options.gateway.empty()) {
    TESSERA_ASSIGN_OR_RETURN(address, read_gateway_file());
    if (!options.api_key.empty()) address.api_key = options.api_key;
  }
  while (address.url.ends_with('/')) address.url.pop_back();
  net::HttpClientRequest request;
  request.method = method;
  request.url = address.url + path;
  request.total_timeout = std::chrono::seconds(60);
  if (!address.api_key.empty()) request.headers.emplace_back("Authorization", "Bearer " + address.api_key);
  if (!body.is_null()) {
    request.headers.emplace_back("Content-Type", "application/json");
    request.body = dump_json(body);
  }
  auto reply = net::http_request(request);
  if (!reply.ok()) return reply.status().with_context("the gateway at " + address.url);
  Result<Json> answer = parse_json(reply->body);
  if (reply->status == 200 && answer.ok()) return answer;
  std::string why = "status " + std::to_string(reply->status);
  if (answer.ok() && answer->is_object() && answer->contains("error"))
    why = (*answer)["error"].value("message", why);
  return Status(reply->status == 404 ? Code::kNotFound : Code::kUnavailable, why);
}

std::string text_at(const Json& object, const char* name) {
  const auto found = object.find(name);
  return found != object.end() && found->is_string() ? found->get<std::string>() : std::string();
}

int print_json(const Json& json) {
  std::printf("%s\n", dump_json(json).c_str());
  return kDone;
}

}  // namespace tessera::app
