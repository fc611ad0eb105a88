#include "text/model_text.h"

#include <nlohmann/json.hpp>

#include "base/files.h"
#include "checkpoint/gguf.h"

namespace tessera::text {
namespace {

namespace fs = std::filesystem;

// A token in tokenizer_config.json is a string or an object with "content".
std::string token_content(const Json& config, const char* key) {
  auto found = config.find(key);
  if (found == config.end()) return {};
  if (found->is_string()) return found->get<std::string>();
  if (found->is_object() && found->contains("content") && (*found)["content"].is_string())
    return (*found)["content"].get<std::string>();
  return {};
}

// "chat_template" is a string, or a list of {"name", "template"} of which "default" counts.
std::string template_of(const Json& config) {
  auto found = config.find("chat_template");
  if (found == config.end()) return {};
  if (found->is_string()) return found->get<std::string>();
  if (!found->is_array()) return {};
  std::string chosen;
  for (const Json& entry : *found) {
    if (!entry.is_object() || !entry.contains("template") || !entry["template"].is_string()) continue;
    if (chosen.empty() || entry.value("name", "") == "default") chosen = entry["template"].get<std::string>();
  }
  return chosen;
}

Result<std::string> read_if_there(const fs::path& path) {
  std::error_code error;
  if (!fs::exists(path, error)) return std::string();
  return read_file(path, uint64_t{256} << 20);
}

Status set_template(ModelText& text, std::string source) {
  if (source.empty()) return {};
  auto parsed = ChatTemplate::parse(source);
  if (!parsed.ok()) return parsed.status().with_context("the model's chat template");
  text.chat_template = std::move(parsed).value();
  text.chat_template_source = std::move(source);
  return {};
}

Result<ModelText> load_folder(const fs::path& folder) {
  ModelText text;
  std::error_code error;
  if (fs::exists(folder / "tokenizer.json", error) || fs::exists(folder / "tokenizer.model", error)) {
    TESSERA_ASSIGN_OR_RETURN(text.tokenizer, load_tokenizer(folder));
  }
  TESSERA_ASSIGN_OR_RETURN(std::string config_text, read_if_there(folder / "tokenizer_config.json"));
  TESSERA_ASSIGN_OR_RETURN(std::string source, read_if_there(folder / "chat_template.jinja"));
  if (!config_text.empty()) {
    auto config = parse_json(config_text);
    if (!config.ok() || !config->is_object())
      return corrupt((folder / "tokenizer_config.json").string() + " is no JSON object");
    text.bos_token = token_content(*config, "bos_token");
    text.eos_token = token_content(*config, "eos_token");
    if (source.empty()) source = template_of(*config);
  }
  if (source.empty()) {
    TESSERA_ASSIGN_OR_RETURN(std::string wrapped, read_if_there(folder / "chat_template.json"));
    if (!wrapped.empty()) {
      auto json = parse_json(wrapped);
      if (!json.ok() || !json->is_object())
        return corrupt((folder / "chat_template.json").string() + " is no JSON object");
      source = template_of(*json);
    }
  }
  TESSERA_RETURN_IF_ERROR(set_template(text, std::move(source)));
  return text;
}

std::optional<int32_t> token_of(const checkpoint::GgufFile& file, const char* key) {
  auto value = file.get_u64(key);
  if (!value || *value > INT32_MAX) return std::nullopt;
  return static_cast<int32_t>(*value);
}

Result<ModelText> load_gguf(const fs::path& path) {
  TESSERA_ASSIGN_OR_RETURN(auto file, checkpoint::GgufFile::open(path));
  return load_model_text(*file);
}

// The one GGUF model of a folder that holds nothing else of a tokenizer.
fs::path gguf_in(const fs::path& folder) {
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder, error))
    if (entry.path().extension() == ".gguf") return entry.path();
  return {};
}

std::string_view trimmed(std::string_view text) {
  constexpr std::string_view kSpace = " \t\r\n";
  const size_t first = text.find_first_not_of(kSpace);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(kSpace) + 1 - first);
}

