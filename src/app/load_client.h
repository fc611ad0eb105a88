// One request of the load tool against an OpenAI-compatible server, timed token by token.
#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "core/types.h"
#include "net/http_client.h"

namespace tessera::app {

struct LoadCall {
  std::string model;         // empty: the server's only one
  std::string text;          // the prompt as text …
  std::vector<TokenId> ids;  // … or, where not empty, as token ids
  int max_tokens = 128;
};

struct LoadResult {
  std::string error;  // empty: the stream ended as it must
  double ttft_s = 0;  // submit to first chunk that carries text or a token
  double total_s = 0;
  std::vector<double> gaps_s;                                       // between chunks that carry something
  int prompt_tokens = 0, cached_tokens = 0, completion_tokens = 0;  // the server's own numbers
  std::vector<TokenId> ids;                                         // generated ids, where the server tells
};

// A connection that is kept for one request after another. One thread.
class LoadClient {
 public:
  // `base`: of net::api_base().
  static Result<std::unique_ptr<LoadClient>> open(const std::string& base, const std::string& api_key);
  LoadResult complete(const LoadCall& call);

 private:
  LoadClient(std::string url, std::string api_key, std::unique_ptr<net::HttpClientConnection> connection)
      : url_(std::move(url)), api_key_(std::move(api_key)), connection_(std::move(connection)) {}
  std::string url_, api_key_;
  std::unique_ptr<net::HttpClientConnection> connection_;
};

}  // namespace tessera::app
