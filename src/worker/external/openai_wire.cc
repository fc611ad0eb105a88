#include "worker/external/openai_wire.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

namespace tessera::worker::external {
namespace {

constexpr size_t kShownError = 500;

// Adds a JSON text as a field, unless it is empty.
Status add_json(OrderedJson& body, const char* name, const std::string& text) {
  if (text.empty()) return {};
  TESSERA_ASSIGN_OR_RETURN(OrderedJson value, parse_ordered_json(text));
  body[name] = std::move(value);
  return {};
}

void add_sampling(OrderedJson& body, const EngineRequest& request, const EngineProfile& profile) {
  const SamplingParams& s = request.sampling;
  body["temperature"] = s.temperature;
  body["top_p"] = s.top_p;
  // Neutral values are left out: an engine may refuse a field that it does not know.
  if (s.presence_penalty != 0) body["presence_penalty"] = s.presence_penalty;
  if (s.frequency_penalty != 0) body["frequency_penalty"] = s.frequency_penalty;
  if (profile.top_k && s.top_k > 0) body[profile.top_k] = s.top_k;
  if (profile.min_p && s.min_p > 0) body[profile.min_p] = s.min_p;
  if (profile.repetition_penalty && s.repetition_penalty != 1)
    body[profile.repetition_penalty] = s.repetition_penalty;
  if (profile.min_tokens && s.min_tokens > 0) body[profile.min_tokens] = s.min_tokens;
  if (profile.ignore_eos && s.ignore_eos) body[profile.ignore_eos] = true;
  if (profile.stop_token_ids && !s.stop_token_ids.empty()) body[profile.stop_token_ids] = s.stop_token_ids;
  if (!s.logit_bias.empty()) {
    OrderedJson bias = OrderedJson::object();
    for (const auto& [token, value] : s.logit_bias) bias[std::to_string(token)] = value;
    body["logit_bias"] = std::move(bias);
  }
}

Status add_chat(OrderedJson& body, const EngineRequest& request, const EngineProfile& profile) {
  TESSERA_RETURN_IF_ERROR(add_json(body, "messages", request.messages));
  TESSERA_RETURN_IF_ERROR(add_json(body, "tools", request.tools));
  TESSERA_RETURN_IF_ERROR(add_json(body, "tool_choice", request.tool_choice));
  TESSERA_RETURN_IF_ERROR(add_json(body, "response_format", request.response_format));
  if (profile.template_variables)
    TESSERA_RETURN_IF_ERROR(add_json(body, profile.template_variables, request.template_variables));
  if (profile.chat_ending && !request.answer_prompt) body["add_generation_prompt"] = false;
  if (profile.chat_ending && request.go_on) body["continue_final_message"] = true;
  if (request.sampling.top_logprobs >= 0) {
    body["logprobs"] = true;
    if (request.sampling.top_logprobs > 0) body["top_logprobs"] = request.sampling.top_logprobs;
  }
  return {};
}

void add_prompts(OrderedJson& body, const EngineRequest& request) {
  OrderedJson prompts = OrderedJson::array();
  for (const auto& prompt : request.prompts)
    std::visit([&](const auto& value) { prompts.push_back(value); }, prompt);
  body["prompt"] = prompts.size() == 1 ? prompts[0] : std::move(prompts);
  if (request.echo) body["echo"] = true;
  if (request.sampling.top_logprobs >= 0) body["logprobs"] = request.sampling.top_logprobs;
}

std::string text_at(const Json& object, const char* key) {
  if (!object.is_object()) return {};
  const auto found = object.find(key);
  return found != object.end() && found->is_string() ? found->get<std::string>() : std::string();
}

// Some engines write codes as numbers.
std::string word_at(const Json& object, const char* key) {
  const auto found = object.find(key);
  if (found == object.end() || found->is_null()) return {};
  return found->is_string()           ? found->get<std::string>()
         : found->is_number_integer() ? found->dump()
                                      : std::string();
}

// A count, or -1 for what is none.
int64_t count_at(const Json& object, const char* key) {
  const auto found = object.find(key);
  if (found == object.end() || !found->is_number_integer()) return -1;
  const auto value = found->get<int64_t>();
  return value >= 0 && value <= int64_t{1} << 30 ? value : -1;
}

float logprob_at(const Json& object, const char* key) {
  const auto found = object.find(key);
  if (found == object.end() || !found->is_number()) return -9999.0f;
  return static_cast<float>(std::max(found->get<double>(), -9999.0));
}

EngineToken token_of(const Json& entry) {
  EngineToken token;
  token.text = text_at(entry, "token").substr(0, 4096);
  token.logprob = logprob_at(entry, "logprob");
  if (const auto bytes = entry.find("bytes");
      bytes != entry.end() && bytes->is_array() && bytes->size() <= 4096) {
    for (const Json& byte : *bytes)
      if (byte.is_number_integer()) token.bytes += static_cast<char>(byte.get<int>());
  }
  if (token.bytes.empty()) token.bytes = token.text;
  return token;
}

constexpr size_t kMostTop = 64;

// {"content":[{"token","logprob","bytes","top_logprobs"}]}
void read_chat_scores(const Json& logprobs, std::vector<EngineScore>& scores) {
  const auto content = logprobs.find("content");
  if (content == logprobs.end() || !content->is_array()) return;
  for (const Json& entry : *content) {
    if (!entry.is_object()) continue;
    EngineScore& score = scores.emplace_back();
    static_cast<EngineToken&>(score) = token_of(entry);
    const auto top = entry.find("top_logprobs");
    if (top == entry.end() || !top->is_array()) continue;
    for (const Json& other : *top)
      if (other.is_object() && score.top.size() < kMostTop) score.top.push_back(token_of(other));
  }
}

// The four legacy lists.
void read_text_scores(const Json& logprobs, std::vector<EngineScore>& scores) {
  const auto tokens = logprobs.find("tokens");
  const auto values = logprobs.find("token_logprobs");
  const auto tops = logprobs.find("top_logprobs");
  if (tokens == logprobs.end() || !tokens->is_array()) return;
  for (size_t i = 0; i < tokens->size(); ++i) {
    if (!(*tokens)[i].is_string()) continue;
    EngineScore& score = scores.emplace_back();
    score.text = score.bytes = (*tokens)[i].get<std::string>().substr(0, 4096);
    const bool has =
        values != logprobs.end() && values->is_array() && i < values->size() && (*values)[i].is_number();
    score.scored = has;
    score.logprob = has ? static_cast<float>(std::max((*values)[i].get<double>(), -9999.0)) : 0;
    if (tops == logprobs.end() || !tops->is_array() || i >= tops->size() || !(*tops)[i].is_object()) continue;
    for (const auto& [text, value] : (*tops)[i].items())
      if (value.is_number() && score.top.size() < kMostTop)
        score.top.push_back(
            {text.substr(0, 4096), text.substr(0, 4096), static_cast<float>(value.get<double>())});
    std::sort(score.top.begin(), score.top.end(),
              [](const EngineToken& a, const EngineToken& b) { return a.logprob > b.logprob; });
  }
}

}  // namespace

const char* request_path(const EngineRequest& request) {
  return request.chat ? "/v1/chat/completions" : "/v1/completions";
}

Result<std::string> request_body(const EngineRequest& request, const EngineProfile& profile) {
  OrderedJson body{{"model", request.model}, {"stream", true}, {"stream_options", {{"include_usage", true}}}};
  if (request.chat)
    TESSERA_RETURN_IF_ERROR(add_chat(body, request, profile));
  else
    add_prompts(body, request);
  add_sampling(body, request, profile);
  if (request.n > 1) body["n"] = request.n;
  if (request.seed)
    body["seed"] = static_cast<int64_t>(*request.seed & 0x7fffffff);  // the range that all take
  if (request.max_tokens) body["max_tokens"] = *request.max_tokens;
  if (!request.stop.empty()) body["stop"] = request.stop;
  if (!request.cache_salt.empty() && profile.cache_salt) body[profile.cache_salt] = request.cache_salt;
  if (!request.cache_salt.empty() && profile.cache_off) body[profile.cache_off] = false;
  if (profile.priority && request.priority != 0)
    body[profile.priority] = profile.lower_is_first ? -request.priority : request.priority;
  if (profile.request_id_field) body[profile.request_id_field] = request.request_id;
  return dump_json(body);
}

EngineEnd engine_error(int http_status, std::string_view body, const EngineProfile& profile) {
  EngineEnd end;
  const Result<Json> json = parse_json(body);
  std::string said;
  if (json.ok() && json->is_object()) {
    const auto error = json->find("error");
    const Json& object = error != json->end() && error->is_object() ? *error : *json;
    said = text_at(object, "message");
    if (said.empty() && error != json->end() && error->is_string()) said = error->get<std::string>();
    end.type = word_at(object, "type");
    end.param = word_at(object, "param");
    end.code = word_at(object, "code");
    if (const auto detail = json->find("detail"); said.empty() && detail != json->end())
      said = detail->is_string() ? detail->get<std::string>() : dump_json(*detail);
  } else {
    said = std::string(body);
  }
  if (said.size() > kShownError) said = said.substr(0, kShownError) + "…";
  const bool request_fault = http_status == 400 || http_status == 413 || http_status == 422;
  if (request_fault) {
    end.status = http_status == 413 ? 413 : 400;
    end.type = "invalid_request_error";
    end.message = said.empty() ? "The engine refused the request." : said;
    if (end.code == std::to_string(http_status)) end.code.clear();  // tells nothing more
    return end;
  }
  // Not passed on as they are: a 401 of the engine says nothing about the client's key.
  end.engine_fault = true;
  end.status = http_status == 429 ? 429 : http_status == 503 ? 503 : 502;
  end.type = http_status == 429 ? "rate_limit_error" : "server_error";
  end.code = http_status == 429 ? "engine_busy" : "engine_failed";
  end.param.clear();
  end.message = std::string(profile.title) + " answered HTTP " + std::to_string(http_status) +
                (said.empty() ? "." : ": " + said);
  return end;
}

AnswerReader::AnswerReader(const EngineRequest& request, const EngineProfile& profile, Sink sink)
    : request_(request),
      profile_(profile),
      sink_(std::move(sink)),
      choices_(static_cast<size_t>(request.n) * std::max<size_t>(request.prompts.size(), 1)) {}

bool AnswerReader::fail(std::string what) {
  EngineEnd end;
  end.status = 502;
  end.type = "server_error";
  end.code = "engine_failed";
  end.engine_fault = true;
  end.message = std::string(profile_.title) + " " + std::move(what);
  over_ = std::move(end);
  return false;
}

bool AnswerReader::event(std::string_view data) {
  if (over_ || done_) return false;
  if (data == "[DONE]") {
    done_ = true;
    return false;
  }
  const Result<Json> json = parse_json(data);
  if (!json.ok() || !json->is_object()) return fail("sent an event that is no JSON object.");
  if (const auto error = json->find("error"); error != json->end() && !error->is_null()) {
    // In a stream the status is in the object, if anywhere.
    const int64_t code = error->is_object() ? count_at(*error, "code") : -1;
    over_ = engine_error(code >= 400 && code <= 599 ? static_cast<int>(code) : 500, data, profile_);
    return false;
  }
  if (text_at(*json, "object") == "error") {
    const int64_t code = count_at(*json, "code");
    over_ = engine_error(code >= 400 && code <= 599 ? static_cast<int>(code) : 500, data, profile_);
    return false;
  }
  if (const auto usage = json->find("usage"); usage != json->end() && usage->is_object()) read_usage(*usage);
  const auto choices = json->find("choices");
  if (choices == json->end()) return true;  // a ping, or figures only
  if (!choices->is_array()) return fail("sent choices that are no list.");
  for (const Json& choice : *choices)
    if (!read_choice(choice)) return false;
  return true;
}

bool AnswerReader::read_choice(const Json& choice) {
  if (!choice.is_object()) return fail("sent a choice that is no object.");
  const int64_t index = choice.contains("index") ? count_at(choice, "index") : 0;
  if (index < 0 || index >= static_cast<int64_t>(choices_.size()))
    return fail("sent a choice that nobody asked for.");
  Choice& state = choices_[static_cast<size_t>(index)];
  EngineDelta delta;
  delta.id = request_.id;
  delta.choice = static_cast<int>(index);
  if (request_.chat) {
    if (const auto part = choice.find("delta"); part != choice.end() && part->is_object()) {
      delta.text = text_at(*part, "content");
      delta.reasoning = text_at(*part, "reasoning_content");
      if (delta.reasoning.empty()) delta.reasoning = text_at(*part, "reasoning");
      if (const auto calls = part->find("tool_calls");
          calls != part->end() && !calls->is_null() && !calls->empty()) {
        const bool fine = calls->is_array() && std::all_of(calls->begin(), calls->end(),
                                                           [](const Json& c) { return c.is_object(); });
        if (!fine) return fail("sent tool calls that are no list of objects.");
        delta.tool_calls = dump_json(*calls);
      }
    }
  } else {
    delta.text = text_at(choice, "text");
  }
  if (const auto logprobs = choice.find("logprobs"); logprobs != choice.end() && logprobs->is_object()) {
    if (request_.chat)
      read_chat_scores(*logprobs, delta.scores);
    else
      read_text_scores(*logprobs, delta.scores);
  }
  const bool carries = !delta.text.empty() || !delta.reasoning.empty() || !delta.tool_calls.empty();
  if (carries && state.finished) return fail("went on with a choice that it had ended.");
  if (carries) {
    ++state.events;
    delta.tokens = std::max<int>(1, static_cast<int>(delta.scores.size()));
  }
  if (const auto finish = choice.find("finish_reason");
      finish != choice.end() && finish->is_string() && !finish->get_ref<const std::string&>().empty()) {
    const auto& why = finish->get_ref<const std::string&>();
    if (why == "abort" || why == "error" || why == "cancelled")
      return fail("gave the request up (" + why + ").");
    delta.finish = why == "length" ? FinishReason::kLength : FinishReason::kStop;
    if (state.finished) return true;
    state.finished = true;
  }
  if (!carries && delta.scores.empty() && delta.finish == FinishReason::kNone) return true;
  begun_ = begun_ || carries;
  sink_(std::move(delta));
  return true;
}

void AnswerReader::read_usage(const Json& usage) {
  prompt_tokens_ = count_at(usage, "prompt_tokens");
  completion_tokens_ = count_at(usage, "completion_tokens");
  cached_tokens_ = 0;
  if (const auto details = usage.find("prompt_tokens_details");
      details != usage.end() && details->is_object())
    cached_tokens_ = std::max<int64_t>(0, count_at(*details, "cached_tokens"));
  has_usage_ = true;
}

// What is paid for must be believable: counts that contradict what came are replaced by what came.
void AnswerReader::check_usage(EngineEnd& end) {
  int64_t events = 0;
  for (const Choice& choice : choices_) events += choice.events;
  const int64_t most =
      request_.max_tokens ? static_cast<int64_t>(*request_.max_tokens) * static_cast<int64_t>(choices_.size())
                          : int64_t{1} << 30;
  // Several tokens may come in one event, but no event without a token (but a prompt that is echoed, or text
  // that a stop string held back, may come in pieces of their own: one to a choice).
  const int64_t least = std::max<int64_t>(0, events - 2 * static_cast<int64_t>(choices_.size()));
  const bool fine = has_usage_ && prompt_tokens_ > 0 && completion_tokens_ >= 0 &&
                    completion_tokens_ <= most && (completion_tokens_ > 0 || events == 0) &&
                    (request_.echo || completion_tokens_ >= least) && cached_tokens_ <= prompt_tokens_;
  miscounted_ = !fine;
  end.prompt_tokens = static_cast<int>(std::max<int64_t>(has_usage_ ? prompt_tokens_ : 0, 0));
  end.completion_tokens = static_cast<int>(fine ? completion_tokens_ : std::min(events, most));
  end.cached_tokens = static_cast<int>(std::min<int64_t>(cached_tokens_, end.prompt_tokens));
}

EngineEnd AnswerReader::end() {
  if (!over_) {
    const bool finished =
        std::all_of(choices_.begin(), choices_.end(), [](const Choice& choice) { return choice.finished; });
    // All choices ended but [DONE] missing: the text is whole, only the usage may not be.
    if (!finished)
      fail(done_ ? "ended its stream before the answer was whole."
                 : "broke off in the middle of its answer.");
  }
  EngineEnd end = over_ ? *over_ : EngineEnd();
  end.id = request_.id;
  if (end.status == 0) check_usage(end);
  return end;
}

}  // namespace tessera::worker::external
