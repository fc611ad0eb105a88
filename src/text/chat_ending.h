// How a rendered conversation ends: what the model is asked to write next.
#pragma once

#include <cstdint>

namespace tessera::text {

enum class ChatEnding : uint8_t {
  kAnswerPrompt,  // the opening of an assistant's turn: a new answer
  kNone,          // after the last message, as the template closes it
  kOpen,          // within the last message, which is left unclosed: the model goes on with it
};

}  // namespace tessera::text
