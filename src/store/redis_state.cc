#include "store/redis_state.h"

#include <hiredis.h>
#include <poll.h>
#include <sys/time.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <vector>

#include "base/mutex.h"

namespace tessera::store {
namespace {

using SteadyTime = std::chrono::steady_clock::time_point;

// Each is one call of the server's, so nobody comes between. A time to live travels as milliseconds; -1: for
// ever, 0: gone at once.
constexpr std::string_view kPut = R"lua(
local function put(key, value, ttl)
  if ttl == '-1' then redis.call('SET', key, value)
  elseif ttl == '0' then redis.call('DEL', key)
  else redis.call('SET', key, value, 'PX', ttl) end
end
)lua";
constexpr std::string_view kSet = "put(KEYS[1], ARGV[1], ARGV[2]) return 1";
constexpr std::string_view kCompareAndSet = R"lua(
local present = redis.call('GET', KEYS[1])
if ARGV[1] == 'none' then
  if present then return 0 end
elseif present ~= ARGV[2] then return 0 end
put(KEYS[1], ARGV[3], ARGV[4])
return 1
)lua";
constexpr std::string_view kCompareAndErase = R"lua(
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[1])
return 1
)lua";
// The sum is read back as text: a number of the script language holds only 53 bits.
constexpr std::string_view kIncrement = R"lua(
local known = redis.call('EXISTS', KEYS[1])
redis.call('INCRBY', KEYS[1], ARGV[1])
local sum = redis.call('GET', KEYS[1])
if known == 0 then put(KEYS[1], sum, ARGV[2]) end
return sum
)lua";
constexpr std::string_view kExpire = R"lua(
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
if ARGV[1] == '-1' then redis.call('PERSIST', KEYS[1])
elseif ARGV[1] == '0' then redis.call('DEL', KEYS[1])
else redis.call('PEXPIRE', KEYS[1], ARGV[1]) end
return 1
)lua";

struct FreeContext {
  void operator()(redisContext* context) const { redisFree(context); }
};
struct FreeReply {
  void operator()(redisReply* reply) const { freeReplyObject(reply); }
};
using Connection = std::unique_ptr<redisContext, FreeContext>;
using Reply = std::unique_ptr<redisReply, FreeReply>;

struct RedisUrl {
  std::string host = "localhost";
  int port = 6379;
  std::string path;  // of a socket; then no host
  std::string user, password;
  std::string number = "0";
  std::string description;  // without password
};

std::string percent_decoded(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    unsigned char byte = 0;
    if (text[i] == '%' && i + 2 < text.size() &&
        std::from_chars(text.data() + i + 1, text.data() + i + 3, byte, 16).ptr == text.data() + i + 3) {
      out += static_cast<char>(byte);
      i += 2;
    } else {
      out += text[i];
    }
  }
  return out;
}

bool is_number(std::string_view text) {
  return !text.empty() && text.find_first_not_of("0123456789") == std::string_view::npos;
}

Result<RedisUrl> parse_url(std::string_view url) {
  const Status wrong = invalid_argument(
      "this is no Redis url: write redis://USER:PASSWORD@HOST:PORT/NUMBER or unix:///PATH?db=NUMBER");
  RedisUrl parts;
  if (url.starts_with("rediss://"))
    return unsupported("Redis over TLS (rediss://) is not built in: use redis:// through a tunnel");
  if (url.starts_with("unix://")) {
    url.remove_prefix(7);
    if (const size_t query = url.find("?db="); query != std::string_view::npos) {
      parts.number = url.substr(query + 4);
      url = url.substr(0, query);
    }
    parts.path = percent_decoded(url);
    if (!parts.path.starts_with('/') || !is_number(parts.number)) return wrong;
    parts.description = "unix://" + parts.path;
    return parts;
  }
  if (!url.starts_with("redis://")) return wrong;
  url.remove_prefix(8);
  if (const size_t slash = url.find('/'); slash != std::string_view::npos) {
    if (slash + 1 < url.size()) parts.number = url.substr(slash + 1);
    url = url.substr(0, slash);
  }
  if (const size_t at = url.rfind('@'); at != std::string_view::npos) {
    const std::string_view who = url.substr(0, at);
    const size_t colon = who.find(':');
    parts.user = percent_decoded(who.substr(0, colon));
    if (colon != std::string_view::npos) parts.password = percent_decoded(who.substr(colon + 1));
    url.remove_prefix(at + 1);
  }
  const size_t bracket = url.rfind(']');
  const size_t colon = url.rfind(':');
  if (colon != std::string_view::npos && (bracket == std::string_view::npos || colon > bracket)) {
    const std::string_view port = url.substr(colon + 1);
    const auto [end, problem] = std::from_chars(port.data(), port.data() + port.size(), parts.port);
    if (problem != std::errc() || end != port.data() + port.size() || parts.port < 1 || parts.port > 65535)
      return wrong;
    url = url.substr(0, colon);
  }
  if (bracket != std::string_view::npos && url.starts_with('[')) url = url.substr(1, bracket - 1);
  if (!url.empty()) parts.host = url;
  if (!is_number(parts.number)) return wrong;
  parts.description = "redis://" + parts.host + ":" + std::to_string(parts.port);
  return parts;
}

