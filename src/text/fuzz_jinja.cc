#include <cstdlib>
#include <nlohmann/json.hpp>

#include "text/chat_template.h"

// Any bytes may be a template: parsing and rendering end within the limits, in valid text or an error.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace tessera;
  static const OrderedJson variables = {
      {"messages",
       {{{"role", "user"}, {"content", " héllo\n<b> "}}, {{"role", "tool"}, {"content", nullptr}}}},
      {"tools", {{{"type", "function"}, {"function", {{"name", "f"}, {"parameters", {{"x", 1.5}}}}}}}},
      {"add_generation_prompt", true},
      {"bos_token", "<s>"},
      {"n", 7}};
  auto parsed = text::ChatTemplate::parse({reinterpret_cast<const char*>(data), size});
  if (!parsed.ok()) return 0;
  text::TemplateLimits limits;
  limits.max_steps = 200'000;
  limits.max_memory_bytes = 16u << 20;
  limits.max_output_bytes = 1u << 20;
  limits.max_time = std::chrono::milliseconds(500);
  auto rendered = (*parsed)->render(variables, limits);
  if (rendered.ok() && rendered->size() > limits.max_output_bytes + (1u << 20)) std::abort();
  return 0;
}
