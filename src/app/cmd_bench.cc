// bench: throughput of a model in this process, or of any OpenAI-compatible server.
#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "app/commands.h"
#include "app/load_tool.h"
#include "app/local_cluster.h"
#include "base/mutex.h"
#include "base/rng.h"
#include "tensor/cpu/limits.h"

namespace tessera::app {
namespace {

using Clock = std::chrono::steady_clock;

struct BenchOptions : ModelOptions {
  int prompt = 512;
  int generate = 128;
  int depth = 16;
  std::vector<std::string> sequences{"1", "16"};
  int repeat = 3;
  bool json = false;
  LoadOptions load;
  template <typename V>
  void fields(V& v) {
    ModelOptions::fields(v);
    v("prompt", prompt, "tokens of the prompt whose prefill is timed");
    v("generate", generate,
      "tokens that each sequence generates; more where that is over too soon to be timed");
    v("depth", depth, "tokens that come before those that a sequence generates");
    v("sequences", sequences, "how many sequences decode at once: a list");
    v("repeat", repeat, "runs of each test; the median counts");
    v("json", json, "machine-readable output");
    load.fields(v);
  }
};

// Notes when tokens come; one per sequence.
class Stopwatch final : public cluster::SessionObserver {
 public:
  void on_started(int) override {}
  void on_token(const Token& token) override {
    MutexLock lock(mutex_);
    times_.push_back(Clock::now());
    if (token.finish != FinishReason::kNone) finish(Status());
  }
  void on_failed(const Status& reason) override {
    MutexLock lock(mutex_);
    finish(reason);
  }
  Result<std::vector<Clock::time_point>> wait() {
    MutexLock lock(mutex_);
    done_.wait(mutex_, [&] { return over_; });
    if (!status_.ok()) return status_;
    return times_;
  }

