// Encodings and decodings against reference results, byte for byte.
#include <gtest/gtest.h>
#include <zlib.h>

#include <cstdlib>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>

#include "base/files.h"
#include "base/json.h"
#include "text/detokenizer.h"
#include "text/tokenizer.h"

namespace tessera::text {
namespace {

namespace fs = std::filesystem;

std::string read_gzip(const fs::path& path) {
  std::string text;
  gzFile file = gzopen(path.c_str(), "rb");
  if (file == nullptr) return text;
  char buffer[1 << 16];
  for (int n; (n = gzread(file, buffer, sizeof buffer)) > 0;) text.append(buffer, static_cast<size_t>(n));
  gzclose(file);
  return text;
}

TokenizerPtr load_golden(const fs::path& folder) {
  auto config = read_file(folder / "tokenizer_config.json");
  auto tokenizer = load_tokenizer_json(read_gzip(folder / "tokenizer.json.gz"), config.ok() ? *config : "");
  EXPECT_TRUE(tokenizer.ok()) << folder << ": " << tokenizer.status().to_string();
  return tokenizer.ok() ? *tokenizer : nullptr;
}

std::string stream_decode(const TokenizerPtr& tokenizer, const std::vector<int32_t>& ids, bool skip_special) {
  IncrementalDetokenizer detokenizer(tokenizer, skip_special);
  std::string text;
  for (const int32_t id : ids) text += detokenizer.push(id);
  return text + detokenizer.finish();
}

void check_golden(const fs::path& folder) {
  SCOPED_TRACE(folder.string());
  const TokenizerPtr tokenizer = load_golden(folder);
  ASSERT_NE(tokenizer, nullptr);
  const auto golden = Json::parse(*read_file(folder / "golden.json"));
  ASSERT_GE(golden["encode"].size(), 100u);
  for (const Json& entry : golden["encode"]) {
    const std::string text = entry["text"];
    SCOPED_TRACE(text);
    const std::vector<int32_t> ids = entry["ids"], ids_special = entry["ids_special"];
    EXPECT_EQ(tokenizer->encode(text, {.add_special_tokens = false}).value(), ids);
    EXPECT_EQ(tokenizer->encode(text, {}).value(), ids_special);
    EXPECT_EQ(tokenizer->decode(ids).value(), entry["decoded"].get<std::string>());
    for (const bool skip : {false, true})
      EXPECT_EQ(stream_decode(tokenizer, ids_special, skip), tokenizer->decode(ids_special, skip).value());
  }
  for (const Json& chat : golden["chat"]) {
    if (!chat.contains("rendered") || !chat["rendered"].is_string()) continue;
    EXPECT_EQ(tokenizer->encode(chat["rendered"].get<std::string>(), {.add_special_tokens = false}).value(),
              chat["ids"].get<std::vector<int32_t>>());
  }
}

class CommittedTokenizer : public ::testing::TestWithParam<const char*> {};
TEST_P(CommittedTokenizer, MatchesReference) {
  check_golden(fs::path(TESSERA_SOURCE_DIR) / "tests/parity/tokenizers" / GetParam());
}
INSTANTIATE_TEST_SUITE_P(All, CommittedTokenizer, ::testing::Values("smollm2", "qwen2_5", "qwen3"));

class OutsideTokenizer : public ::testing::TestWithParam<const char*> {};
TEST_P(OutsideTokenizer, MatchesReference) {
  const char* golden = std::getenv("TESSERA_GOLDEN");
  if (golden == nullptr) GTEST_SKIP() << "TESSERA_GOLDEN is not set: " << GetParam() << " is NOT tested";
  check_golden(fs::path(golden) / "tokenizers" / GetParam());
}
INSTANTIATE_TEST_SUITE_P(All, OutsideTokenizer,
                         ::testing::Values("deepseek_v3", "gemma2", "gemma3", "llama2", "llama3_1",
                                           "mistral_nemo"));

}  // namespace
}  // namespace tessera::text
