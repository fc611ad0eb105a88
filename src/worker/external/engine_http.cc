#include "worker/external/engine_http.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "worker/external/openai_wire.h"

namespace tessera::worker::external {
namespace {

constexpr std::chrono::milliseconds kQuick{5000};
constexpr std::chrono::seconds kProbeLimit{120};  // a first request may load the model
constexpr const char* kProbeWord = "tessera-probe";
constexpr size_t kMostModels = 256;

const Json* choice_of(const Json& answer, size_t index) {
  const auto choices = answer.find("choices");
  if (choices == answer.end() || !choices->is_array() || choices->size() <= index) return nullptr;
  const Json& choice = (*choices)[index];
  return choice.is_object() ? &choice : nullptr;
}
const Json* message_of(const Json& answer, size_t index = 0) {
  const Json* choice = choice_of(answer, index);
  if (choice == nullptr) return nullptr;
  const auto message = choice->find("message");
  return message != choice->end() && message->is_object() ? &*message : nullptr;
}
std::string content_of(const Json& answer) {
  const Json* message = message_of(answer);
  if (message == nullptr) return {};
  const auto content = message->find("content");
  return content != message->end() && content->is_string() ? content->get<std::string>() : std::string();
}

bool is_chat(const Json& answer) {
  return message_of(answer) != nullptr;
}
bool is_text(const Json& answer) {
  const Json* choice = choice_of(answer, 0);
  return choice != nullptr && choice->contains("text") && (*choice)["text"].is_string();
}
bool has_two(const Json& answer) {
  return message_of(answer, 1) != nullptr;
}
bool has_scores(const Json& answer) {
  const Json* choice = choice_of(answer, 0);
  if (choice == nullptr || !choice->contains("logprobs") || !(*choice)["logprobs"].is_object()) return false;
  const Json& logprobs = (*choice)["logprobs"];
  return logprobs.contains("content") && logprobs["content"].is_array() && !logprobs["content"].empty() &&
         logprobs["content"][0].is_object() && logprobs["content"][0].contains("logprob");
}
// Nobody says this unless he is made to.
bool is_the_word(const Json& answer) {
  const Result<Json> value = parse_json(content_of(answer));
  return value.ok() && value->is_object() && value->value("word", Json()) == kProbeWord;
}
// A model may be cut short in the middle of its object: then it has at least begun one.
bool is_json(const Json& answer) {
  const std::string text = content_of(answer);
  const size_t begin = text.find_first_not_of(" \t\r\n");
  return begin != std::string::npos && text[begin] == '{' && text.find("```") == std::string::npos;
}
bool calls_tool(const Json& answer) {
  const Json* message = message_of(answer);
  if (message == nullptr || !message->contains("tool_calls")) return false;
  const Json& calls = (*message)["tool_calls"];
  return calls.is_array() && !calls.empty() && calls[0].is_object() && calls[0].contains("function") &&
         calls[0]["function"].is_object() && calls[0]["function"].value("name", Json()) == "note";
}

OrderedJson chat(const std::string& model, const char* text, int max_tokens) {
  return {{"model", model},
          {"messages", {{{"role", "user"}, {"content", text}}}},
          {"max_tokens", max_tokens},
          {"temperature", 0}};
}

}  // namespace

EngineHttp::EngineHttp(EngineAddress address, const EngineProfile& profile,
                       std::shared_ptr<net::HttpCanceller> canceller)
    : address_(std::move(address)), profile_(profile), canceller_(std::move(canceller)) {}

net::Headers EngineHttp::headers(const EngineAddress& address) {
  net::Headers headers{{"Content-Type", "application/json"}};
  if (!address.api_key.empty()) headers.emplace_back("Authorization", "Bearer " + address.api_key);
  return headers;
}

net::HttpClientRequest EngineHttp::request(const std::string& path, std::chrono::milliseconds limit) const {
  net::HttpClientRequest request;
  request.url = address_.base + path;
  request.headers = headers(address_);
  request.connect_timeout = kQuick;
  request.idle_timeout = limit;
  request.total_timeout = limit;
  request.max_redirects = 0;
  request.ca_file = address_.ca_file;
  request.max_body_bytes = uint64_t{16} << 20;
  request.canceller = canceller_;
  return request;
}

Status EngineHttp::health() {
  const auto reply = net::http_request(request(profile_.health_path, kQuick));
  if (!reply.ok()) return reply.status();
  if (reply->status / 100 == 2) return {};
  return unavailable(std::string(profile_.title) + " answers HTTP " + std::to_string(reply->status) + " at " +
                     profile_.health_path);
}

Result<Json> EngineHttp::get_json(const std::string& path) {
  TESSERA_ASSIGN_OR_RETURN(const net::HttpReply reply, net::http_request(request(path, kQuick)));
  if (reply.status / 100 != 2) return unavailable(path + " answers HTTP " + std::to_string(reply.status));
  TESSERA_ASSIGN_OR_RETURN(Json json, parse_json(reply.body));
  if (!json.is_object()) return corrupt(path + " answers no JSON object");
  return json;
}

Result<Json> EngineHttp::post_json(const std::string& path, const OrderedJson& body,
                                   std::chrono::seconds limit) {
  net::HttpClientRequest post = request(path, limit);
  post.method = "POST";
  post.body = dump_json(body);
  TESSERA_ASSIGN_OR_RETURN(const net::HttpReply reply, net::http_request(post));
  if (reply.status / 100 != 2) {
    const std::string why = engine_error(reply.status, reply.body, profile_).message;
    return unsupported("HTTP " + std::to_string(reply.status) + " " + why.substr(0, 200));
  }
  TESSERA_ASSIGN_OR_RETURN(Json json, parse_json(reply.body));
  if (!json.is_object()) return corrupt(path + " answers no JSON object");
  return json;
}

int EngineHttp::context_of(const Json& entry, const std::string& name) {
  const auto number = [](const Json& object, const char* pointer) {
    const Json::json_pointer where(pointer);
    if (!object.contains(where) || !object[where].is_number_integer()) return 0;
    return static_cast<int>(std::clamp<int64_t>(object[where].get<int64_t>(), 0, 1 << 22));
  };
  for (const char* pointer : profile_.context_in_model)
    if (const int context = number(entry, pointer); context > 0) return context;
  if (profile_.context_path != nullptr)
    if (const auto answer = get_json(profile_.context_path); answer.ok())
      if (const int context = number(*answer, profile_.context_pointer); context > 0) return context;
  if (profile_.more_of_model_path != nullptr) {
    const auto more = post_json(profile_.more_of_model_path, {{"model", name}}, std::chrono::seconds(5));
    if (more.ok() && more->contains("model_info") && (*more)["model_info"].is_object())
      for (const auto& [key, value] : (*more)["model_info"].items())
        if (key.ends_with(profile_.context_suffix) && value.is_number_unsigned())
          return static_cast<int>(std::min<uint64_t>(value.get<uint64_t>(), 1u << 22));
  }
  return 0;
}

Result<std::vector<EngineModel>> EngineHttp::models() {
  TESSERA_ASSIGN_OR_RETURN(const Json answer, get_json("/v1/models"));
  const auto data = answer.find("data");
  if (data == answer.end() || !data->is_array()) return corrupt("/v1/models answers no list");
  std::vector<EngineModel> models;
  for (const Json& entry : *data) {
    if (!entry.is_object() || !entry.contains("id") || !entry["id"].is_string()) continue;
    std::string name = entry["id"].get<std::string>();
    if (name.empty() || name.size() > 256 || models.size() >= kMostModels) continue;
    const int context = context_of(entry, name);
    models.push_back({std::move(name), context});
  }
  if (models.empty()) return unavailable(std::string(profile_.title) + " serves no model");
  return models;
}

std::string EngineHttp::version() {
  if (profile_.version_path == nullptr) return {};
  const auto answer = get_json(profile_.version_path);
  const Json::json_pointer where(profile_.version_pointer);
  if (!answer.ok() || !answer->contains(where) || !(*answer)[where].is_string()) return {};
  return (*answer)[where].get<std::string>().substr(0, 100);
}

LoadFigures EngineHttp::load() {
  if (profile_.metrics == MetricsFormat::kNone) return {};
  const auto reply = net::http_request(request(profile_.metrics_path, kQuick));
  if (!reply.ok() || reply->status / 100 != 2) return {};
  return read_load(reply->body, profile_);
}

bool EngineHttp::tried(EngineProbe& probe, EngineFeatures feature, const Result<Json>& answer,
                       bool (*good)(const Json& answer)) {
  if (answer.ok() && good(*answer)) {
    probe.features |= feature;
    return true;
  }
  for (size_t bit = 0; bit < engine_feature::kNames.size(); ++bit)
    if (feature == 1u << bit)
      probe.refusals.push_back(std::string(engine_feature::kNames[bit]) + ": " +
                               (answer.ok() ? "the answer does without it" : answer.status().message()));
  return false;
}

Result<EngineProbe> EngineHttp::probe(const std::string& wanted) {
  using namespace engine_feature;  // NOLINT: the bits
  EngineProbe probe;
  TESSERA_ASSIGN_OR_RETURN(probe.models, models());
  if (!wanted.empty()) {
    std::erase_if(probe.models, [&](const EngineModel& model) { return model.name != wanted; });
    if (probe.models.empty())
      return not_found(std::string(profile_.title) + " serves no model named " + wanted);
  }
  const std::string model = probe.models.front().name;
  probe.version = version();
  probe.features = profile_.documented();
  constexpr const char* kChatPath = "/v1/chat/completions";
  constexpr const char* kTextPath = "/v1/completions";
  // Both may be refused by a model without a chat template, or by a server without the older route; not both.
  const auto first = post_json(kChatPath, chat(model, "Hi", 1), kProbeLimit);
  if (!first.ok() && first.status().code() != Code::kUnsupported)
    return first.status().with_context("probing " + std::string(profile_.title));
  const bool chats = tried(probe, kChat, first, is_chat);
  const auto text = post_json(
      kTextPath, {{"model", model}, {"prompt", "Hi"}, {"max_tokens", 1}, {"temperature", 0}}, kProbeLimit);
  const bool texts = tried(probe, kText, text, is_text);
  if (!chats && !texts)
    return unavailable(std::string(profile_.title) + " completes nothing: " + first.status().message());
  if (texts)
    tried(probe, kTokenPrompts,
          post_json(kTextPath, {{"model", model}, {"prompt", {1, 2}}, {"max_tokens", 1}, {"temperature", 0}},
                    kProbeLimit),
          is_text);
  if (!chats) return probe;

  OrderedJson body = chat(model, "Hi", 1);
  body["n"] = 2;
  tried(probe, kChoices, post_json(kChatPath, body, kProbeLimit), has_two);

  body = chat(model, "Hi", 1);
  body["logprobs"] = true;
  body["top_logprobs"] = 1;
  tried(probe, kLogprobs, post_json(kChatPath, body, kProbeLimit), has_scores);

  body = chat(model, "Hi", 32);
  body["response_format"] = {{"type", "json_schema"},
                             {"json_schema",
                              {{"name", "probe"},
                               {"strict", true},
                               {"schema",
                                {{"type", "object"},
                                 {"properties", {{"word", {{"type", "string"}, {"enum", {kProbeWord}}}}}},
                                 {"required", {"word"}},
                                 {"additionalProperties", false}}}}}};
  tried(probe, kJsonSchema, post_json(kChatPath, body, kProbeLimit), is_the_word);

  body = chat(model, "Write JSON: an object whose key is a.", 24);
  body["response_format"] = {{"type", "json_object"}};
  tried(probe, kJsonObject, post_json(kChatPath, body, kProbeLimit), is_json);

  body = chat(model, "Note the word apple with the tool.", 64);
  body["tools"] = {{{"type", "function"},
                    {"function",
                     {{"name", "note"},
                      {"description", "Notes a word."},
                      {"parameters",
                       {{"type", "object"},
                        {"properties", {{"word", {{"type", "string"}, {"enum", {"apple"}}}}}},
                        {"required", {"word"}}}}}}}};
  body["tool_choice"] = "required";
  tried(probe, kTools, post_json(kChatPath, body, kProbeLimit), calls_tool);
  return probe;
}

void EngineHttp::abort(const std::string& request_id) {
  if (profile_.abort_path == nullptr) return;
  static_cast<void>(
      post_json(profile_.abort_path, {{profile_.abort_field, request_id}}, std::chrono::seconds(2)));
}

}  // namespace tessera::worker::external
