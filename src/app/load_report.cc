#include "app/load_report.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <numeric>

namespace tessera::app {
namespace {

OrderedJson as_json(const Percentiles& p) {
  return {{"p50", p.p50}, {"p90", p.p90}, {"p99", p.p99}, {"max", p.max}, {"mean", p.mean}};
}

std::string line(const char* name, const Percentiles& p) {
  char text[160];
  std::snprintf(text, sizeof text, "%-24s %10.1f %10.1f %10.1f %10.1f\n", name, p.p50, p.p90, p.p99, p.max);
  return text;
}

double mean_of(const std::vector<double>& values) {
  return values.empty()
             ? 0
             : std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

}  // namespace

Percentiles percentiles(std::vector<double> values) {
  Percentiles result;
  if (values.empty()) return result;
  std::sort(values.begin(), values.end());
  const auto rank = [&](double share) {
    const auto index = static_cast<size_t>(std::ceil(share * static_cast<double>(values.size())));
    return values[std::clamp<size_t>(index, 1, values.size()) - 1];
  };
  return {rank(0.5), rank(0.9), rank(0.99), values.back(), mean_of(values)};
}

LoadReport::LoadReport(std::vector<LoadResult> results, double wall_s, LoadLimits limits) : wall_s_(wall_s) {
  std::vector<double> ttft, gaps, totals;
  for (const LoadResult& result : results) {
    if (!result.error.empty()) {
      ++errors_[result.error];
      ++failed_;
      continue;
    }
    ++answered_;
    prompt_tokens_ += result.prompt_tokens;
    cached_tokens_ += result.cached_tokens;
    completion_tokens_ += result.completion_tokens;
    ttft.push_back(result.ttft_s * 1e3);
    totals.push_back(result.total_s * 1e3);
    for (double gap : result.gaps_s) gaps.push_back(gap * 1e3);
    const bool ttft_ok = limits.ttft_ms <= 0 || result.ttft_s * 1e3 <= limits.ttft_ms;
    const bool gap_ok = limits.gap_ms <= 0 || mean_of(result.gaps_s) * 1e3 <= limits.gap_ms;
    if (ttft_ok && gap_ok) ++good_;
  }
  ttft_ms_ = percentiles(std::move(ttft));
  gap_ms_ = percentiles(std::move(gaps));
  total_ms_ = percentiles(std::move(totals));
}

std::string LoadReport::to_text() const {
  char head[400];
  std::snprintf(head, sizeof head,
                "%zu requests answered, %zu failed in %.1f s; of the answered: %.2f requests/s, %.2f good/s, "
                "%.1f output tokens/s, %.1f tokens/s with prompts\n"
                "prompt tokens %lld (%lld cached), output tokens %lld\n%-24s %10s %10s %10s %10s\n",
                answered_, failed_, wall_s_, static_cast<double>(answered_) / wall_s_,
                static_cast<double>(good_) / wall_s_, static_cast<double>(completion_tokens_) / wall_s_,
                static_cast<double>(completion_tokens_ + prompt_tokens_) / wall_s_,
                static_cast<long long>(prompt_tokens_), static_cast<long long>(cached_tokens_),
                static_cast<long long>(completion_tokens_), "milliseconds", "p50", "p90", "p99", "max");
  std::string text = head + line("time to first token", ttft_ms_) + line("between tokens", gap_ms_) +
                     line("whole request", total_ms_);
  for (const auto& [message, count] : errors_)
    text += "error " + std::to_string(count) + "×: " + message + "\n";
  return text;
}

OrderedJson LoadReport::to_json() const {
  OrderedJson errors = OrderedJson::object();
  for (const auto& [message, count] : errors_) errors[message] = count;
  return {{"requests", answered_ + failed_},
          {"failed", failed_},
          {"wall_s", wall_s_},
          {"requests_per_s", static_cast<double>(answered_) / wall_s_},
          {"goodput_per_s", static_cast<double>(good_) / wall_s_},
          {"output_tokens_per_s", static_cast<double>(completion_tokens_) / wall_s_},
          {"prompt_tokens", prompt_tokens_},
          {"cached_tokens", cached_tokens_},
          {"completion_tokens", completion_tokens_},
          {"ttft_ms", as_json(ttft_ms_)},
          {"inter_token_ms", as_json(gap_ms_)},
          {"request_ms", as_json(total_ms_)},
          {"errors", errors}};
}

}  // namespace tessera::app
