// What an engine costs beside its device: scheduler time a step, and KV memory that holds nothing.
//   cmake -DTESSERA_BENCH=ON … && bench_engine
// Figures to hold: scheduler_us_per_step <= 20 at 256 sequences; kv_waste_percent <= 2 at mean length >= 512.
#include <benchmark/benchmark.h>

#include <random>

#include "engine/engine.h"
#include "engine/toy_model.h"
#include "kv/block_pool.h"

namespace tessera::engine::toy {
namespace {

class NullSink final : public MessageSink {
 public:
  void send(const std::string&, Message) override {}
};

// `count` sequences of `length` +- half, spread evenly, decoding.
std::unique_ptr<Engine> decoding_engine(MessageSink& sink, int count, int length) {
  ToyOptions toy;
  toy.context_length = 4 * length;
  toy.compute = false;
  EngineOptions options;
  options.model_identity = "toy";
  options.kv_memory_bytes = kv_bytes(count * kv::pages_for(toy.context_length), toy.num_blocks);
  options.max_sequences = count;
  auto engine = Engine::create(std::make_unique<ToyModel>(toy, BlockRange{0, toy.num_blocks}),
                               std::make_unique<ToyBackend>(), options, sink, nullptr);
  TESSERA_CHECK(engine.ok(), engine.status().message());
  std::mt19937 random(1);
  for (int i = 0; i < count; ++i) {
    OpenSession open;
    open.session = static_cast<SessionId>(i + 1);
    open.epoch = 1;
    open.gateway = "gateway";
    open.route = std::make_shared<const Route>(Route{{"local", {0, toy.num_blocks}}});
    std::vector<TokenId> tokens(static_cast<size_t>(length / 2) + random() % static_cast<size_t>(length));
    for (TokenId& token : tokens) token = static_cast<TokenId>(3 + random() % 900);
    open.prompt_tokens = static_cast<int>(tokens.size());
    open.params.ignore_eos = true;
    open.params.max_tokens = toy.context_length - open.prompt_tokens;
    open.max_length = toy.context_length;
    open.tokens = std::make_shared<const std::vector<TokenId>>(std::move(tokens));
    (*engine)->post(open);
    (*engine)->post(StartSession{open.session, 1, 0});
  }
  while ((*engine)->stats().last_batch_rows != count || (*engine)->stats().prefill_tokens == 0)
    (*engine)->run_once();
  return std::move(engine).value();
}

void decode_step(benchmark::State& state) {
  const auto sequences = static_cast<int>(state.range(0));
  NullSink sink;
  std::unique_ptr<Engine> engine;
  double seconds = 0;
  int64_t steps = 0;
  for (auto _ : state) {
    if (engine == nullptr || engine->stats().decode_tokens / sequences > 1000) {
      state.PauseTiming();
      engine = decoding_engine(sink, sequences, 640);
      state.ResumeTiming();
    }
    const EngineStats before = engine->stats();
    engine->run_once();
    const EngineStats after = engine->stats();
    seconds += after.scheduler_seconds - before.scheduler_seconds;
    steps += after.steps - before.steps;
  }
  state.counters["scheduler_us_per_step"] = seconds / static_cast<double>(steps) * 1e6;
}
// The CPU column holds the scheduler and the toy's sampling; unlike the counter, it does not grow on a busy
// machine.
BENCHMARK(decode_step)->Arg(1)->Arg(64)->Arg(256)->Iterations(3000);

void kv_waste(benchmark::State& state) {
  const auto mean_length = static_cast<int>(state.range(0));
  NullSink sink;
  for (auto _ : state) {
    auto engine = decoding_engine(sink, 256, mean_length);
    const EngineStats stats = engine->stats();
    const auto held = static_cast<double>(stats.kv_used) * kKvBlockTokens;
    // Random prompts share nothing: every computed position is in a page of its own sequence.
    const auto filled = static_cast<double>(stats.prefill_tokens + stats.decode_tokens);
    state.counters["kv_waste_percent"] = 100 * (held - filled) / held;
    state.counters["mean_length"] = filled / 256;
  }
}
BENCHMARK(kv_waste)->Arg(512)->Arg(1024)->Iterations(1);

}  // namespace
}  // namespace tessera::engine::toy

BENCHMARK_MAIN();
