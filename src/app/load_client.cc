#include "app/load_client.h"

#include <nlohmann/json.hpp>

#include "base/json.h"
#include "net/sse.h"

namespace tessera::app {
namespace {

using Clock = std::chrono::steady_clock;
double seconds(Clock::duration d) {
  return std::chrono::duration<double>(d).count();
}

std::string body_of(const LoadCall& call) {
  OrderedJson body = {{"max_tokens", call.max_tokens},
                      {"temperature", 0},
                      {"stream", true},
                      {"stream_options", {{"include_usage", true}}},
                      {"ignore_eos", true},
                      {"return_token_ids", true}};
  if (!call.model.empty()) body["model"] = call.model;
  if (call.ids.empty()) {
    body["prompt"] = call.text;
  } else {
    body["prompt"] = call.ids;
  }
  return dump_json(body);
}

int int_at(const Json& object, const char* key) {
  auto found = object.find(key);
  return found != object.end() && found->is_number_integer() ? found->get<int>() : 0;
}

// Reads the events of one stream and notes their times.
class StreamTimer {
 public:
  explicit StreamTimer(LoadResult& result) : result_(result), start_(Clock::now()), last_(start_) {}

  void event(const std::string& data) {
    if (data == "[DONE]") {
      done_ = true;
      return;
    }
    auto json = parse_json(data);
    if (!json.ok() || !json->is_object()) {
      result_.error = "an event that is no JSON object";
      return;
    }
    if (auto error = json->find("error"); error != json->end() && !error->is_null()) {
      result_.error = error->is_object() ? error->value("message", "error without message") : "error";
      return;
    }
    if (carries_token(*json)) tick();
    if (auto usage = json->find("usage"); usage != json->end() && usage->is_object()) {
      result_.prompt_tokens = int_at(*usage, "prompt_tokens");
      result_.completion_tokens = int_at(*usage, "completion_tokens");
      if (auto details = usage->find("prompt_tokens_details");
          details != usage->end() && details->is_object())
        result_.cached_tokens = int_at(*details, "cached_tokens");
    }
  }

  void finish() {
    result_.total_s = seconds(Clock::now() - start_);
    if (result_.error.empty() && !done_) result_.error = "the stream ended without [DONE]";
    if (result_.error.empty() && ticks_ == 0) result_.error = "the stream carried no token";
  }

 private:
  bool carries_token(const Json& json) {
    auto choices = json.find("choices");
    if (choices == json.end() || !choices->is_array() || choices->empty() || !choices->front().is_object())
      return false;
    const Json& choice = choices->front();
    bool carries = false;
    if (auto ids = choice.find("token_ids"); ids != choice.end() && ids->is_array()) {
      for (const Json& id : *ids)
        if (id.is_number_integer()) result_.ids.push_back(id.get<TokenId>());
      carries = !ids->empty();
    }
    if (auto text = choice.find("text"); text != choice.end() && text->is_string())
      carries = carries || !text->get_ref<const std::string&>().empty();
    return carries;
  }

  void tick() {
    const auto now = Clock::now();
    if (++ticks_ == 1) {
      result_.ttft_s = seconds(now - start_);
    } else {
      result_.gaps_s.push_back(seconds(now - last_));
    }
    last_ = now;
  }

  LoadResult& result_;
  const Clock::time_point start_;
  Clock::time_point last_;
  int64_t ticks_ = 0;
  bool done_ = false;
};

}  // namespace

Result<std::unique_ptr<LoadClient>> LoadClient::open(const std::string& base, const std::string& api_key) {
  TESSERA_ASSIGN_OR_RETURN(auto connection, net::HttpClientConnection::open(base));
  return std::unique_ptr<LoadClient>(new LoadClient(base, api_key, std::move(connection)));
}

LoadResult LoadClient::complete(const LoadCall& call) {
  net::HttpClientRequest request;
  request.method = "POST";
  request.url = url_ + "/v1/completions";
  request.headers = {{"Content-Type", "application/json"}};
  if (!api_key_.empty()) request.headers.push_back({"Authorization", "Bearer " + api_key_});
  request.body = body_of(call);
  request.idle_timeout = std::chrono::minutes(10);
  request.repeatable = true;  // a server that closes an idle connection fails nobody
  LoadResult result;
  StreamTimer timer(result);
  net::SseParser parser;
  request.on_body = [&](std::string_view chunk) {
    return parser.feed(chunk, [&](const net::SseEvent& event) { timer.event(event.data); }).ok();
  };
  Result<net::HttpReply> reply = connection_->send(request);
  timer.finish();
  if (!reply.ok()) {
    result.error = reply.status().message();
  } else if (reply->status != 200) {
    result.error = "HTTP " + std::to_string(reply->status) + " " + reply->body.substr(0, 200);
  }
  return result;
}

}  // namespace tessera::app
