// Real checkpoints through whole engines: the reference's greedy tokens, whatever the cut, the batch, the
// chunks and the cache.
#include "base/mutex.h"
#include "engine/test_cluster.h"
#include "model/testing.h"

namespace tessera::engine::toy {
namespace {

using model::testing::must;

struct GoldenCase {
  std::string model;
  int hops = 1;
  int budget = 512;
};
void PrintTo(const GoldenCase& c, std::ostream* out) {
  *out << c.model << " on " << c.hops << " hops, " << c.budget << " rows a step";
}

class EngineGolden : public testing::TestWithParam<GoldenCase> {};

std::vector<std::unique_ptr<Engine>> load_engines(const GoldenCase& c, MessageSink& sink, Route& route) {
  auto source = must(checkpoint::open_source(model::testing::parity_models() / c.model));
  const model::ModelSpec spec = must(model::read_spec(source->config(), source->generation_config()));
  const auto pool = tensor::make_thread_pool(2);
  std::vector<std::unique_ptr<Engine>> engines;
  for (BlockRange range : cut(spec.num_blocks, c.hops)) {
    auto backend = tensor::make_cpu_backend(pool);
    model::LoadOptions load;
    load.format = tensor::MatrixFormat::kF32;
    load.kv_dtype = DType::kF32;
    auto model = must(model::Model::load(spec, source, range, *backend, load));
    EngineOptions options;
    options.worker_name = "w" + std::to_string(engines.size());
    options.model_identity = c.model;
    options.kv_memory_bytes = uint64_t{16} << 20;
    options.kv_dtype = DType::kF32;
    options.context_length = 128;
    options.max_batch_tokens = c.budget;
    options.max_sequences = 8;
    route.push_back({options.worker_name, range});
    engines.push_back(must(Engine::create(std::move(model), std::move(backend), options, sink, nullptr)));
  }
  return engines;
}

TEST_P(EngineGolden, GreedyTokensEqualTheReference) {
  const model::testing::Reference reference(model::testing::parity_models() / GetParam().model /
                                            "golden.safetensors");
  const std::vector<TokenId> prompt = reference.tokens("input_ids");
  const std::vector<TokenId> expected = reference.tokens("greedy_tokens");
  TestCluster cluster;
  Route route;
  auto engines = load_engines(GetParam(), cluster, route);
  cluster.adopt(std::move(route), std::move(engines));

  SamplingParams greedy;
  greedy.temperature = 0;
  greedy.max_tokens = static_cast<int>(expected.size());
  greedy.ignore_eos = true;
  SamplingParams noise = greedy;
  noise.temperature = 1;
  noise.seed = 3;
  noise.frequency_penalty = 0.5f;
  noise.prompt_logprobs = true;
  std::vector<SessionId> ids{cluster.submit(prompt, greedy)};
  const SessionId noisy = cluster.submit({prompt.begin(), prompt.begin() + 21}, noise);
  for (int i = 0; i < 8; ++i) cluster.turn();
  ids.push_back(cluster.submit(prompt, greedy));  // beside others, on what the first has cached
  cluster.run();
  ids.push_back(cluster.submit(prompt, greedy));  // alone, cached
  const SessionId noisy_again = cluster.submit({prompt.begin(), prompt.begin() + 21}, noise);
  cluster.run();
  for (SessionId id : ids) {
    EXPECT_TRUE(cluster.session(id).failure.ok()) << cluster.session(id).failure.to_string();
    EXPECT_EQ(cluster.session(id).output(), expected) << "session " << id;
  }
  EXPECT_EQ(cluster.session(ids.back()).first_start, 32);
  EXPECT_EQ(cluster.session(noisy).output(), cluster.session(noisy_again).output());
  ASSERT_EQ(cluster.session(noisy).prompt_logprobs.size(), 21u);
  for (size_t i = 1; i < 21; ++i)
    EXPECT_EQ(cluster.session(noisy).prompt_logprobs[i].logprobs.logprob,
              cluster.session(noisy_again).prompt_logprobs[i].logprobs.logprob);
}

INSTANTIATE_TEST_SUITE_P(Models, EngineGolden,
                         testing::Values(GoldenCase{"llama"}, GoldenCase{"llama", 2, 7},
                                         GoldenCase{"llama", 1, 1}, GoldenCase{"qwen3", 2, 64},
                                         GoldenCase{"gemma3", 3, 20}, GoldenCase{"mistral", 1, 20},
                                         GoldenCase{"phi3-longrope", 2, 512}, GoldenCase{"mixtral", 1, 33}));

}  // namespace
}  // namespace tessera::engine::toy