timeval to_timeval(std::chrono::milliseconds time) {
  return {static_cast<time_t>(time.count() / 1000), static_cast<suseconds_t>(time.count() % 1000 * 1000)};
}

std::string ttl_text(Ttl ttl) {
  // What would expire after more than a century never does, as in memory.
  if (!ttl || *ttl >= std::chrono::hours(24 * 365 * 100)) return "-1";
  return std::to_string(std::max<int64_t>(0, ttl->count()));
}

class RedisState final : public State {
 public:
  RedisState(RedisUrl url, RedisOptions options) : url_(std::move(url)), options_(options) {}

  Result<std::optional<std::string>> get(std::string_view key) override {
    TESSERA_ASSIGN_OR_RETURN(const Reply reply, call({"GET", key}));
    if (reply->type == REDIS_REPLY_NIL) return std::optional<std::string>();
    return std::optional<std::string>(std::in_place, reply->str, reply->len);
  }
  Status set(std::string_view key, std::string_view value, Ttl ttl) override {
    return run(kSet, key, {std::string(value), ttl_text(ttl)}).status();
  }
  Result<bool> compare_and_set(std::string_view key, std::optional<std::string_view> expected,
                               std::string_view value, Ttl ttl) override {
    return did(run(
        kCompareAndSet, key,
        {expected ? "some" : "none", std::string(expected.value_or("")), std::string(value), ttl_text(ttl)}));
  }
  Result<bool> compare_and_erase(std::string_view key, std::string_view expected) override {
    return did(run(kCompareAndErase, key, {std::string(expected)}));
  }
  Result<int64_t> increment(std::string_view key, int64_t by, Ttl ttl_if_new) override {
    TESSERA_ASSIGN_OR_RETURN(const Reply reply,
                             run(kIncrement, key, {std::to_string(by), ttl_text(ttl_if_new)}));
    int64_t sum = 0;
    if (reply->type == REDIS_REPLY_STRING) std::from_chars(reply->str, reply->str + reply->len, sum);
    return sum;
  }
  Result<bool> expire(std::string_view key, Ttl ttl) override {
    return did(run(kExpire, key, {ttl_text(ttl)}));
  }
  Status erase(std::string_view key) override { return call({"DEL", key}).status(); }

 private:
  Result<Reply> run(std::string_view script, std::string_view key,
                    const std::vector<std::string>& arguments) {
    const std::string text = std::string(kPut) + std::string(script);
    std::vector<std::string_view> words = {"EVAL", text, "1", key};
    words.insert(words.end(), arguments.begin(), arguments.end());
    return call(words);
  }
  static Result<bool> did(const Result<Reply>& reply) {
    if (!reply.ok()) return reply.status();
    return (*reply)->type == REDIS_REPLY_INTEGER && (*reply)->integer == 1;
  }

  Result<Reply> call(const std::vector<std::string_view>& words) {
    TESSERA_ASSIGN_OR_RETURN(Connection connection, take());
    Result<Reply> reply = send(*connection, words);
    const bool usable = connection->err == 0;
    give_back(usable ? std::move(connection) : nullptr);
    return reply;
  }

