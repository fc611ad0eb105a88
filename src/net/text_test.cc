#include <gtest/gtest.h>

#include "net/request_parser.h"
#include "net/response_parser.h"
#include "net/sse.h"
#include "net/url.h"

namespace tessera::net {
namespace {

TEST(Url, Parses) {
  const Url url = *parse_url("HTTPS://Example.COM:8443/a/b?x=1#frag");
  EXPECT_EQ(url.scheme, "https");
  EXPECT_EQ(url.host, "example.com");
  EXPECT_EQ(url.port, 8443);
  EXPECT_EQ(url.target, "/a/b?x=1");
  EXPECT_EQ(url.to_string(), "https://example.com:8443/a/b?x=1");
  EXPECT_EQ(parse_url("http://h")->port, 80);
  EXPECT_EQ(parse_url("http://h?q")->target, "/?q");
  EXPECT_EQ(parse_url("https://h:443/")->authority(), "h");
  const Url six = *parse_url("http://[::1]:81/x");
  EXPECT_EQ(six.host, "::1");
  EXPECT_EQ(six.authority(), "[::1]:81");
}

TEST(Url, RefusesWhatItCannotMean) {
  for (const char* bad : {"", "h", "/path", "ftp://h/", "http://", "http://:80/", "http://u:p@h/",
                          "http://h:0/", "http://h:99999/", "http://h:8x/", "http://[::1", "http://[zz]/",
                          "http://[::1]x/", "http://a b/", "http://h/\r\nX: y", "http://ä/"})
    EXPECT_EQ(parse_url(bad).status().code(), Code::kInvalidArgument) << bad;
}

TEST(Url, ResolvesReferences) {
  const Url base = *parse_url("https://h/a/b?x=1");
  EXPECT_EQ(resolve_url(base, "http://o/z")->to_string(), "http://o/z");
  EXPECT_EQ(resolve_url(base, "//o/z")->to_string(), "https://o/z");
  EXPECT_EQ(resolve_url(base, "/z?u=http://x/")->to_string(), "https://h/z?u=http://x/");
  EXPECT_EQ(resolve_url(base, "c")->to_string(), "https://h/a/c");
  EXPECT_EQ(resolve_url(base, "?y")->to_string(), "https://h/a/b?y");
  EXPECT_EQ(resolve_url(base, "")->to_string(), "https://h/a/b?x=1");
  EXPECT_FALSE(resolve_url(base, "javascript://x").ok());
}

TEST(Url, EncodesAndDecodes) {
  std::string all;
  for (int i = 0; i < 256; ++i) all += static_cast<char>(i);
  EXPECT_EQ(percent_decode(percent_encode(all)), all);
  EXPECT_EQ(percent_encode("a/b c", true), "a/b%20c");
  EXPECT_EQ(percent_encode("a/b"), "a%2Fb");
  for (const char* bad : {"%", "%1", "%zz", "ab%4"}) EXPECT_FALSE(percent_decode(bad)) << bad;
}

TEST(Url, SplitsQueries) {
  using Parts = std::vector<std::pair<std::string, std::string>>;
  EXPECT_EQ(parse_query("a=1&b=x%20y+z&flag&&c=%zz&d=1=2"),
            (Parts{{"a", "1"}, {"b", "x y z"}, {"flag", ""}, {"c", "%zz"}, {"d", "1=2"}}));
  EXPECT_EQ(query_value("a=1&a=2", "a"), "1");
  EXPECT_FALSE(query_value("a=1", "b"));
}

std::vector<std::string> events_of(const std::string& text, size_t piece) {
  SseParser parser;
  std::vector<std::string> events;
  for (size_t at = 0; at < text.size(); at += piece)
    EXPECT_TRUE(parser
                    .feed(std::string_view(text).substr(at, piece),
                          [&](const SseEvent& e) { events.push_back(e.event + "|" + e.data + "|" + e.id); })
                    .ok());
  return events;
}

TEST(Sse, ParsesHoweverItIsCut) {
  const std::string text =
      "\xEF\xBB\xBF: comment\n\ndata: one\n\nevent: e\r\ndata:two\r\ndata\r\nid: 7\r\nretry: "
      "5\r\n\r\n\rdata: three\r\rdata: unfinished";
  const std::vector<std::string> expected = {"message|one|", "e|two\n|7", "message|three|7"};
  for (const size_t piece : {size_t{1}, size_t{2}, size_t{3}, size_t{7}, text.size()})
    EXPECT_EQ(events_of(text, piece), expected) << piece;
}

TEST(Sse, EventsRoundTrip) {
  EXPECT_EQ(sse_event("[DONE]"), "data: [DONE]\n\n");
  EXPECT_EQ(sse_event("a\nb\r\nc"), "data: a\ndata: b\ndata: c\n\n");
  EXPECT_EQ(events_of(sse_event("a\n\nb ") + sse_event(""), 3),
            (std::vector<std::string>{"message|a\n\nb |", "message||"}));
}

TEST(Sse, BoundsOneEvent) {
  SseParser parser(100);
  int events = 0;
  const auto count = [&](const SseEvent&) { ++events; };
  for (int i = 0; i < 50; ++i) EXPECT_TRUE(parser.feed("data: 0123456789\n\n", count).ok());
  EXPECT_EQ(events, 50);
  Status status;
  for (int i = 0; i < 50 && status.ok(); ++i) status = parser.feed("data: 0123456789\n", count);
  EXPECT_EQ(status.code(), Code::kCorrupt);
  EXPECT_EQ(parser.feed("\n\n", count).code(), Code::kCorrupt);
  EXPECT_EQ(events, 50);
}

TEST(RequestParser, ReadsAbsoluteTargets) {
  RequestParser parser({});
  const std::string bytes = "GET http://h:80/p%2Fq?z HTTP/1.1\r\nHost: h\r\nX-A:  b \r\n\r\nnext";
  EXPECT_EQ(parser.put(bytes), bytes.size() - 4);
  ASSERT_TRUE(parser.done());
  const HttpRequest request = parser.take_request();
  EXPECT_EQ(request.path, "/p/q");
  EXPECT_EQ(request.query, "z");
  EXPECT_EQ(*request.header("x-a"), "b");
  EXPECT_EQ(request.header("x-b"), nullptr);
}

// Feeds one byte more each time, as a slow connection would.
template <typename Put>
void feed_bytewise(std::string_view text, Put put) {
  std::string input;
  for (const char c : text) {
    input += c;
    input.erase(0, put(input));
  }
  EXPECT_EQ(input, "");
}

TEST(RequestParser, TakesChunkedBodiesOneByteAtATime) {
  for (const std::string body : {"0\r\n\r\n", "0;x=y\r\nA: b\r\n\r\n", "1\r\na\r\n2\r\nbc\r\n0\r\n\r\n"}) {
    RequestParser parser({});
    feed_bytewise("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n" + body,
                  [&](std::string_view input) { return parser.put(input); });
    ASSERT_TRUE(parser.done()) << body << parser.refusal().message;
    EXPECT_EQ(parser.take_request().body, body[0] == '0' ? "" : "abc");
  }
}

TEST(ResponseParser, TakesChunkedBodiesOneByteAtATime) {
  for (const std::string body : {"0\r\n\r\n", "0;x=y\r\nA: b\r\n\r\n", "1\r\na\r\n2\r\nbc\r\n0\r\n\r\n"}) {
    ResponseParser parser(false);
    std::string got;
    const auto take = [&](std::string_view bytes) {
      got += bytes;
      return true;
    };
    feed_bytewise("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + body,
                  [&](std::string_view input) { return *parser.put(input, take); });
    EXPECT_TRUE(parser.done()) << body;
    EXPECT_EQ(got, body[0] == '0' ? "" : "abc");
  }
}

TEST(RequestId, OnlySaneOnesAreKept) {
  const std::string sane = "Abc-1.2_3:4";
  EXPECT_EQ(request_id(&sane), sane);
  for (const std::string& bad : {std::string(), std::string("a b"), std::string("\n"), std::string(129, 'x')})
    EXPECT_TRUE(request_id(&bad).starts_with("req_")) << bad;
  EXPECT_NE(request_id(nullptr), request_id(nullptr));
}

}  // namespace
}  // namespace tessera::net
