// Reference results of every family (tests/parity/models/README.md), in float32.
#include <cstring>

#include "model/testing.h"

namespace tessera::model::testing {
namespace {

constexpr float kTolerance = 1e-4f;

struct Case {
  std::string name;
  std::filesystem::path model;
  std::filesystem::path reference;
};
void PrintTo(const Case& c, std::ostream* out) {
  *out << c.name;
}

std::vector<Case> safetensors_cases() {
  std::vector<Case> all;
  for (const char* name : {"llama", "llama-bias", "mistral", "qwen2", "qwen2-yarn", "qwen3", "gemma2",
                           "gemma3", "phi3", "phi3-longrope", "mixtral", "qwen3-moe"})
    all.push_back({name, parity_models() / name, parity_models() / name / "golden.safetensors"});
  return all;
}

std::vector<Case> cases() {
  std::vector<Case> all = safetensors_cases();
  for (const std::string name :
       {"llama-f16", "llama-q8_0", "llama-q4_0", "llama-k256-q4_k_m", "llama-k256-q5_k_s", "llama-k256-q6_k"})
    all.push_back({name, parity_models() / "gguf" / (name + ".gguf"),
                   parity_models() / "gguf" / (name + ".golden.safetensors")});
  return all;
}

class Golden : public ::testing::TestWithParam<Case> {};

TEST_P(Golden, LogitsOfEveryPosition) {
  const Reference reference(GetParam().reference);
  const auto tokens = reference.tokens("input_ids");
  Runner runner(GetParam().model, {});
  const int variant = runner.spec().rope_variant(static_cast<int>(tokens.size()));
  const auto logits = runner.step(tokens, 0, variant);
  EXPECT_LE(max_difference(logits, reference.floats("logits")), kTolerance);
}

TEST_P(Golden, GreedyTokensWithCachedKeysAndValues) {
  const Reference reference(GetParam().reference);
  const auto tokens = reference.tokens("input_ids");
  const auto expected = reference.tokens("greedy_tokens");
  const auto expected_logits = reference.floats("greedy_logits");
  Runner runner(GetParam().model, {});
  const auto vocab = static_cast<size_t>(runner.spec().vocab);
  const int variant = runner.spec().rope_variant(static_cast<int>(tokens.size() + expected.size()));
  auto logits = runner.step(tokens, 0, variant);
  auto last = std::vector<float>(logits.end() - static_cast<std::ptrdiff_t>(vocab), logits.end());
  for (size_t i = 0; i < expected.size(); ++i) {
    EXPECT_LE(max_difference(last, std::span(expected_logits).subspan(i * vocab, vocab)), kTolerance) << i;
    const TokenId token = argmax(last);
    ASSERT_EQ(token, expected[i]) << "step " << i;
    last = runner.step(std::span(&token, 1), static_cast<int>(tokens.size() + i), variant);
  }
}

class GoldenHidden : public Golden {};  // the GGUF references hold no hidden states

TEST_P(GoldenHidden, HiddenStateAtEveryCut) {
  const Reference reference(GetParam().reference);
  const auto tokens = reference.tokens("input_ids");
  const int blocks = Runner(GetParam().model, {}).spec().num_blocks;
  RunnerOptions options;
  for (int b = 0; b < blocks; ++b) options.ranges.push_back({b, b + 1});
  Runner runner(GetParam().model, options);
  runner.step(tokens, 0, runner.spec().rope_variant(static_cast<int>(tokens.size())));
  for (int b = 1; b < blocks; ++b)
    EXPECT_LE(max_difference(runner.hidden()[static_cast<size_t>(b - 1)],
                             reference.floats("hidden." + std::to_string(b))),
              kTolerance)
        << "input of block " << b;
}

std::string test_name(const ::testing::TestParamInfo<Case>& info) {
  std::string name = info.param.name;
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
}
INSTANTIATE_TEST_SUITE_P(Families, Golden, ::testing::ValuesIn(cases()), test_name);

INSTANTIATE_TEST_SUITE_P(Families, GoldenHidden, ::testing::ValuesIn(safetensors_cases()), test_name);

}  // namespace
}  // namespace tessera::model::testing
