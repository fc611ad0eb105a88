#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <thread>

#include "base/files.h"
#include "base/json.h"
#include "obs/health.h"
#include "obs/log.h"
#include "obs/metrics.h"
#include "obs/trace.h"

namespace tessera::obs {
namespace {

class LogTest : public testing::Test {
 protected:
  LogTest()
      : path_(std::filesystem::temp_directory_path() / ("tessera_log_" + std::to_string(getpid()) + ".log")) {
  }
  ~LogTest() override {
    EXPECT_TRUE(configure_logging({}).ok());
    std::filesystem::remove(path_);
  }
  void configure(Level level, LogFormat format) {
    ASSERT_TRUE(configure_logging({level, format, path_.string()}).ok());
  }
  std::vector<std::string> lines() {
    std::ifstream file(path_);
    std::vector<std::string> all;
    for (std::string line; std::getline(file, line);) all.push_back(line);
    return all;
  }
  std::filesystem::path path_;
};

TEST_F(LogTest, JsonLinesCarryFields) {
  configure(Level::kInfo, LogFormat::kJson);
  log_info("gateway", "two\nlines \"quoted\"",
           {{"port", 8080},
            {"ratio", 0.5},
            {"bad", std::numeric_limits<double>::infinity()},
            {"up", true},
            {"who", "a\tb"}});
  log_debug("gateway", "not at this level");
  const auto written = lines();
  ASSERT_EQ(written.size(), 1u);
  const Json line = *parse_json(written[0]);
  EXPECT_EQ(line["level"], "info");
  EXPECT_EQ(line["component"], "gateway");
  EXPECT_EQ(line["message"], "two\nlines \"quoted\"");
  EXPECT_EQ(line["fields"]["port"], 8080);
  EXPECT_EQ(line["fields"]["ratio"], 0.5);
  EXPECT_EQ(line["fields"]["bad"], "inf");
  EXPECT_EQ(line["fields"]["up"], true);
  EXPECT_EQ(line["fields"]["who"], "a\tb");
  EXPECT_EQ(line["ts"].get<std::string>().size(), 24u);
}

TEST_F(LogTest, TextStaysOnOneLine) {
  configure(Level::kWarn, LogFormat::kText);
  TESSERA_LOG(kWarn, "net", "peer {} said {}", 7, "x\nforged");
  TESSERA_LOG(kInfo, "net", "{}", "quiet");
  log_error("net", "lost", {{"reason", "no route"}});
  const auto written = lines();
  ASSERT_EQ(written.size(), 2u);
  EXPECT_NE(written[0].find("warn  net: peer 7 said x\\nforged"), std::string::npos) << written[0];
  EXPECT_NE(written[1].find("error net: lost reason=\"no route\""), std::string::npos) << written[1];
}

TEST_F(LogTest, LinesOfManyThreadsStayWhole) {
  configure(Level::kInfo, LogFormat::kJson);
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([t] {
      for (int i = 0; i < 200; ++i) log_info("t", std::string(100, 'x'), {{"t", t}, {"i", i}});
    });
  for (auto& thread : threads) thread.join();
  const auto written = lines();
  EXPECT_EQ(written.size(), 800u);
  for (const auto& line : written) EXPECT_TRUE(parse_json(line).ok()) << line;
}

TEST_F(LogTest, UnwritableFileKeepsTheOldLog) {
  configure(Level::kInfo, LogFormat::kText);
  const Status status = configure_logging({Level::kInfo, LogFormat::kText, "/proc/no/such/file"});
  EXPECT_EQ(status.code(), Code::kIo);
  log_info("x", "still here");
  EXPECT_EQ(lines().size(), 1u);
}

TEST(LogNames, ParseOrRefuse) {
  EXPECT_EQ(*parse_level("warn"), Level::kWarn);
  EXPECT_EQ(parse_level("loud").status().code(), Code::kInvalidArgument);
  EXPECT_EQ(*parse_log_format("json"), LogFormat::kJson);
  EXPECT_FALSE(parse_log_format("xml").ok());
}

TEST(Metrics, SerializesInPrometheusText) {
  Metrics metrics;
  metrics.counter("tessera_tokens_total", "Tokens", {{"model", "a\"b"}}).inc(3);
  metrics.counter("tessera_tokens_total", "Tokens", {{"model", "a\"b"}}).inc();
  metrics.counter("tessera_tokens_total", "Tokens", {{"model", "c"}}).inc(-1);
  Gauge& gauge = metrics.gauge("tessera_sequences", "Sequences", {{"state", "running"}});
  metrics.on_collect([&] { gauge.set(gauge.value() + 5); });
  Histogram& histogram =
      metrics.histogram("tessera_latency_seconds", "Latency", exponential_buckets(1, 2, 3));
  histogram.observe(1.5);
  histogram.observe(100);
  const std::string text = metrics.serialize();
  EXPECT_NE(text.find("# TYPE tessera_tokens_total counter"), std::string::npos) << text;
  EXPECT_NE(text.find("tessera_tokens_total{model=\"a\\\"b\"} 4\n"), std::string::npos) << text;
  EXPECT_NE(text.find("tessera_tokens_total{model=\"c\"} 0\n"), std::string::npos) << text;
  EXPECT_NE(text.find("tessera_sequences{state=\"running\"} 5\n"), std::string::npos) << text;
  EXPECT_NE(text.find("tessera_latency_seconds_bucket{le=\"2\"} 1\n"), std::string::npos) << text;
  EXPECT_NE(text.find("tessera_latency_seconds_bucket{le=\"+Inf\"} 2\n"), std::string::npos) << text;
}

TEST(Metrics, CountsFromManyThreads) {
  Metrics metrics;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&] {
      for (int i = 0; i < 1000; ++i) metrics.counter("c_total", "c", {{"k", std::to_string(i % 3)}}).inc();
    });
  for (auto& thread : threads) thread.join();
  double sum = 0;
  for (int k = 0; k < 3; ++k) sum += metrics.counter("c_total", "c", {{"k", std::to_string(k)}}).value();
  EXPECT_EQ(sum, 4000);
}

