// tokenize, detokenize, template: JSON lines on stdin, JSON lines on stdout.
#include <cstdio>
#include <iostream>
#include <nlohmann/json.hpp>

#include "app/commands.h"
#include "app/model_names.h"
#include "text/model_text.h"

namespace tessera::app {
namespace {

struct TextOptions {
  std::string model;
  bool no_special_tokens = false;
  template <typename V>
  void fields(V& v) {
    v("model", model, "a folder with tokenizer files, a .gguf, or a model's name");
    v("no-special-tokens", no_special_tokens,
      "leave out the special tokens that the tokenizer's post-processor adds");
  }
};

struct TemplateOptions {
  std::string model;
  template <typename V>
  void fields(V& v) {
    v("model", model, "a folder with tokenizer files, a .gguf, or a model's name");
  }
};

Result<text::ModelText> load_text(const std::string& model) {
  TESSERA_ASSIGN_OR_RETURN(auto path, find_model(model));
  return text::load_model_text(path);
}

// Runs `line` on every line of stdin. A line that is refused gives {"error"} in its place and status 1 at the
// end; a line that is not JSON ends the verb where `strict`, else counts as refused.
template <typename F>
int each_line(bool strict, F&& line) {
  std::string input;
  bool refused = false;
  for (int number = 1; std::getline(std::cin, input); ++number) {
    if (input.find_first_not_of(" \t\r") == std::string::npos) continue;
    auto json = parse_ordered_json(input);
    if (!json.ok() && strict)
      return report(Status(Code::kInternal,
                           "line " + std::to_string(number) + " of stdin: " + json.status().message()));
    Result<OrderedJson> answer = json.ok() ? line(*json) : Result<OrderedJson>(json.status());
    if (!answer.ok()) {
      refused = true;
      answer = OrderedJson{{"error", answer.status().message()}};
    }
    std::fputs((dump_json(*answer) + "\n").c_str(), stdout);
    std::fflush(stdout);
  }
  return refused ? kFailed : kDone;
}

Status no_tokenizer(const std::string& model) {
  return not_found(model + " has no tokenizer.json, tokenizer.model or GGUF vocabulary");
}

int tokenize(const TextOptions& options) {
  auto text = load_text(options.model);
  if (!text.ok()) return report(text.status());
  if (text->tokenizer == nullptr) return report(no_tokenizer(options.model));
  return each_line(false, [&](const OrderedJson& line) -> Result<OrderedJson> {
    if (!line.is_string()) return invalid_argument("expected a JSON string");
    TESSERA_ASSIGN_OR_RETURN(
        auto ids,
        text->tokenizer->encode(line.get<std::string>(), {.add_special_tokens = !options.no_special_tokens}));
    return OrderedJson(ids);
  });
}

int detokenize(const TemplateOptions& options) {
  auto text = load_text(options.model);
  if (!text.ok()) return report(text.status());
  if (text->tokenizer == nullptr) return report(no_tokenizer(options.model));
  return each_line(false, [&](const OrderedJson& line) -> Result<OrderedJson> {
    if (!line.is_array()) return invalid_argument("expected a list of token ids");
    std::vector<int32_t> ids;
    for (const OrderedJson& id : line) {
      if (!id.is_number_integer() || id.get<int64_t>() < 0 || id.get<int64_t>() > INT32_MAX)
        return invalid_argument("expected a list of token ids");
      ids.push_back(id.get<int32_t>());
    }
    TESSERA_ASSIGN_OR_RETURN(std::string decoded, text->tokenizer->decode(ids));
    return OrderedJson(decoded);
  });
}

int render(const TemplateOptions& options) {
  auto text = load_text(options.model);
  if (!text.ok()) return report(text.status());
  if (text->chat_template == nullptr) return report(not_found(options.model + " ships no chat template"));
  return each_line(true, [&](const OrderedJson& line) -> Result<OrderedJson> {
    if (!line.is_object() || !line.contains("messages"))
      return invalid_argument("expected an object with \"messages\"");
    OrderedJson variables = line;
    variables.erase("messages");
    const OrderedJson tools = variables.contains("tools") ? variables["tools"] : OrderedJson(nullptr);
    // An add_generation_prompt of the line overrides the ending's, like every variable.
    TESSERA_ASSIGN_OR_RETURN(
        std::string rendered,
        text->render_chat(line["messages"], &tools, text::ChatEnding::kAnswerPrompt, &variables));
    return OrderedJson(rendered);
  });
}

}  // namespace

Command tokenize_command() {
  auto options = std::make_shared<TextOptions>();
  return {"tokenize", "text to token ids: JSON strings on stdin, one a line",
          "  echo '\"Hello world\"' | tessera tokenize --model smollm2:135m", fields_of(*options),
          [options] { return tokenize(*options); }};
}

Command detokenize_command() {
  auto options = std::make_shared<TemplateOptions>();
  return {"detokenize", "token ids to text: JSON lists on stdin, one a line",
          "  echo '[19556,905]' | tessera detokenize --model smollm2:135m", fields_of(*options),
          [options] { return detokenize(*options); }};
}

Command template_command() {
  auto options = std::make_shared<TemplateOptions>();
  return {"template",
          "renders the model's chat template: {\"messages\":[…],\"tools\":[…]} on stdin, one a line",
          "  echo '{\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}]}' | tessera template --model "
          "smollm2:135m",
          fields_of(*options), [options] { return render(*options); }};
}

}  // namespace tessera::app
