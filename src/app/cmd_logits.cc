// logits: the model's raw output for given token ids, as a safetensors file.
#include <cstdio>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>

#include "app/commands.h"
#include "app/stage_chain.h"

namespace tessera::app {
namespace {

struct LogitsOptions : ModelOptions {
  std::string out;
  LogitsOptions() { dtype = "float32"; }
  template <typename V>
  void fields(V& v) {
    v("out", out, "the safetensors file to write: tensors \"0\", \"1\", … of float32 [tokens, vocab]");
    ModelOptions::fields(v);
  }
};

Result<std::vector<std::vector<TokenId>>> read_prompts(int vocab) {
  std::vector<std::vector<TokenId>> prompts;
  std::string line;
  for (int number = 1; std::getline(std::cin, line); ++number) {
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    const std::string where = "line " + std::to_string(number) + " of stdin";
    auto json = parse_json(line);
    if (!json.ok() || !json->is_array() || json->empty()) return corrupt(where + " is no list of token ids");
    std::vector<TokenId>& ids = prompts.emplace_back();
    for (const Json& id : *json) {
      if (!id.is_number_integer() || id.get<int64_t>() < 0 || id.get<int64_t>() >= vocab)
        return corrupt(where + ": " + dump_json(id) + " is no token id of this model (0 to " +
                       std::to_string(vocab - 1) + ")");
      ids.push_back(id.get<TokenId>());
    }
  }
  return prompts;
}

// The header of a safetensors file: 8 bytes of length, then JSON padded with spaces to 8.
std::string safetensors_header(const std::vector<std::vector<TokenId>>& prompts, int vocab) {
  OrderedJson header = OrderedJson::object();
  uint64_t offset = 0;
  for (size_t i = 0; i < prompts.size(); ++i) {
    const uint64_t bytes = uint64_t{4} * prompts[i].size() * static_cast<uint64_t>(vocab);
    header[std::to_string(i)] = {
        {"dtype", "F32"}, {"shape", {prompts[i].size(), vocab}}, {"data_offsets", {offset, offset + bytes}}};
    offset += bytes;
  }
  std::string text = dump_json(header);
  text.resize((text.size() + 7) / 8 * 8, ' ');
  std::string length;
  for (int i = 0; i < 8; ++i)
    length.push_back(static_cast<char>(static_cast<uint64_t>(text.size()) >> (8 * i)));
  return length + text;
}

int logits(const LogitsOptions& options) {
  if (options.out.empty()) return report(invalid_argument("say where to: --out FILE"));
  auto opened = open_model(options);
  if (!opened.ok()) return report(opened.status());
  auto prompts = read_prompts(opened->spec.vocab);
  if (!prompts.ok()) return report(prompts.status());
  for (const auto& prompt : *prompts)
    if (static_cast<int>(prompt.size()) > opened->spec.context_length)
      std::fprintf(stderr, "tessera: a prompt of %zu tokens is longer than the model's context of %d\n",
                   prompt.size(), opened->spec.context_length);
  if (Status fits = check_memory(*opened, options); !fits.ok()) return report(fits);
  auto chain = StageChain::load(*opened, options, std::min(options.max_batch_tokens, 256));
  if (!chain.ok()) return report(chain.status());

  std::ofstream file(options.out, std::ios::binary | std::ios::trunc);
  const std::string header = safetensors_header(*prompts, opened->spec.vocab);
  file.write(header.data(), static_cast<std::streamsize>(header.size()));
  for (const auto& prompt : *prompts) {
    Status status = (*chain)->run(prompt, [&](std::span<const float> rows) {
      file.write(reinterpret_cast<const char*>(rows.data()), static_cast<std::streamsize>(rows.size_bytes()));
      return file ? Status() : Status(Code::kIo, "cannot write " + options.out);
    });
    if (!status.ok()) return report(status);
  }
  file.close();
  return file ? kDone : report(Status(Code::kIo, "cannot write " + options.out));
}

}  // namespace

Command logits_command() {
  auto options = std::make_shared<LogitsOptions>();
  return {"logits", "raw logits of given token ids: JSON lists on stdin, a safetensors file out",
          "  echo '[1,2,3]' | tessera logits --model ./model --out logits.safetensors\n"
          "--dtype is float32 here, the exact path; --dtype auto shows the path that serves.",
          fields_of(*options), [options] { return logits(*options); }};
}

}  // namespace tessera::app
