#include "api/chat_messages.h"

#include <nlohmann/json.hpp>

#include "api/field_reader.h"

namespace tessera::api {
namespace {

constexpr size_t kMaxTemplateValues = 4096;  // an ordered object finds its keys by walking them

std::string at(size_t index, const char* field) {
  return "messages[" + std::to_string(index) + "]" + (*field ? "." : "") + field;
}

bool present(const Json& object, const char* key) {
  const auto it = object.find(key);
  return it != object.end() && !it->is_null();
}

// Text of one content part, or the error that names it.
ApiResult<std::string> part_text(const Json& part, const std::string& param) {
  if (part.is_string()) return part.get<std::string>();
  if (!part.is_object()) return invalid_request("A content part must be an object with 'type'.", param);
  const auto type = part.find("type");
  if (type == part.end() || !type->is_string())
    return invalid_request("A content part needs a 'type'.", param + ".type");
  const std::string kind = type->get<std::string>();
  if (kind != "text" && kind != "refusal")
    return invalid_request("Content parts of type '" + kind + "' are not supported; only text is.", param);
  const auto text = part.find(kind);
  if (text == part.end() || !text->is_string())
    return invalid_request("A " + kind + " part needs the string '" + kind + "'.", param + "." + kind);
  return text->get<std::string>();
}

ApiResult<std::string> content_text(const Json& message, const std::string& role, size_t index) {
  const std::string param = at(index, "content");
  const auto content = message.find("content");
  if (content == message.end() || content->is_null()) {
    if (role == "assistant") return std::string();
    return invalid_request("A message of role '" + role + "' needs content.", param);
  }
  if (content->is_string()) return content->get<std::string>();
  if (!content->is_array())
    return invalid_request("A message's content must be a string or a list of parts.", param);
  std::string joined;
  for (size_t i = 0; i < content->size(); ++i) {
    auto text = part_text((*content)[i], param + "[" + std::to_string(i) + "]");
    if (auto* error = std::get_if<ApiError>(&text)) return std::move(*error);
    if (i > 0) joined += '\n';
    joined += std::get<std::string>(text);
  }
  return joined;
}

ApiResult<OrderedJson> parse_message(const Json& message, size_t index, bool tools) {
  if (!message.is_object()) return invalid_request("Each message must be an object.", at(index, ""));
  const auto role_field = message.find("role");
  if (role_field == message.end() || !role_field->is_string())
    return invalid_request("Each message needs a 'role'.", at(index, "role"));
  std::string role = role_field->get<std::string>();
  if (role == "developer") role = "system";
  if (role != "system" && role != "user" && role != "assistant" && role != "tool" && role != "function")
    return invalid_request(
        "Unknown role '" + role + "'; it must be system, developer, user, assistant or tool.",
        at(index, "role"));
  for (const char* refused : {"tool_calls", "function_call", "audio"}) {
    if (tools && std::string_view(refused) == "tool_calls") continue;
    if (present(message, refused) && !(message[refused].is_array() && message[refused].empty()))
      return invalid_request("'" + std::string(refused) + "' is not supported.", at(index, refused));
  }
  auto content = content_text(message, role, index);
  if (auto* error = std::get_if<ApiError>(&content)) return std::move(*error);
  OrderedJson out{{"role", role}, {"content", std::get<std::string>(std::move(content))}};
  if (tools && present(message, "tool_calls")) {
    if (!message["tool_calls"].is_array())
      return invalid_request("'tool_calls' must be a list.", at(index, "tool_calls"));
    out["tool_calls"] = message["tool_calls"];
  }
  for (const char* kept : {"name", "tool_call_id", "reasoning_content"}) {
    if (!present(message, kept)) continue;
    const Json& value = message[kept];
    if (!value.is_string())
      return invalid_request("'" + std::string(kept) + "' must be a string.", at(index, kept));
    out[kept] = value.get<std::string>();
  }
  return out;
}

size_t count_values(const Json& value) {
  size_t count = 1;
  if (value.is_structured())
    for (const Json& child : value) count += count_values(child);
  return count;
}

}  // namespace

ApiResult<std::shared_ptr<const OrderedJson>> parse_messages(const Json* messages, bool tools) {
  if (!messages) return invalid_request("'messages' is missing.", "messages");
  if (!messages->is_array() || messages->empty())
    return invalid_request("'messages' must be a list of at least one message.", "messages");
  OrderedJson out = OrderedJson::array();
  for (size_t i = 0; i < messages->size(); ++i) {
    auto message = parse_message((*messages)[i], i, tools);
    if (auto* error = std::get_if<ApiError>(&message)) return std::move(*error);
    out.push_back(std::get<OrderedJson>(std::move(message)));
  }
  return std::shared_ptr<const OrderedJson>(std::make_shared<OrderedJson>(std::move(out)));
}

ApiResult<text::ChatEnding> parse_chat_ending(const Json& body, const OrderedJson& messages) {
  FieldReader fields(body);
  const bool go_on = fields.boolean("continue_final_message", false);
  const bool prompt = fields.boolean("add_generation_prompt", !go_on);
  if (go_on && prompt)
    fields.fail("continue_final_message",
                "'continue_final_message' and 'add_generation_prompt' cannot both be true.");
  if (go_on && messages.back()["role"] != "assistant")
    fields.fail("continue_final_message", "'continue_final_message' needs a last message of the assistant.");
  if (!fields.ok()) return *fields.error();
  return go_on ? text::ChatEnding::kOpen : prompt ? text::ChatEnding::kAnswerPrompt : text::ChatEnding::kNone;
}

ApiResult<std::shared_ptr<const OrderedJson>> parse_template_variables(const Json* variables) {
  if (!variables) return std::shared_ptr<const OrderedJson>();
  if (!variables->is_object())
    return invalid_request("'chat_template_kwargs' must be an object.", "chat_template_kwargs");
  if (count_values(*variables) > kMaxTemplateValues)
    return invalid_request("'chat_template_kwargs' holds too many values.", "chat_template_kwargs");
  for (const char* reserved : {"messages", "tools", "documents"}) {
    if (variables->contains(reserved))
      return invalid_request("'chat_template_kwargs' must not set '" + std::string(reserved) + "'.",
                             "chat_template_kwargs");
  }
  return std::shared_ptr<const OrderedJson>(std::make_shared<OrderedJson>(*variables));
}

}  // namespace tessera::api