// `rendered` up to the end of the last message's text. Templates may trim a message: its outer spaces are
// kept where they were rendered.
Result<std::string> left_open(std::string rendered, const OrderedJson& messages) {
  const OrderedJson* content = nullptr;
  if (messages.is_array() && !messages.empty() && messages.back().is_object()) {
    auto found = messages.back().find("content");
    if (found != messages.back().end() && found->is_string()) content = &*found;
  }
  const std::string_view text = content ? std::string_view(content->get_ref<const std::string&>()) : "";
  const std::string_view core = trimmed(text);
  if (core.empty()) return invalid_argument("the last message has no text to go on with");
  const size_t at = rendered.rfind(core);
  if (at == std::string::npos)
    return invalid_argument("the chat template does not render the last message as it is");
  const std::string_view with_tail = text.substr(static_cast<size_t>(core.data() - text.data()));
  const bool keeps_tail = rendered.compare(at, with_tail.size(), with_tail) == 0;
  rendered.resize(at + (keeps_tail ? with_tail.size() : core.size()));
  return rendered;
}

}  // namespace

Result<std::string> ModelText::render_chat(const OrderedJson& messages, const OrderedJson* tools,
                                           ChatEnding ending, const OrderedJson* variables) const {
  if (chat_template == nullptr)
    return unsupported("the model ships no chat template; use a text completion instead");
  OrderedJson all = OrderedJson::object();
  all["add_generation_prompt"] = ending == ChatEnding::kAnswerPrompt;
  if (!bos_token.empty()) all["bos_token"] = bos_token;
  if (!eos_token.empty()) all["eos_token"] = eos_token;
  all["tools"] = tools == nullptr ? OrderedJson(nullptr) : *tools;
  if (variables != nullptr && variables->is_object())
    for (const auto& [key, value] : variables->items()) all[key] = value;
  all["messages"] = messages;
  if (ending == ChatEnding::kOpen) all["add_generation_prompt"] = false;
  TESSERA_ASSIGN_OR_RETURN(std::string rendered, chat_template->render(all));
  return ending == ChatEnding::kOpen ? left_open(std::move(rendered), messages)
                                     : Result<std::string>(std::move(rendered));
}

Result<std::vector<int32_t>> ModelText::encode_chat(const std::string& rendered) const {
  if (tokenizer == nullptr) return unsupported("the model ships no tokenizer; send token ids");
  return tokenizer->encode(rendered, {.add_special_tokens = false});
}

Result<ModelText> load_model_text(const checkpoint::GgufFile& file) {
  ModelText text;
  if (auto tokens = file.get_string_array("tokenizer.ggml.tokens")) {
    GgufVocabulary vocabulary;
    vocabulary.model = file.get_string("tokenizer.ggml.model").value_or("");
    vocabulary.pre = file.get_string("tokenizer.ggml.pre").value_or("");
    vocabulary.tokens = std::move(*tokens);
    if (auto scores = file.get_f64_array("tokenizer.ggml.scores"))
      vocabulary.scores.assign(scores->begin(), scores->end());
    if (auto types = file.get_i64_array("tokenizer.ggml.token_type")) {
      for (int64_t type : *types)
        vocabulary.token_types.push_back(type < 0 || type > 6 ? 1 : static_cast<int32_t>(type));
    }
    if (auto merges = file.get_string_array("tokenizer.ggml.merges")) vocabulary.merges = std::move(*merges);
    vocabulary.bos = token_of(file, "tokenizer.ggml.bos_token_id");
    vocabulary.eos = token_of(file, "tokenizer.ggml.eos_token_id");
    vocabulary.unk = token_of(file, "tokenizer.ggml.unknown_token_id");
    vocabulary.pad = token_of(file, "tokenizer.ggml.padding_token_id");
    vocabulary.add_bos = file.get_bool("tokenizer.ggml.add_bos_token");
    vocabulary.add_eos = file.get_bool("tokenizer.ggml.add_eos_token");
    vocabulary.add_space_prefix = file.get_bool("tokenizer.ggml.add_space_prefix");
    TESSERA_ASSIGN_OR_RETURN(text.tokenizer, load_gguf_tokenizer(vocabulary));
    const auto piece = [&](std::optional<int32_t> id) {
      return id ? text.tokenizer->token_text(*id) : std::string();
    };
    text.bos_token = piece(vocabulary.bos);
    text.eos_token = piece(vocabulary.eos);
  }
  TESSERA_RETURN_IF_ERROR(set_template(text, file.get_string("tokenizer.chat_template").value_or("")));
  return text;
}

Result<ModelText> load_model_text(const fs::path& path) {
  std::error_code error;
  if (!fs::exists(path, error)) return not_found(path.string() + " does not exist");
  if (!fs::is_directory(path, error)) return load_gguf(path);
  if (!fs::exists(path / "tokenizer.json", error) && !fs::exists(path / "tokenizer.model", error)) {
    if (const fs::path file = gguf_in(path); !file.empty()) return load_gguf(file);
  }
  return load_folder(path);
}

}  // namespace tessera::text
