#include "text/chat_template.h"

#include <nlohmann/json.hpp>

#include "base/utf8.h"
#include "text/jinja_interpreter.h"
#include "text/jinja_parser.h"

namespace tessera::text {
namespace {

constexpr size_t kMaxSourceBytes = size_t{4} << 20;

}  // namespace

ChatTemplate::ChatTemplate(std::unique_ptr<const jinja::ParsedTemplate> parsed)
    : parsed_(std::move(parsed)) {}
ChatTemplate::~ChatTemplate() = default;

Result<std::shared_ptr<const ChatTemplate>> ChatTemplate::parse(std::string_view source) {
  if (source.size() > kMaxSourceBytes) return invalid_argument("the chat template is larger than 4 MiB");
  if (!is_valid_utf8(source)) return invalid_argument("the chat template is not valid UTF-8");
  try {
    auto parsed = std::make_unique<const jinja::ParsedTemplate>(jinja::parse_template(source));
    return std::shared_ptr<const ChatTemplate>(new ChatTemplate(std::move(parsed)));
  } catch (const jinja::TemplateError& error) {
    return invalid_argument("line " + std::to_string(error.line) + ": " + error.message);
  }
}

Result<std::string> ChatTemplate::render(const OrderedJson& variables, TemplateLimits limits,
                                         const Clock* clock) const {
  if (!variables.is_object()) return invalid_argument("the variables of a chat template must be an object");
  const SystemClock system_clock;
  jinja::Budget budget(limits);
  try {
    jinja::Interpreter interpreter(budget, variables, clock != nullptr ? *clock : system_clock);
    return interpreter.render(*parsed_);
  } catch (const jinja::TemplateError& error) {
    return invalid_argument(error.message);
  }
}

bool ChatTemplate::uses(std::string_view variable) const {
  return parsed_->names.find(variable) != parsed_->names.end();
}

}  // namespace tessera::text
