// The `messages` of a chat request: checked, and turned into what a chat template reads.
#pragma once

#include <memory>

#include "api/errors.h"
#include "base/json.h"
#include "text/chat_ending.h"

namespace tessera::api {

// A list of {"role", "content", …} objects whose content is one string: text parts are joined by a newline,
// `developer` becomes `system`, an assistant's null content becomes "". `name`, `tool_call_id` and
// `reasoning_content` are kept, since templates read them. Images, audio, files and tool calls are refused by
// name; `tool_calls` are kept with `tools`. Pass the value of the field, nullptr when it is absent.
ApiResult<std::shared_ptr<const OrderedJson>> parse_messages(const Json* messages, bool tools = false);

// `add_generation_prompt` and `continue_final_message` of a request whose `messages` are `messages`. To go on
// with a message, it must be the assistant's.
ApiResult<text::ChatEnding> parse_chat_ending(const Json& body, const OrderedJson& messages);

// chat_template_kwargs, bounded in size; nullptr for nullptr.
ApiResult<std::shared_ptr<const OrderedJson>> parse_template_variables(const Json* variables);

}  // namespace tessera::api
