// What a load run measured: percentiles, goodput, errors.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "app/load_client.h"
#include "base/json.h"

namespace tessera::app {

struct LoadLimits {    // a request is good when it holds all that are set
  double ttft_ms = 0;  // 0: none
  double gap_ms = 0;   // mean gap between tokens
};

struct Percentiles {
  double p50 = 0, p90 = 0, p99 = 0, max = 0, mean = 0;
};
// Nearest rank; zeros for no values.
Percentiles percentiles(std::vector<double> values);

class LoadReport {
 public:
  LoadReport(std::vector<LoadResult> results, double wall_s, LoadLimits limits);
  bool any_failed() const { return failed_ > 0; }
  std::string to_text() const;
  OrderedJson to_json() const;

 private:
  size_t answered_ = 0, failed_ = 0, good_ = 0;  // rates and tokens are of the answered alone
  int64_t prompt_tokens_ = 0, cached_tokens_ = 0, completion_tokens_ = 0;
  double wall_s_ = 0;
  Percentiles ttft_ms_, gap_ms_, total_ms_;
  std::map<std::string, int> errors_;
};

}  // namespace tessera::app