 private:
  void finish(const Status& status) TESSERA_REQUIRES(mutex_) {
    status_ = status;
    over_ = true;
    done_.notify_all();
  }
  Mutex mutex_;
  CondVar done_;
  std::vector<Clock::time_point> times_ TESSERA_GUARDED_BY(mutex_);
  bool over_ TESSERA_GUARDED_BY(mutex_) = false;
  Status status_ TESSERA_GUARDED_BY(mutex_);
};

double seconds(Clock::duration d) {
  return std::chrono::duration<double>(d).count();
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

struct Row {
  std::string test;
  int sequences = 1;
  int tokens = 0;
  double tokens_per_s = 0;
};

// What a test is measured over: small models are run again, and longer, until enough time has passed.
constexpr double kMeasuredSeconds = 1.0;  // of all repeats together
constexpr int kLongestGeneration = 4096;  // a generation is made no longer than this to fill the time
constexpr std::chrono::seconds kPatience{20};

// Tokens, and the time they took.
struct Measured {
  int64_t tokens = 0;
  double seconds = 0;
  double rate() const { return static_cast<double>(tokens) / seconds; }
};

class ModelBench {
 public:
  ModelBench(LocalCluster& local, const BenchOptions& options) : local_(local), options_(options) {}

  Result<Row> prefill() {
    TESSERA_RETURN_IF_ERROR(one_prefill().status());  // warm-up
    TESSERA_ASSIGN_OR_RETURN(const double rate, median_of_repeats([&] { return one_prefill(); }));
    return Row{"prefill", 1, options_.prompt, rate};
  }

  Result<Row> decode(int count) {
    TESSERA_ASSIGN_OR_RETURN(const int generate, long_enough(count));
    TESSERA_ASSIGN_OR_RETURN(const double rate,
                             median_of_repeats([&] { return one_decode(count, generate); }));
    return Row{"decode", count, generate, rate};
  }

 private:
  // The median rate of the repeats, each measured until its share of the time has passed.
  template <typename F>
  Result<double> median_of_repeats(F&& once) {
    std::vector<double> rates;
    for (int i = 0; i < options_.repeat; ++i) {
      Measured sum;
      const auto give_up = Clock::now() + kPatience;
      while (sum.seconds < kMeasuredSeconds / options_.repeat) {
        TESSERA_ASSIGN_OR_RETURN(const Measured more, once());
        sum.tokens += more.tokens;
        sum.seconds += more.seconds;
        if (Clock::now() < give_up) continue;
        if (sum.seconds > 0) break;
        return internal_error(
            "the sequences did not run together: generate more tokens or raise --kv-memory");
      }
      rates.push_back(sum.rate());
    }
    return median(std::move(rates));
  }

  // How many tokens a sequence must generate for a run to fill a good part of the time, as far as the context
  // allows: of a short run little is left between the beginning of the last sequence and the end of the
  // first. Finding it out is the warm-up, too.
  Result<int> long_enough(int count) {
    const int longest = std::max(
        options_.generate, std::min(kLongestGeneration, local_.model().context_length - options_.depth - 1));
    for (int generate = options_.generate;; generate = std::min(2 * generate, longest)) {
      TESSERA_ASSIGN_OR_RETURN(const Measured run, one_decode(count, generate));
      if (generate >= longest || run.seconds * 4 * options_.repeat >= kMeasuredSeconds) return generate;
    }
  }

  // From submit to first token.
  Result<Measured> one_prefill() {
    const auto start = Clock::now();
    TESSERA_ASSIGN_OR_RETURN(auto watch, submit(next_prompt_++, options_.prompt, 1));
    TESSERA_ASSIGN_OR_RETURN(auto times, watch->wait());
    return Measured{options_.prompt, seconds(times.front() - start)};
  }

  // All sequences together, between the moment the last has begun and the moment the first ends; nothing when
  // they did not run together.
  Result<Measured> one_decode(int count, int generate) {
    std::vector<std::shared_ptr<Stopwatch>> watches;
    for (int i = 0; i < count; ++i) {
      TESSERA_ASSIGN_OR_RETURN(auto watch, submit(i, options_.depth, generate + 1));
      watches.push_back(std::move(watch));
    }
    std::vector<std::vector<Clock::time_point>> all;
    for (auto& watch : watches) {
      TESSERA_ASSIGN_OR_RETURN(auto times, watch->wait());
      all.push_back(std::move(times));
    }
    Clock::time_point begin = all[0].front(), end = all[0].back();
    for (const auto& times : all) {
      begin = std::max(begin, times.front());
      end = std::min(end, times.back());
    }
    if (end <= begin) return Measured{};
    Measured run{0, seconds(end - begin)};
    for (const auto& times : all)
      run.tokens += std::count_if(times.begin(), times.end(), [&](auto t) { return t > begin && t <= end; });
    return run;
  }

  // Prompts of different numbers share nothing; one that comes again is found in the prefix cache, so that
  // only the first run of a test waits for it.
  Result<std::shared_ptr<Stopwatch>> submit(int number, int prompt, int generate) {
    cluster::SessionRequest request;
    const int vocab = local_.model().spec.vocab;
    for (int i = 0; i < prompt; ++i)
      request.prompt.push_back(static_cast<TokenId>(
          uniform_at(42, static_cast<uint32_t>(number), static_cast<uint64_t>(i)) * vocab));
    request.params.temperature = 0;
    request.params.ignore_eos = true;
    request.params.max_tokens = generate;
    auto watch = std::make_shared<Stopwatch>();
    TESSERA_ASSIGN_OR_RETURN(SessionId id, local_.sessions().submit(std::move(request), watch));
    (void)id;
    return watch;
  }

  LocalCluster& local_;
  const BenchOptions& options_;
  int next_prompt_ = 1 << 20;  // of prefill, which must find none
};

Result<std::vector<Row>> measure(LocalCluster& local, const BenchOptions& options,
                                 const std::vector<int>& sequences) {
  const int context = local.model().context_length;
  if (options.prompt >= context || options.generate + options.depth >= context)
    return invalid_argument("--prompt, and --generate with a prompt of " + std::to_string(options.depth) +
                            " tokens, must be below the context of " + std::to_string(context));
  ModelBench bench(local, options);
  std::vector<Row> rows;
  TESSERA_ASSIGN_OR_RETURN(Row prefill, bench.prefill());
  rows.push_back(std::move(prefill));
  for (int count : sequences) {
    TESSERA_ASSIGN_OR_RETURN(Row decode, bench.decode(count));
    rows.push_back(std::move(decode));
  }
  return rows;
}

Result<std::vector<int>> parse_sequences(const std::vector<std::string>& texts) {
  std::vector<int> counts;
  for (const std::string& text : texts) {
    std::vector<std::string> parts;
    TESSERA_RETURN_IF_ERROR(parse_field(text, parts));
    for (const std::string& part : parts) {
      int count = 0;
      TESSERA_RETURN_IF_ERROR(parse_field(part, count).with_context("--sequences"));
      if (count < 1) return invalid_argument("--sequences are at least 1");
      counts.push_back(count);
    }
  }
  return counts;
}

void print(const std::vector<Row>& rows, const tensor::MachineLimits& limits, uint64_t weight_bytes,
           uint64_t peak_bytes, bool json) {
  const double bandwidth_bound = limits.read_gb_per_s * 1e9 / static_cast<double>(weight_bytes);
  if (json) {
    OrderedJson all = {{"results", OrderedJson::array()},
                       {"peak_memory_bytes", peak_bytes},
                       {"limits",
                        {{"read_gb_per_s", limits.read_gb_per_s},
                         {"fma_gflop_per_s", limits.fma_gflop_per_s},
                         {"int8_gop_per_s", limits.int8_gop_per_s},
                         {"bf16_gflop_per_s", limits.bf16_gflop_per_s},
                         {"weight_bytes", weight_bytes},
                         {"decode_1_tokens_per_s", bandwidth_bound}}}};
    for (const Row& row : rows)
      all["results"].push_back({{"test", row.test},
                                {"sequences", row.sequences},
                                {"tokens", row.tokens},
                                {"tokens_per_s", row.tokens_per_s}});
    std::printf("%s\n", dump_json(all).c_str());
    return;
  }
  std::printf("%-10s %10s %8s %14s\n", "test", "sequences", "tokens", "tokens/s");
  for (const Row& row : rows)
    std::printf("%-10s %10d %8d %14.1f\n", row.test.c_str(), row.sequences, row.tokens, row.tokens_per_s);
  std::printf(
      "\nlimits here: memory reads %.1f GB/s (one sequence: at most %.1f tokens/s), float32 FMA %.0f "
      "GFLOP/s\n",
      limits.read_gb_per_s, bandwidth_bound, limits.fma_gflop_per_s);
}

int bench(BenchOptions& options) {
  if (!options.load.url.empty()) return run_load(options.load, options.json);
  auto sequences = parse_sequences(options.sequences);
  if (!sequences.ok()) return report(sequences.status());
  if (std::any_of(sequences->begin(), sequences->end(), [&](int n) { return n > options.max_sequences; }))
    return report(invalid_argument("--sequences must not be above --max-sequences"));
  if (options.prompt < 1 || options.generate < 2 || options.depth < 1 || options.repeat < 1)
    return report(invalid_argument("--prompt, --depth and --repeat are at least 1, --generate at least 2"));
  auto local = LocalCluster::start(options, nullptr);
  if (!local.ok()) return report(local.status());
  auto rows = measure(**local, options, *sequences);
  if (!rows.ok()) return report(rows.status());
  rusage used{};  // before the limits are measured, which takes memory of its own
  getrusage(RUSAGE_SELF, &used);
  const tensor::MachineLimits limits = tensor::measure_limits((*local)->threads());
  print(*rows, limits, (*local)->weight_bytes(), static_cast<uint64_t>(used.ru_maxrss) * 1024, options.json);
  return kDone;
}

}  // namespace

Command bench_command() {
  auto options = std::make_shared<BenchOptions>();
  return {"bench",
          "throughput of a model here (--model), or of any OpenAI-compatible server (--url)",
          "  tessera bench --model smollm2:135m --prompt 512 --generate 128 --sequences 1,16\n"
          "  tessera bench --url http://127.0.0.1:8080 --clients 16",
          fields_of(*options),
          [options] { return bench(*options); },
          {{"model", "url"}, {"rate", "clients"}, {"trace", "rate"}, {"trace", "clients"}}};
}

}  // namespace tessera::app
