// Invariant I1: how blocks are cut, prompts chunked and sequences batched does not change a bit.
#include <cstring>

#include "model/testing.h"

namespace tessera::model::testing {
namespace {

struct Case {
  std::string model;
  tensor::MatrixFormat format;
};
void PrintTo(const Case& c, std::ostream* out) {
  *out << c.model;
}

std::vector<Case> cases() {
  std::vector<Case> all;
  for (const char* name : {"llama", "llama-bias", "mistral", "qwen2-yarn", "qwen3", "gemma2", "gemma3",
                           "phi3-longrope", "mixtral", "qwen3-moe"})
    all.push_back({name, tensor::MatrixFormat::kF32});
  for (const char* name : {"llama", "gemma3", "qwen3-moe", "gguf/llama-f16.gguf", "gguf/llama-q4_0.gguf",
                           "gguf/llama-k256-q4_k_m.gguf", "gguf/llama-k256-q5_k_s.gguf"})
    all.push_back({name, tensor::MatrixFormat::kAuto});
  all.push_back({"qwen3", tensor::MatrixFormat::kInt8});
  all.push_back({"mixtral", tensor::MatrixFormat::kInt4});
  return all;
}

class Exact : public ::testing::TestWithParam<Case> {
 protected:
  Exact() {
    for (int i = 0; i < 48; ++i) tokens_.push_back(3 + i * 37 % 300);
  }
  std::filesystem::path path() const { return parity_models() / GetParam().model; }
  RunnerOptions options() const {
    RunnerOptions options;
    options.format = GetParam().format;
    options.kv_dtype = DType::kF16;
    return options;
  }
  std::vector<TokenId> tokens_;
};

void expect_same_bits(std::span<const float> a, std::span<const float> b, const std::string& what) {
  ASSERT_EQ(a.size(), b.size()) << what;
  EXPECT_EQ(std::memcmp(a.data(), b.data(), a.size_bytes()), 0) << what;
}

TEST_P(Exact, EveryCutIntoTwoAndThree) {
  Runner whole(path(), options());
  const auto expected = whole.step(tokens_, 0);
  const int blocks = whole.spec().num_blocks;
  for (int first = 1; first < blocks; ++first) {
    for (int second = first + 1; second <= blocks; ++second) {
      RunnerOptions cut = options();
      cut.ranges = {{0, first}, {first, second}};
      if (second < blocks) cut.ranges.push_back({second, blocks});
      Runner runner(path(), cut);
      expect_same_bits(expected, runner.step(tokens_, 0),
                       "cut at " + std::to_string(first) + " and " + std::to_string(second));
    }
  }
}

TEST_P(Exact, EveryChunkingAndThreadCount) {
  const auto expected = Runner(path(), options()).step(tokens_, 0);
  for (const size_t chunk : {1, 7, 16})
    expect_same_bits(expected, Runner(path(), options()).prefill(tokens_, chunk),
                     "chunks of " + std::to_string(chunk));
  RunnerOptions other = options();
  other.threads = 1;
  other.max_logit_rows = 5;
  expect_same_bits(expected, Runner(path(), other).step(tokens_, 0), "one thread, logits in parts");
}

TEST_P(Exact, BatchedAsAlone) {
  const std::vector<TokenId> short_prompt(tokens_.rbegin(), tokens_.rbegin() + 13);
  const auto alone_long = Runner(path(), options()).step(tokens_, 0);
  const auto alone_short = Runner(path(), options()).step(short_prompt, 0);
  Runner both(path(), options());
  // one decodes its last token while the other brings its whole prompt
  both.step(std::span(tokens_).first(47), 0);
  const Part parts[] = {{1, short_prompt, 0}, {0, std::span(tokens_).subspan(47), 47}};
  const auto logits = both.step(parts);
  const auto vocab = static_cast<size_t>(both.spec().vocab);
  expect_same_bits(alone_short, std::span(logits).first(13 * vocab), "first sequence");
  expect_same_bits(std::span(alone_long).subspan(47 * vocab), std::span(logits).subspan(13 * vocab),
                   "second sequence");
}

TEST_P(Exact, SampledRowsSeeTheLogitsOfTheirRows) {
  RunnerOptions narrow = options();
  narrow.max_logit_rows = 2;  // three requests: in parts
  Runner runner(path(), narrow);
  const auto vocab = static_cast<size_t>(runner.spec().vocab);
  const auto logits = runner.step(tokens_, 0);
  SamplingParams greedy;
  greedy.temperature = 0;
  StepPlan plan;
  for (const int row : {5, 47, 20}) {
    SampleRequest request;
    request.row = row;
    request.position = row + 1;
    request.params = &greedy;
    plan.samples.push_back(request);
  }
  const Part part{0, tokens_, 0};
  const StepResult result = runner.run(std::move(plan), std::span(&part, 1));
  ASSERT_EQ(result.sampled.size(), 3u);
  EXPECT_TRUE(result.logits.empty());
  int i = 0;
  for (const size_t row : {5, 47, 20})
    EXPECT_EQ(result.sampled[static_cast<size_t>(i++)].token,
              argmax(std::span(logits).subspan(row * vocab, vocab)));
}

TEST_P(Exact, EstimateIsWhatLoadHolds) {
  for (const auto format : {tensor::MatrixFormat::kF32, tensor::MatrixFormat::kAuto,
                            tensor::MatrixFormat::kInt8, tensor::MatrixFormat::kInt4}) {
    RunnerOptions options;
    options.format = format;
    options.ranges = {{0, 1}, {1, 2}};
    const Runner whole(path(), [&] {
      RunnerOptions o = options;
      o.ranges.clear();
      return o;
    }());
    if (whole.spec().num_blocks > 2) options.ranges.push_back({2, whole.spec().num_blocks});
    const Runner runner(path(), options);
    for (size_t stage = 0; stage < options.ranges.size(); ++stage) {
      const auto held = static_cast<double>(runner.model(stage).weight_bytes());
      const auto estimate = static_cast<double>(
          must(estimate_weight_bytes(runner.spec(), runner.source(), options.ranges[stage], format)));
      EXPECT_NEAR(estimate / held, 1.0, 0.05) << "format " << static_cast<int>(format) << " stage " << stage;
    }
    const auto estimate = static_cast<double>(
        must(estimate_weight_bytes(whole.spec(), whole.source(), {0, whole.spec().num_blocks}, format)));
    EXPECT_NEAR(estimate / static_cast<double>(whole.model().weight_bytes()), 1.0, 0.05);
  }
}

std::string test_name(const ::testing::TestParamInfo<Case>& info) {
  static constexpr const char* kFormats[] = {"auto", "f32", "int8", "int4"};
  std::string name = info.param.model + "_" + kFormats[static_cast<int>(info.param.format)];
  for (char& c : name)
    if (c == '-' || c == '/' || c == '.') c = '_';
  return name;
}
INSTANTIATE_TEST_SUITE_P(Models, Exact, ::testing::ValuesIn(cases()), test_name);

}  // namespace
}  // namespace tessera::model::testing
