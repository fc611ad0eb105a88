// keys: API keys of a running gateway's enterprises.
#include <cstdio>

#include "app/commands.h"
#include "app/gateway_client.h"
#include "net/url.h"

namespace tessera::app {
namespace {

constexpr const char* kEnterprises = "/api/v1/admin/enterprises";

struct KeysOptions : ClusterOptions {
  std::vector<std::string> words;
  std::string enterprise = "default";
  std::string name;
  std::vector<std::string> models, types, addresses;
  double expires_days = 0;
  int requests_per_minute = 0;
  int requests_per_day = 0;
  int tokens_per_minute = 0;
  int concurrent = 0;
  int grace = 0;
  bool require_signature = false;
  template <typename V>
  void fields(V& v) {
    v("=ACTION", words, "list, create, revoke KEY, rotate KEY, enterprises, or enterprise NAME to add one");
    v("enterprise", enterprise, "whose key: an enterprise's code or id");
    v("name", name, "what the new key is for");
    v("allow-model", models, "a model that the new key may use; repeat for several; else all");
    v("allow-type", types, "likewise a type of request: llm");
    v("allow-address", addresses, "likewise a network that it may come from: 10.0.0.0/8");
    v("expires-days", expires_days, "days that the new key is valid; 0 = for ever");
    v("requests-per-minute", requests_per_minute, "limit of the new key; 0 = none");
    v("requests-per-day", requests_per_day, "likewise, a day of UTC");
    v("tokens-per-minute", tokens_per_minute, "likewise, of prompts and answers");
    v("max-concurrent", concurrent, "likewise, requests at a time");
    v("require-signature", require_signature,
      "the new key must sign its requests; its secret alone opens nothing");
    v("grace-seconds", grace, "rotate: the old secret works for so long");
    ClusterOptions::fields(v);
  }
};

std::string path_of(const std::string& enterprise) {
  return std::string(kEnterprises) + "/" + net::percent_encode(enterprise);
}

// The secret alone on stdout, for scripts; what it is on stderr.
int print_secret(const KeysOptions& options, const Result<Json>& made) {
  if (!made.ok()) return report(made.status());
  if (options.json) return print_json(*made);
  std::fprintf(stderr, "key %s; this is shown once and stored nowhere:\n", text_at(*made, "id").c_str());
  std::printf("%s\n", text_at(*made, "api_key").c_str());
  return kDone;
}

int create(const KeysOptions& options) {
  return print_secret(options, ask_gateway(options, "POST", path_of(options.enterprise) + "/api-keys",
                                           Json{{"name", options.name},
                                                {"allowed_models", options.models},
                                                {"allowed_types", options.types},
                                                {"ip_whitelist", options.addresses},
                                                {"expires_days", options.expires_days},
                                                {"rate_limit_per_minute", options.requests_per_minute},
                                                {"daily_limit", options.requests_per_day},
                                                {"tokens_per_minute", options.tokens_per_minute},
                                                {"max_concurrent", options.concurrent},
                                                {"require_signature", options.require_signature}}));
}

int list(const KeysOptions& options) {
  auto answer = ask_gateway(options, "GET", "/api/v1/admin/api-keys");
  if (!answer.ok()) return report(answer.status());
  if (options.json) return print_json(*answer);
  std::printf("%-18s %-18s %-12s %-20s %-22s %s\n", "KEY", "ENTERPRISE", "BEGINS", "NAME", "CREATED",
              "STATE");
  for (const Json& key : (*answer)["api_keys"]) {
    const std::string expires = text_at(key, "expires_at");
    const std::string state = !key.value("is_active", false) ? "revoked"
                              : expires.empty()              ? "valid"
                                                             : "until " + expires;
    std::printf("%-18s %-18s %-12s %-20s %-22s %s\n", text_at(key, "id").c_str(),
                text_at(key, "enterprise_id").c_str(), text_at(key, "prefix").c_str(),
                text_at(key, "name").c_str(), text_at(key, "created_at").c_str(), state.c_str());
  }
  return kDone;
}

// Key ids are unique: whose it is need not be said.
Result<std::string> path_of_key(const KeysOptions& options, const std::string& id) {
  TESSERA_ASSIGN_OR_RETURN(const Json answer, ask_gateway(options, "GET", "/api/v1/admin/api-keys"));
  for (const Json& key : answer["api_keys"])
    if (text_at(key, "id") == id)
      return path_of(text_at(key, "enterprise_id")) + "/api-keys/" + net::percent_encode(id);
  return not_found("there is no key '" + id + "': `tessera keys list` shows them");
}

int revoke(const KeysOptions& options, const std::string& id) {
  auto path = path_of_key(options, id);
  if (!path.ok()) return report(path.status());
  auto answer = ask_gateway(options, "DELETE", *path);
  if (!answer.ok()) return report(answer.status());
  std::printf("%s is revoked\n", id.c_str());
  return kDone;
}

int rotate(const KeysOptions& options, const std::string& id) {
  auto path = path_of_key(options, id);
  if (!path.ok()) return report(path.status());
  return print_secret(
      options, ask_gateway(options, "POST", *path + "/rotate", Json{{"grace_seconds", options.grace}}));
}

int list_enterprises(const KeysOptions& options) {
  auto answer = ask_gateway(options, "GET", kEnterprises);
  if (!answer.ok()) return report(answer.status());
  if (options.json) return print_json(*answer);
  std::printf("%-18s %-18s %-28s %12s %s\n", "CODE", "ID", "NAME", "CREDIT", "STATE");
  for (const Json& e : (*answer)["enterprises"])
    std::printf("%-18s %-18s %-28s %12.4f %s\n", text_at(e, "code").c_str(), text_at(e, "id").c_str(),
                text_at(e, "name").c_str(), e.value("credit_balance", 0.0),
                e.value("is_active", false) ? "active" : "not active");
  return kDone;
}

int add_enterprise(const KeysOptions& options, const std::string& code) {
  auto answer = ask_gateway(options, "POST", kEnterprises,
                            Json{{"code", code}, {"name", options.name.empty() ? code : options.name}});
  if (!answer.ok()) return report(answer.status());
  if (options.json) return print_json(*answer);
  std::printf("%s\n", text_at(*answer, "id").c_str());
  return kDone;
}

int keys(const KeysOptions& options) {
  const std::vector<std::string>& words = options.words;
  const std::string action = words.empty() ? "list" : words[0];
  if (words.size() <= 1) {
    if (action == "list") return list(options);
    if (action == "create") return create(options);
    if (action == "enterprises") return list_enterprises(options);
  } else if (words.size() == 2) {
    if (action == "revoke") return revoke(options, words[1]);
    if (action == "rotate") return rotate(options, words[1]);
    if (action == "enterprise") return add_enterprise(options, words[1]);
  }
  return report(
      invalid_argument("tessera keys list, create, revoke KEY, rotate KEY, enterprises, enterprise NAME"));
}

}  // namespace

Command keys_command() {
  auto options = std::make_shared<KeysOptions>();
  return {"keys", "API keys of a gateway: who may use it, for what, how much",
          "A key is printed once, on stdout. Keys count where the gateway asks for them (--require-key).\n"
          "  tessera keys create --name laptop --allow-address 192.168.0.0/16 --expires-days 90\n"
          "  tessera keys rotate key_w3kYp0aVnN1s --grace-seconds 3600",
          fields_of(*options), [options] { return keys(*options); }};
}

}  // namespace tessera::app