  Result<Reply> send(redisContext& connection, const std::vector<std::string_view>& words) const {
    std::vector<const char*> texts;
    std::vector<size_t> lengths;
    for (const std::string_view word : words) {
      texts.push_back(word.data());
      lengths.push_back(word.size());
    }
    Reply reply(static_cast<redisReply*>(
        redisCommandArgv(&connection, static_cast<int>(words.size()), texts.data(), lengths.data())));
    if (!reply)
      return unavailable("the connection to " + url_.description + " ended: " + problem(connection));
    if (reply->type == REDIS_REPLY_ERROR) return error_of({reply->str, reply->len});
    return reply;
  }

  Status error_of(std::string_view text) const {
    const std::string message = url_.description + ": " + std::string(text);
    const auto has = [&](std::string_view part) { return text.find(part) != std::string_view::npos; };
    if (has("not an integer") || has("overflow")) return invalid_argument(message);
    if (text.starts_with("OOM") || has("OOM command not allowed")) return resource_exhausted(message);
    if (text.starts_with("NOAUTH") || text.starts_with("WRONGPASS") || text.starts_with("NOPERM"))
      return {Code::kPermissionDenied, message};
    for (const std::string_view away :
         {"LOADING", "MASTERDOWN", "READONLY", "CLUSTERDOWN", "BUSY", "MISCONF"})
      if (text.starts_with(away)) return unavailable(message);
    return internal_error(message);
  }

  static std::string problem(const redisContext& connection) {
    // A receive timeout of the socket reads as "try again".
    if (connection.err == REDIS_ERR_IO && (errno == EAGAIN || errno == EWOULDBLOCK)) return "no answer";
    return connection.errstr;
  }

  // A connection for one call: an idle one, a new one, or the next that is given back.
  Result<Connection> take() {
    MutexLock lock(mutex_);
    while (idle_.empty() && open_ >= options_.connections) freed_.wait(mutex_);
    while (!idle_.empty()) {
      Connection connection = std::move(idle_.back());
      idle_.pop_back();
      if (is_alive(*connection)) return connection;
      --open_;
    }
    const SteadyTime now = std::chrono::steady_clock::now();
    if (!failure_.ok() && now < try_again_) return failure_;
    // Made while others wait: where the server is gone, they need not find it out one by one.
    Result<Connection> made = connect();
    failure_ = made.status();
    if (made.ok())
      ++open_;
    else
      try_again_ = std::chrono::steady_clock::now() + options_.retry_after;
    return made;
  }
  void give_back(Connection connection) {
    MutexLock lock(mutex_);
    if (connection)
      idle_.push_back(std::move(connection));
    else
      --open_;
    freed_.notify_one();
  }

  // An idle connection has nothing to say: what can be read is its end.
  static bool is_alive(const redisContext& connection) {
    pollfd waiting{connection.fd, POLLIN, 0};
    return ::poll(&waiting, 1, 0) == 0;
  }

  Result<Connection> connect() const {
    const timeval limit = to_timeval(options_.connect_timeout);
    Connection connection(url_.path.empty() ? redisConnectWithTimeout(url_.host.c_str(), url_.port, limit)
                                            : redisConnectUnixWithTimeout(url_.path.c_str(), limit));
    if (!connection || connection->err != 0)
      return unavailable("no connection to " + url_.description + ": " +
                         (connection ? connection->errstr : "out of memory"));
    redisSetTimeout(connection.get(), to_timeval(options_.command_timeout));
    if (!url_.password.empty()) {
      std::vector<std::string_view> words = {"AUTH"};
      if (!url_.user.empty()) words.push_back(url_.user);
      words.push_back(url_.password);
      TESSERA_RETURN_IF_ERROR(send(*connection, words).status());
    }
    TESSERA_RETURN_IF_ERROR(send(*connection, {"SELECT", url_.number}).status());
    return connection;
  }

  const RedisUrl url_;
  const RedisOptions options_;
  Mutex mutex_;
  CondVar freed_;
  std::vector<Connection> idle_ TESSERA_GUARDED_BY(mutex_);
  int open_ TESSERA_GUARDED_BY(mutex_) = 0;
  Status failure_ TESSERA_GUARDED_BY(mutex_);  // why the last connection could not be made
  SteadyTime try_again_ TESSERA_GUARDED_BY(mutex_);
};

}  // namespace

Result<std::unique_ptr<State>> open_redis(const std::string& url, RedisOptions options) {
  TESSERA_ASSIGN_OR_RETURN(RedisUrl parts, parse_url(url));
  return std::unique_ptr<State>(std::make_unique<RedisState>(std::move(parts), options));
}

}  // namespace tessera::store
