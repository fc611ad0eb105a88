#include "gateway/text_routes.h"

#include <nlohmann/json.hpp>

#include "api/chat_messages.h"
#include "api/errors.h"
#include "api/field_reader.h"
#include "api/openai_request.h"

namespace tessera::gateway {
namespace {

using api::ApiError;
using api::ApiResult;

net::HttpResponse json_response(const OrderedJson& body) {
  net::HttpResponse response;
  response.body = dump_json(body);
  return response;
}

struct TextRequest {
  Json body;
  std::shared_ptr<api::Completer> completer;
};

ApiResult<TextRequest> read_request(const std::string& text, const api::Caller& caller,
                                    const api::ModelSet& models) {
  Result<Json> body = parse_json(text);
  if (!body.ok()) return api::error_from_status(body.status());
  auto name = api::requested_model(*body);
  if (auto* error = std::get_if<ApiError>(&name)) return std::move(*error);
  auto completer = models.find_for(caller, std::get<0>(name));
  if (auto* error = std::get_if<ApiError>(&completer)) return std::move(*error);
  return TextRequest{std::move(*body), std::get<0>(std::move(completer))};
}

ApiResult<std::vector<TokenId>> tokenize(const TextRequest& request, api::FieldReader& fields) {
  const bool special = fields.boolean("add_special_tokens", true);
  const std::string prompt = fields.text("prompt");
  if (!fields.ok()) return *fields.error();
  const Json* messages_field = fields.find("messages");
  if (!messages_field && !fields.find("prompt"))
    return api::invalid_request("'prompt' or 'messages' is missing.", "prompt");

  Result<std::vector<TokenId>> ids = std::vector<TokenId>();
  if (messages_field) {
    auto messages = api::parse_messages(messages_field);
    if (auto* error = std::get_if<ApiError>(&messages)) return std::move(*error);
    auto variables = api::parse_template_variables(fields.find("chat_template_kwargs"));
    if (auto* error = std::get_if<ApiError>(&variables)) return std::move(*error);
    auto ending = api::parse_chat_ending(request.body, *std::get<0>(messages));
    if (auto* error = std::get_if<ApiError>(&ending)) return std::move(*error);
    ids = request.completer->tokenize_chat(*std::get<0>(messages), std::get<0>(variables).get(),
                                           std::get<text::ChatEnding>(ending));
  } else {
    ids = request.completer->tokenize(prompt, special);
  }
  if (!ids.ok()) return api::error_from_status(ids.status());
  return std::move(*ids);
}

OrderedJson model_json(const api::ModelInfo& info) {
  return {{"id", info.id},
          {"object", "model"},
          {"created", info.created},
          {"owned_by", "tessera"},
          {"max_model_len", info.context_length}};
}

}  // namespace

net::HttpResponse tokenize_route(const std::string& body, const api::Caller& caller,
                                 const api::ModelSet& models) {
  auto request = read_request(body, caller, models);
  if (auto* error = std::get_if<ApiError>(&request)) return api::error_response(*error);
  const auto& text = std::get<TextRequest>(request);
  api::FieldReader fields(text.body);
  const bool strings = fields.boolean("return_token_strs", false);
  auto ids = tokenize(text, fields);
  if (auto* error = std::get_if<ApiError>(&ids)) return api::error_response(*error);
  const auto& tokens = std::get<std::vector<TokenId>>(ids);
  OrderedJson answer{{"count", tokens.size()},
                     {"max_model_len", text.completer->info().context_length},
                     {"tokens", tokens},
                     {"token_strs", nullptr}};
  if (strings) {
    answer["token_strs"] = OrderedJson::array();
    for (const TokenId id : tokens) answer["token_strs"].push_back(text.completer->token_text(id));
  }
  return json_response(answer);
}

net::HttpResponse detokenize_route(const std::string& body, const api::Caller& caller,
                                   const api::ModelSet& models) {
  auto request = read_request(body, caller, models);
  if (auto* error = std::get_if<ApiError>(&request)) return api::error_response(*error);
  const auto& text = std::get<TextRequest>(request);
  api::FieldReader fields(text.body);
  const Json* list = fields.find("tokens");
  if (!list) return api::error_response(api::invalid_request("'tokens' is missing.", "tokens"));
  const auto ids = fields.token_ids(*list, "tokens", text.completer->info().vocab_size);
  if (!fields.ok()) return api::error_response(*fields.error());
  const Result<std::string> prompt = text.completer->detokenize(ids);
  if (!prompt.ok()) return api::error_response(api::error_from_status(prompt.status()));
  return json_response({{"prompt", *prompt}});
}

net::HttpResponse models_route(const api::Caller& caller, const api::ModelSet& models) {
  OrderedJson data = OrderedJson::array();
  for (const api::ModelInfo& info : models.list())
    if (caller.may_use_model(info.id)) data.push_back(model_json(info));
  return json_response({{"object", "list"}, {"data", std::move(data)}});
}

net::HttpResponse model_route(const std::string& id, const api::Caller& caller, const api::ModelSet& models) {
  auto completer = models.find_for(caller, id);
  if (auto* error = std::get_if<ApiError>(&completer)) return api::error_response(*error);
  return json_response(model_json(std::get<0>(completer)->info()));
}

}  // namespace tessera::gateway
