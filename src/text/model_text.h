// The text side of a model: tokenizer and chat template, from whichever files the model ships.
#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include "base/json.h"
#include "text/chat_ending.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace tessera::checkpoint {
class GgufFile;
}

namespace tessera::text {

// Immutable.
struct ModelText {
  std::shared_ptr<const Tokenizer> tokenizer;         // null: the model ships none
  std::shared_ptr<const ChatTemplate> chat_template;  // null: the model ships none
  std::string chat_template_source;
  std::string bos_token, eos_token;  // variables of the template; empty when the model names none

  // Renders a conversation; `variables` (object or null) adds to the template's names and may override all
  // but messages. InvalidArgument when the template refuses the messages, or changes the last one's text so
  // that kOpen does not find it.
  Result<std::string> render_chat(const OrderedJson& messages, const OrderedJson* tools, ChatEnding ending,
                                  const OrderedJson* variables) const;
  // Token ids of a rendered chat: the template writes its own special tokens, none are added.
  Result<std::vector<int32_t>> encode_chat(const std::string& rendered) const;
};

// A folder (tokenizer.json or tokenizer.model, tokenizer_config.json, chat_template.jinja or .json) or a GGUF
// file. Needs no config.json and no weights. A folder without tokenizer gives null, not an error.
Result<ModelText> load_model_text(const std::filesystem::path& file_or_folder);
// The same of a GGUF file that is open already: its vocabulary is not read from disk twice.
Result<ModelText> load_model_text(const checkpoint::GgufFile& file);

}  // namespace tessera::text
