#include "app/load_tool.h"

#include <atomic>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <thread>

#include "app/command.h"
#include "app/load_report.h"
#include "base/mutex.h"
#include "base/rng.h"
#include "net/api_base.h"

namespace tessera::app {
namespace {

using Clock = std::chrono::steady_clock;

// One turn of a client's conversation: `fresh` new tokens after all that came before, `out` tokens back.
struct Turn {
  int shared = 0;  // of a conversation's first turn: tokens that all clients begin with
  int fresh = 0;
  int out = 0;
};

// Ids that any vocabulary has, past the special ones; a pure function of (stream, index).
TokenId id_at(uint32_t stream, uint64_t index) {
  return 300 + static_cast<TokenId>(uniform_at(7, stream, index) * 1500);
}

void append_ids(std::vector<TokenId>& ids, uint32_t stream, uint64_t& counter, int count) {
  for (int i = 0; i < count; ++i) ids.push_back(id_at(stream, counter++));
}

Result<std::map<int, std::vector<Turn>>> read_trace(const std::string& path) {
  std::ifstream file(path);
  if (!file) return not_found("cannot read " + path);
  std::map<int, std::vector<Turn>> clients;
  std::string text;
  for (int number = 1; std::getline(file, text); ++number) {
    if (text.empty()) continue;
    auto json = parse_json(text);
    const auto field = [&](const char* key) {
      return json->contains(key) && (*json)[key].is_number_integer() ? (*json)[key].get<int>() : 0;
    };
    if (!json.ok() || !json->is_object() || field("out") < 1 || field("new") < 1)
      return invalid_argument(path + ":" + std::to_string(number) +
                              ": expected {\"client\",\"shared\",\"new\",\"out\"}");
    clients[field("client")].push_back({field("shared"), field("new"), field("out")});
  }
  if (clients.empty()) return invalid_argument(path + " holds no turn");
  return clients;
}

// The server's first model, for servers that insist on a name.
std::string first_model(const LoadOptions& options, const std::string& base) {
  net::HttpClientRequest request;
  request.url = base + "/v1/models";
  if (!options.api_key.empty()) request.headers = {{"Authorization", "Bearer " + options.api_key}};
  auto reply = net::http_request(request);
  if (!reply.ok() || reply->status != 200) return "";
  auto json = parse_json(reply->body);
  if (!json.ok() || !json->is_object() || !json->contains("data") || (*json)["data"].empty()) return "";
  const Json& first = (*json)["data"][0];
  return first.is_object() ? first.value("id", "") : "";
}

// Runs `work(client)` on as many threads; collects what they report.
class Load {
 public:
  Load(const LoadOptions& options, std::string base) : options_(options), base_(std::move(base)) {
    model_ = options.served_model.empty() ? first_model(options, base_) : options.served_model;
  }

  std::vector<LoadResult> closed_loop() {
    std::atomic<int> next{0};
    run_clients(options_.clients, [&](LoadClient& client, int) {
      for (int index; (index = next.fetch_add(1)) < options_.requests;)
        add(client.complete(random_call(index)));
    });
    return std::move(results_);
  }

  std::vector<LoadResult> open_loop(double rate) {
    std::vector<std::thread> threads;
    auto due = Clock::now();
    for (int index = 0; index < options_.requests; ++index) {
      std::this_thread::sleep_until(due);
      threads.emplace_back([this, index] {
        auto client = LoadClient::open(base_, options_.api_key);
        add(client.ok() ? (*client)->complete(random_call(index)) : failed(client.status()));
      });
      const double wait_s = -std::log(1.0 - uniform_at(11, 0, static_cast<uint64_t>(index))) / rate;
      due += std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(wait_s));
    }
    for (auto& thread : threads) thread.join();
    return std::move(results_);
  }

  std::vector<LoadResult> conversations(const std::map<int, std::vector<Turn>>& clients) {
    std::vector<int> names;
    for (const auto& [name, turns] : clients) names.push_back(name);
    run_clients(static_cast<int>(names.size()), [&](LoadClient& client, int index) {
      const int name = names[static_cast<size_t>(index)];
      LoadCall call;
      call.model = model_;
      uint64_t shared = 0, own = 0;
      for (const Turn& turn : clients.at(name)) {
        append_ids(call.ids, 0, shared, turn.shared);
        append_ids(call.ids, static_cast<uint32_t>(name + 1), own, turn.fresh);
        call.max_tokens = turn.out;
        LoadResult result = client.complete(call);
        const bool ok = result.error.empty();
        if (result.ids.empty()) append_ids(call.ids, static_cast<uint32_t>(name + 1), own, turn.out);
        call.ids.insert(call.ids.end(), result.ids.begin(), result.ids.end());
        add(std::move(result));
        if (!ok) return;
      }
    });
    return std::move(results_);
  }

 private:
  static LoadResult failed(const Status& status) {
    LoadResult result;
    result.error = status.message();
    return result;
  }

  LoadCall random_call(int index) const {
    LoadCall call;
    call.model = model_;
    call.max_tokens = options_.output_tokens;
    uint64_t counter = static_cast<uint64_t>(index) << 32;
    append_ids(call.ids, 1, counter, options_.input_tokens);
    return call;
  }

  template <typename F>
  void run_clients(int count, F work) {
    std::vector<std::thread> threads;
    for (int i = 0; i < count; ++i) {
      threads.emplace_back([this, i, &work] {
        auto client = LoadClient::open(base_, options_.api_key);
        if (client.ok()) {
          work(**client, i);
        } else {
          add(failed(client.status()));
        }
      });
    }
    for (auto& thread : threads) thread.join();
  }

  void add(LoadResult result) {
    MutexLock lock(mutex_);
    results_.push_back(std::move(result));
  }

  const LoadOptions& options_;
  const std::string base_;
  std::string model_;
  Mutex mutex_;
  std::vector<LoadResult> results_ TESSERA_GUARDED_BY(mutex_);
};

Status check(const LoadOptions& options) {
  if (options.clients < 1 || options.clients > 10000)
    return invalid_argument("--clients is between 1 and 10000");
  if (options.requests < 1 || options.input_tokens < 1 || options.output_tokens < 1)
    return invalid_argument("--requests, --input and --output are at least 1");
  if (options.rate && *options.rate <= 0) return invalid_argument("--rate is more than 0");
  return {};
}

}  // namespace

int run_load(const LoadOptions& options, bool json) {
  if (Status status = check(options); !status.ok()) return report(status);
  auto base = net::api_base(options.url);
  if (!base.ok()) return report(base.status().with_context("--url"));
  std::map<int, std::vector<Turn>> trace;
  if (!options.trace.empty()) {
    auto read = read_trace(options.trace);
    if (!read.ok()) return report(read.status());
    trace = std::move(read).value();
  }
  Load load(options, std::move(base).value());
  const auto start = Clock::now();
  std::vector<LoadResult> results = !trace.empty() ? load.conversations(trace)
                                    : options.rate ? load.open_loop(*options.rate)
                                                   : load.closed_loop();
  const double wall_s = std::chrono::duration<double>(Clock::now() - start).count();
  const LoadReport report(std::move(results), wall_s, {options.ttft_limit_ms, options.gap_limit_ms});
  std::fputs(json ? (dump_json(report.to_json()) + "\n").c_str() : report.to_text().c_str(), stdout);
  return report.any_failed() ? kFailed : kDone;
}

}  // namespace tessera::app
