// Chat templates as models ship them: a sandboxed interpreter of the Jinja language with the settings that
// models are trained with (trim_blocks, lstrip_blocks, loop controls, `generation` blocks, tojson without
// HTML escapes, raise_exception, strftime_now).
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "base/clock.h"
#include "base/json.h"
#include "base/status.h"
#include "text/template_limits.h"

namespace tessera::text {

namespace jinja {
struct ParsedTemplate;
}

// Immutable after parse; render may run on several threads at once.
class ChatTemplate {
 public:
  // InvalidArgument with the line for a template that is no valid Jinja or is refused (include, import, ...).
  static Result<std::shared_ptr<const ChatTemplate>> parse(std::string_view source);
  ~ChatTemplate();
  ChatTemplate(const ChatTemplate&) = delete;
  ChatTemplate& operator=(const ChatTemplate&) = delete;

  // `variables` (an object): messages, tools, add_generation_prompt, bos_token, ... The order of object keys
  // is kept: the rendered tools depend on it. InvalidArgument with exactly the message of
  // raise_exception(message); InvalidArgument with the reason for any other failure, limits included. `clock`
  // (null: the system's) is what strftime_now reads, in local time.
  Result<std::string> render(const OrderedJson& variables, TemplateLimits limits = {},
                             const Clock* clock = nullptr) const;

  // Does the template mention this variable ("tools", "enable_thinking")?
  bool uses(std::string_view variable) const;

 private:
  explicit ChatTemplate(std::unique_ptr<const jinja::ParsedTemplate> parsed);
  std::unique_ptr<const jinja::ParsedTemplate> parsed_;
};

}  // namespace tessera::text
