#include "api/openai_request.h"

#include <nlohmann/json.hpp>

#include "api/chat_messages.h"
#include "api/field_reader.h"

namespace tessera::api {
namespace {

// Fields that would change the result and are not built: only null or the neutral value passes.
struct UnbuiltField {
  const char* name;
  const char* neutral;  // JSON
};

constexpr UnbuiltField kUnbuilt[] = {
    {"functions", "[]"},
    {"modalities", R"(["text"])"},
    {"audio", "null"},
    {"prediction", "null"},
    {"web_search_options", "null"},
    {"reasoning_effort", "null"},
    {"reasoning", "null"},
    {"verbosity", R"("medium")"},
    {"suffix", R"("")"},
    {"guided_json", "null"},
    {"guided_regex", "null"},
    {"guided_choice", "null"},
    {"guided_grammar", "null"},
    {"structured_outputs", "null"},
    {"structural_tag", "null"},
    {"grammar", R"("")"},
    {"json_schema", "null"},
    {"use_beam_search", "false"},
    {"length_penalty", "1.0"},
    {"include_stop_str_in_output", "false"},
    {"skip_special_tokens", "true"},
    {"spaces_between_special_tokens", "true"},
    {"truncate_prompt_tokens", "null"},
    {"prompt_logprobs", "null"},
    {"prompt_embeds", "null"},
    {"logits_processors", "[]"},
    {"allowed_token_ids", "null"},
    {"bad_words", "[]"},
    {"chat_template", "null"},
    {"documents", "[]"},
    {"mm_processor_kwargs", "null"},
    {"regex", "null"},
    {"ebnf", "null"},
    {"thinking", "null"},
    {"enable_thinking", "null"},
    {"thinking_budget", "null"},
    {"lora", "[]"},
    {"lora_path", "null"},
    {"lora_request", "null"},
    {"adapter", "null"},
    {"adapters", "[]"},
    {"adapter_id", "null"},
    {"n_predict", "null"},
    {"num_predict", "null"},
    {"max_new_tokens", "null"},
    {"min_new_tokens", "null"},
    {"n_probs", "0"},
    {"repeat_penalty", "1.0"},
    {"encoder_repetition_penalty", "1.0"},
    {"no_repeat_ngram_size", "0"},
    {"do_sample", "true"},
    {"num_beams", "1"},
    {"top_a", "0"},
    {"top_n_sigma", "-1"},
    {"typical_p", "1.0"},
    {"tfs_z", "1.0"},
    {"epsilon_cutoff", "0"},
    {"eta_cutoff", "0"},
    {"mirostat", "0"},
    {"mirostat_mode", "0"},
    {"dry_multiplier", "0"},
    {"xtc_probability", "0"},
    {"dynatemp_range", "0"},
    {"smoothing_factor", "0"},
    {"penalty_alpha", "0"},
    {"guidance_scale", "1"},
    {"cfg_scale", "1"},
    {"negative_prompt", R"("")"},
    {"suppress_tokens", "[]"},
    {"samplers", "null"},
    {"sampler_order", "null"},
    {"min_keep", "0"},
};

// Ours has no tools and no forced formats yet: only an engine that has them lets these pass.
std::shared_ptr<const OrderedJson> kept(const Json& value) {
  return std::make_shared<const OrderedJson>(value);
}
void read_tools(FieldReader& fields, const ModelInfo& model, CompletionRequest& request) {
  const bool can = request.chat && (model.beyond & engine_feature::kTools) != 0;
  const Json* tools = fields.find("tools");
  if (tools && *tools != Json::array()) {
    if (!can) return fields.fail(invalid_request("'tools' is not supported.", "tools", "unsupported"));
    if (!tools->is_array()) return fields.fail("tools", "'tools' must be a list.");
    for (const Json& tool : *tools)
      if (!tool.is_object() || tool.value("type", Json()) != "function" || !tool.contains("function") ||
          !tool["function"].is_object() || !tool["function"].value("name", Json()).is_string())
        return fields.fail("tools", "Each tool must be a function with a name.");
    request.tools = kept(*tools);
  }
  for (const char* name : {"tool_choice", "function_call"}) {
    const Json* choice = fields.find(name);
    if (!choice) continue;
    // A choice of tools is harmless while there are none to choose from.
    if (!request.tools || std::string_view(name) != "tool_choice") {
      if (*choice != "none" && *choice != "auto")
        fields.fail(invalid_request(
            "'" + std::string(name) + "' needs tools, which are not " + (can ? "given." : "supported."), name,
            "unsupported"));
      continue;
    }
    if (*choice != "none" && *choice != "auto" && *choice != "required" && !choice->is_object())
      return fields.fail(name, "'tool_choice' must be none, auto, required or name a function.");
    request.tool_choice = kept(*choice);
  }
}

void read_response_format(FieldReader& fields, const ModelInfo& model, CompletionRequest& request) {
  const Json* format = fields.find("response_format");
  if (!format || *format == Json{{"type", "text"}}) return;
  const Json type = format->is_object() ? format->value("type", Json()) : Json();
  const EngineFeatures needed = type == "json_schema"   ? engine_feature::kJsonSchema
                                : type == "json_object" ? engine_feature::kJsonObject
                                                        : 0;
  if (!request.chat || needed == 0 || (model.beyond & needed) == 0)
    return fields.fail(
        invalid_request("'response_format' is not supported.", "response_format", "unsupported"));
  if (type == "json_schema" && !(format->contains("json_schema") && (*format)["json_schema"].is_object() &&
                                 (*format)["json_schema"].contains("schema")))
    return fields.fail("response_format", "'response_format.json_schema.schema' must hold the schema.");
  request.response_format = kept(*format);
}

void refuse_unbuilt(FieldReader& fields) {
  for (const UnbuiltField& field : kUnbuilt) {
    const Json* value = fields.find(field.name);
    if (value && *value != Json::parse(field.neutral))
      fields.fail(
          invalid_request("'" + std::string(field.name) + "' is not supported.", field.name, "unsupported"));
  }
}

void read_logit_bias(FieldReader& fields, const ModelInfo& model, SamplingParams& sampling) {
  const Json* bias = fields.find("logit_bias");
  if (!bias) return;
  if (!bias->is_object()) return fields.fail("logit_bias", "'logit_bias' must map token ids to numbers.");
  for (const auto& [key, value] : bias->items()) {
    const bool digits =
        !key.empty() && key.size() <= 9 && key.find_first_not_of("0123456789") == std::string::npos;
    const int64_t id = digits ? std::stoll(key) : -1;
    if (id < 0 || id >= model.vocab_size)
      return fields.fail("logit_bias", "'logit_bias' must be keyed by token ids from 0 to " +
                                           std::to_string(model.vocab_size - 1) + ".");
    const double number = value.is_number() ? value.get<double>() : 1e9;
    if (number < -100 || number > 100)
      return fields.fail("logit_bias", "'logit_bias' values must be numbers from -100 to 100.");
    sampling.logit_bias.emplace_back(static_cast<TokenId>(id), static_cast<float>(number));
  }
}

void read_sampling(FieldReader& fields, const ModelInfo& model, CompletionRequest& request) {
  SamplingParams& sampling = request.sampling;
  sampling.temperature = static_cast<float>(fields.number("temperature", 1, 0, 2));
  sampling.top_p = static_cast<float>(fields.number("top_p", 1, 0, 1));
  if (sampling.top_p == 0) {  // only the best token is left: greedy
    sampling.top_p = 1;
    sampling.temperature = 0;
  }
  sampling.top_k = static_cast<int>(std::max<int64_t>(0, fields.integer("top_k", 0, -1, INT32_MAX)));
  sampling.min_p = static_cast<float>(fields.number("min_p", 0, 0, 1));
  sampling.repetition_penalty = static_cast<float>(fields.number("repetition_penalty", 1, 0.01, 100));
  sampling.presence_penalty = static_cast<float>(fields.number("presence_penalty", 0, -2, 2));
  sampling.frequency_penalty = static_cast<float>(fields.number("frequency_penalty", 0, -2, 2));
  sampling.ignore_eos = fields.boolean("ignore_eos", false);
  sampling.min_tokens = static_cast<int>(fields.integer("min_tokens", 0, 0, INT32_MAX));
  if (const Json* ids = fields.find("stop_token_ids"))
    sampling.stop_token_ids = fields.token_ids(*ids, "stop_token_ids", model.vocab_size);
  read_logit_bias(fields, model, sampling);
  if (const Json* seed = fields.find("seed"); seed && seed->is_number_unsigned())
    request.seed = seed->get<uint64_t>();
  else if (seed)
    request.seed = static_cast<uint64_t>(fields.integer("seed", 0, INT64_MIN, INT64_MAX));
}

void read_stop(FieldReader& fields, const ModelInfo& model, CompletionRequest& request) {
  const Json* stop = fields.find("stop");
  if (!stop) return;
  const Json list = stop->is_array() ? *stop : Json::array({*stop});
  if (list.size() > kMaxStopStrings)
    return fields.fail("stop", "'stop' holds more than " + std::to_string(kMaxStopStrings) + " strings.");
  for (const Json& item : list) {
    if (!item.is_string()) return fields.fail("stop", "'stop' must be a string or a list of strings.");
    const std::string text = item.get<std::string>();
    if (text.empty() || text.size() > kMaxStopStringBytes)
      return fields.fail(
          "stop", "A stop string must be 1 to " + std::to_string(kMaxStopStringBytes) + " bytes long.");
    request.stop.push_back(text);
  }
  if (!request.stop.empty() && !model.has_tokenizer)
    fields.fail("stop", "This model has no tokenizer: use 'stop_token_ids'.");
}

void read_stream(FieldReader& fields, OpenAiRequest& request) {
  request.stream = fields.boolean("stream", false);
  const Json* options = fields.find("stream_options");
  if (!options) return;
  if (!options->is_object()) return fields.fail("stream_options", "'stream_options' must be an object.");
  if (!request.stream)
    return fields.fail("stream_options", "'stream_options' is only allowed with 'stream': true.");
  FieldReader inner(*options);
  request.include_usage = inner.boolean("include_usage", false);
  if (inner.boolean("continuous_usage_stats", false))
    inner.fail("continuous_usage_stats", "'continuous_usage_stats' is not supported.");
  if (!inner.ok()) {
    ApiError error = *inner.error();
    error.param = "stream_options." + error.param;
    fields.fail(std::move(error));
  }
}

// What both endpoints share. `max_tokens` must be set before: min_tokens is held against it.
void read_common(FieldReader& fields, const ModelInfo& model, OpenAiRequest& request) {
  CompletionRequest& completion = request.completion;
  completion.model = model.id;
  refuse_unbuilt(fields);
  read_tools(fields, model, completion);
  read_response_format(fields, model, completion);
  read_sampling(fields, model, completion);
  read_stop(fields, model, completion);
  read_stream(fields, request);
  completion.n = static_cast<int>(fields.integer("n", 1, 1, kMaxChoicesPerPrompt));
  if (fields.integer("best_of", completion.n, 1, kMaxChoicesPerPrompt) != completion.n)
    fields.fail("best_of", "'best_of' other than 'n' is not supported.");
  completion.return_token_ids = fields.boolean("return_token_ids", false);
  // On the wire a smaller number comes first; inside, a higher one does.
  completion.priority = -static_cast<int>(fields.integer("priority", 0, -INT32_MAX, INT32_MAX));
  completion.cache_salt = fields.text("cache_salt");
  if (completion.max_tokens && completion.sampling.min_tokens > *completion.max_tokens)
    fields.fail("min_tokens", "'min_tokens' must not be above 'max_tokens'.");
}

ApiError not_an_object() {
  return invalid_request("The body must be a JSON object.");
}

// The request, or the first error met while reading it.
ApiResult<OpenAiRequest> finish(const FieldReader& fields, OpenAiRequest request) {
  if (!fields.ok()) return *fields.error();
  return request;
}

ApiResult<Prompt> parse_one_prompt(const Json& value, const std::string& param, const ModelInfo& model) {
  if (value.is_string()) {
    if (!model.has_tokenizer)
      return invalid_request("This model has no tokenizer: give the prompt as token ids.", param);
    return Prompt(value.get<std::string>());
  }
  if (!value.is_array())
    return invalid_request("'prompt' must be text, a list of texts, token ids, or a list of token id lists.",
                           param);
  if (value.empty()) return invalid_request("A prompt of token ids must not be empty.", param);
  if (value.size() > static_cast<size_t>(model.context_length))
    return context_length_exceeded(static_cast<int64_t>(value.size()), model.context_length, param);
  FieldReader reader(value);
  std::vector<TokenId> ids = reader.token_ids(value, param, model.vocab_size);
  if (!reader.ok()) return *reader.error();
  return Prompt(std::move(ids));
}

}  // namespace

ApiResult<std::optional<std::string>> requested_model(const Json& body) {
  if (!body.is_object()) return not_an_object();
  FieldReader fields(body);
  if (!fields.find("model")) return std::optional<std::string>();
  std::string name = fields.text("model");
  if (!fields.ok()) return *fields.error();
  return std::optional<std::string>(std::move(name));
}

ApiResult<std::vector<Prompt>> parse_prompts(const Json* prompt, const ModelInfo& model) {
  if (!prompt) return invalid_request("'prompt' is missing.", "prompt");
  const bool is_list =
      prompt->is_array() && !prompt->empty() && ((*prompt)[0].is_string() || (*prompt)[0].is_array());
  std::vector<Prompt> prompts;
  const size_t count = is_list ? prompt->size() : 1;
  if (count > kMaxPrompts)
    return invalid_request("A request takes at most " + std::to_string(kMaxPrompts) + " prompts.", "prompt");
  for (size_t i = 0; i < count; ++i) {
    const Json& item = is_list ? (*prompt)[i] : *prompt;
    if (is_list && item.type() != (*prompt)[0].type())
      return invalid_request("'prompt' must not mix texts and token ids.", "prompt");
    auto one = parse_one_prompt(item, "prompt", model);
    if (auto* error = std::get_if<ApiError>(&one)) return std::move(*error);
    prompts.push_back(std::get<Prompt>(std::move(one)));
  }
  return prompts;
}

ApiResult<OpenAiRequest> parse_chat_completion(const Json& body, const ModelInfo& model) {
  if (!body.is_object()) return not_an_object();
  OpenAiRequest request;
  CompletionRequest& completion = request.completion;
  FieldReader fields(body);
  completion.chat = true;
  auto messages = parse_messages(fields.find("messages"), (model.beyond & engine_feature::kTools) != 0);
  if (auto* error = std::get_if<ApiError>(&messages)) return std::move(*error);
  completion.messages = std::get<0>(std::move(messages));
  if (!model.has_chat_template)
    return invalid_request("This model has no chat template; use /v1/completions.", "messages",
                           "unsupported");
  auto variables = parse_template_variables(fields.find("chat_template_kwargs"));
  if (auto* error = std::get_if<ApiError>(&variables)) return std::move(*error);
  completion.template_variables = std::get<0>(std::move(variables));
  auto ending = parse_chat_ending(body, *completion.messages);
  if (auto* error = std::get_if<ApiError>(&ending)) return std::move(*error);
  completion.chat_ending = std::get<text::ChatEnding>(ending);

  for (const char* name : {"max_tokens", "max_completion_tokens"}) {  // the newer name wins
    if (fields.find(name)) completion.max_tokens = static_cast<int>(fields.integer(name, 0, 0, INT32_MAX));
  }
  read_common(fields, model, request);
  const bool logprobs = fields.boolean("logprobs", false);
  const auto top = static_cast<int>(fields.integer("top_logprobs", 0, 0, kMaxTopLogprobs));
  if (logprobs) completion.sampling.top_logprobs = top;
  if (!logprobs && top > 0) fields.fail("top_logprobs", "'top_logprobs' needs 'logprobs': true.");
  if (fields.boolean("echo", false)) fields.fail("echo", "'echo' is not supported in chat completions.");
  if (fields.boolean("add_special_tokens", false))
    fields.fail("add_special_tokens", "The chat template writes the special tokens itself.");
  return finish(fields, std::move(request));
}

ApiResult<OpenAiRequest> parse_text_completion(const Json& body, const ModelInfo& model) {
  if (!body.is_object()) return not_an_object();
  OpenAiRequest request;
  CompletionRequest& completion = request.completion;
  FieldReader fields(body);
  auto prompts = parse_prompts(fields.find("prompt"), model);
  if (auto* error = std::get_if<ApiError>(&prompts)) return std::move(*error);
  completion.prompts = std::get<0>(std::move(prompts));
  completion.max_tokens = static_cast<int>(fields.integer("max_tokens", kDefaultTextMaxTokens, 0, INT32_MAX));
  read_common(fields, model, request);
  completion.echo = fields.boolean("echo", false);
  completion.sampling.top_logprobs = static_cast<int>(fields.integer("logprobs", -1, 0, kMaxTopLogprobs));
  completion.sampling.prompt_logprobs = completion.echo && completion.sampling.top_logprobs >= 0;
  if (!fields.boolean("add_special_tokens", true))
    fields.fail("add_special_tokens", "To leave out special tokens, give the prompt as token ids.");
  if (completion.prompts.size() * static_cast<size_t>(completion.n) > kMaxPrompts)
    fields.fail("n", "Prompts times 'n' must not be above " + std::to_string(kMaxPrompts) + ".");
  return finish(fields, std::move(request));
}

}  // namespace tessera::api