TEST(MetricsDeathTest, OneNameHasOneKind) {
  Metrics metrics;
  metrics.counter("x", "help");
  EXPECT_DEATH(metrics.gauge("x", "help"), "well formed");
}

TEST(Trace, TraceparentRoundTrips) {
  const std::string header = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
  const auto context = parse_traceparent(header);
  ASSERT_TRUE(context);
  EXPECT_EQ(context->trace_id, "0af7651916cd43dd8448eb211c80319c");
  EXPECT_EQ(context->span_id, "b7ad6b7169203331");
  EXPECT_TRUE(context->sampled);
  EXPECT_EQ(format_traceparent(*context), header);
  EXPECT_TRUE(parse_traceparent("01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00-more"));
}

TEST(Trace, BadTraceparentIsRefused) {
  for (const char* bad : {"", "00", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
                          "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
                          "00-00000000000000000000000000000000-b7ad6b7169203331-01",
                          "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
                          "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
                          "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0g",
                          "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
                          "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01more"})
    EXPECT_FALSE(parse_traceparent(bad)) << bad;
}

TEST(Trace, NewContextsAreValidAndDistinct) {
  const TraceContext root = new_trace();
  const TraceContext child = child_of(root);
  EXPECT_TRUE(parse_traceparent(format_traceparent(root)));
  EXPECT_EQ(child.trace_id, root.trace_id);
  EXPECT_NE(child.span_id, root.span_id);
  EXPECT_NE(new_trace().trace_id, root.trace_id);
}

TEST(Trace, MemorySinkKeepsTheNewest) {
  MemorySpanSink sink(2);
  for (const char* name : {"a", "b", "c"}) {
    Span span;
    span.name = name;
    sink.record(span);
  }
  const auto spans = sink.spans();
  ASSERT_EQ(spans.size(), 2u);
  EXPECT_EQ(spans[0].name, "b");
  EXPECT_EQ(spans[1].name, "c");
}

TEST(Health, OptionalPartsOnlyDegrade) {
  Health health;
  health.set_optional("redis", false, "away");
  EXPECT_FALSE(health.ready());  // nothing has started yet
  health.set("model", true);
  EXPECT_TRUE(health.ready());
  ASSERT_EQ(health.degraded().size(), 1u);
  EXPECT_EQ(health.degraded()[0], (std::pair<std::string, std::string>("redis", "away")));
  health.set_optional("redis", true, "away");
  EXPECT_TRUE(health.degraded().empty());
}

TEST(Health, ReadyWhenEveryPartIs) {
  Health health;
  std::string why;
  EXPECT_FALSE(health.ready(&why));
  EXPECT_FALSE(why.empty());
  health.set("model", false, "loading");
  health.set("database", true, "ignored");
  EXPECT_FALSE(health.ready(&why));
  EXPECT_EQ(why, "model: loading");
  health.set("model", true);
  EXPECT_TRUE(health.ready(&why));
  EXPECT_EQ(why, "");
  health.set("database", false);
  EXPECT_FALSE(health.ready());
  health.remove("database");
  EXPECT_TRUE(health.ready());
}

}  // namespace
}  // namespace tessera::obs
