#include <gtest/gtest.h>
#include <atomic>

#include <chrono>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <future>
#include <nlohmann/json.hpp>
#include <thread>

#include "base/bytes.h"
#include "base/config.h"
#include "base/dtype.h"
#include "base/executor.h"
#include "base/files.h"
#include "base/json.h"
#include "base/lru_map.h"
#include "base/queue.h"
#include "base/rng.h"
#include "base/sha256.h"
#include "base/status.h"
#include "base/utf8.h"

namespace tessera {
namespace {

Result<int> half(int value) {
  if (value % 2 != 0) return invalid_argument("odd");
  return value / 2;
}
Result<int> quarter(int value) {
  TESSERA_ASSIGN_OR_RETURN(int h, half(value));
  return half(h);
}

TEST(Status, CarriesCodeAndContext) {
  EXPECT_EQ(*quarter(8), 2);
  EXPECT_EQ(quarter(6).status().code(), Code::kInvalidArgument);
  EXPECT_EQ(quarter(6).status().with_context("quarter").to_string(), "invalid argument: quarter: odd");
}

TEST(DType, HalfRoundTripsEveryValue) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const auto half_bits = static_cast<uint16_t>(bits);
    const float wide = f16_to_f32(half_bits);
    if (std::isnan(wide)) {
      EXPECT_TRUE(std::isnan(f16_to_f32(f32_to_f16(wide))));
    } else {
      EXPECT_EQ(f32_to_f16(wide), half_bits);
    }
  }
}

TEST(DType, HalfMatchesTheCompilersConversion) {
  for (uint32_t i = 0; i < 2000000; ++i) {
    const float value = std::bit_cast<float>(i * 2147u + 12345u);
    if (std::isnan(value)) continue;
    EXPECT_EQ(f32_to_f16(value), std::bit_cast<uint16_t>(static_cast<_Float16>(value))) << value;
  }
}

TEST(DType, BFloatRoundsToNearestEven) {
  EXPECT_EQ(f32_to_bf16(std::bit_cast<float>(0x3f808000u)), 0x3f80);  // tie goes to even
  EXPECT_EQ(f32_to_bf16(std::bit_cast<float>(0x3f818000u)), 0x3f82);
  EXPECT_EQ(f32_to_bf16(std::bit_cast<float>(0x3f808001u)), 0x3f81);
  EXPECT_TRUE(std::isnan(bf16_to_f32(f32_to_bf16(std::nanf("")))));
}

TEST(DType, BytesAreCheckedForWholeBlocksAndOverflow) {
  EXPECT_EQ(*dtype_bytes(DType::kQ4_K, 512), 288u);
  EXPECT_FALSE(dtype_bytes(DType::kQ4_0, 33).ok());
  EXPECT_FALSE(dtype_bytes(DType::kF32, uint64_t{1} << 62).ok());
}

TEST(ByteReader, EndsAtTheEnd) {
  const uint8_t bytes[] = {1, 0, 0, 0, 'h', 'i'};
  ByteReader reader(bytes);
  EXPECT_EQ(*reader.read<uint32_t>(), 1u);
  EXPECT_EQ(*reader.take_string(2), "hi");
  EXPECT_EQ(reader.read<uint8_t>().status().code(), Code::kCorrupt);
}

TEST(Files, AtomicWriteMapAndRead) {
  const auto path =
      std::filesystem::temp_directory_path() / ("tessera_base_test_" + std::to_string(getpid()));
  ASSERT_TRUE(write_file_atomic(path, "hello").ok());
  EXPECT_EQ(*read_file(path), "hello");
  EXPECT_FALSE(read_file(path, 3).ok());
  auto map = MappedFile::open(path);
  ASSERT_TRUE(map.ok());
  EXPECT_EQ((*map)->bytes().size(), 5u);
  (*map)->will_need(0, 5);
  std::filesystem::remove(path);
  EXPECT_EQ(MappedFile::open(path).status().code(), Code::kNotFound);
}

TEST(Sha256, KnownVectors) {
  EXPECT_EQ(to_hex(sha256(as_bytes("abc"))),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(to_hex(hmac_sha256(as_bytes("key"), as_bytes("The quick brown fox jumps over the lazy dog"))),
            "f7bc83f430538424b13298e6aa6fb143ef4d59a14946175997479dbc2d1a3cd8");
  EXPECT_EQ(git_blob_id(as_bytes("hello\n")), "ce013625030ba8dba906f756967f9e9ca394464a");
}

TEST(Json, RefusesDeepNestingAndBadUtf8) {
  EXPECT_TRUE(parse_json("{\"a\":[1,2]}").ok());
  EXPECT_FALSE(parse_json(std::string(100000, '[')).ok());
  EXPECT_FALSE(parse_json("\"\xff\"").ok());
  EXPECT_EQ(parse_json("{").status().code(), Code::kInvalidArgument);
}

TEST(Json, BoundsValuesAndKeys) {
  const JsonLimits limits{.max_values = 4, .max_keys = 2};
  EXPECT_TRUE(parse_json("[1,2,3]", limits).ok());
  EXPECT_FALSE(parse_json("[1,2,3,4]", limits).ok());
  EXPECT_TRUE(parse_json(R"({"a,:":1,"b":2})", limits).ok());
  EXPECT_FALSE(parse_ordered_json(R"({"a":1,"b":{"c":2}})", limits).ok());
}

TEST(Json, OrderedKeepsOrderAndTheLastOfEqualKeys) {
  const char* text = R"({"b":1,"a":[{"z":null,"y":true},-2,3.5,"\u00e9"],"b":{"c":[]}})";
  auto json = parse_ordered_json(text);
  ASSERT_TRUE(json.ok()) << json.status().to_string();
  EXPECT_EQ(*json, OrderedJson::parse(text));
  EXPECT_EQ(dump_json(*json), R"({"b":{"c":[]},"a":[{"z":null,"y":true},-2,3.5,"é"]})");
  for (const char* bad : {"", "{", "[1,]", "{\"a\"}", "1 2", "\"\xff\"", "1e400"})
    EXPECT_EQ(parse_ordered_json(bad).status().code(), Code::kInvalidArgument) << bad;
}

// 16 MiB of {"a1":0,"a2":0,…}: what a request's body may hold.
TEST(Json, ManyKeysTakeNoTime) {
  std::string many = "{\"a\":0", fitting;
  for (int i = 0; many.size() < (size_t{16} << 20); ++i) {
    many += ",\"a" + std::to_string(i) + "\":0";
    if (i == 500'000) fitting = many + "}";
  }
  many += "}";
  const auto start = std::chrono::steady_clock::now();
  EXPECT_FALSE(parse_json(many).ok());
  EXPECT_FALSE(parse_ordered_json(many).ok());
  EXPECT_EQ(parse_json(fitting)->size(), 500'002u);
  EXPECT_EQ(parse_ordered_json(fitting)->size(), 500'002u);
  // Quadratic work would take minutes; the bound leaves room for sanitizers.
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(20));
}

TEST(Rng, PhiloxKnownAnswer) {
  // Known-answer test of the Random123 distribution: philox4x32-10, all ones.
  const Philox r = philox(~uint64_t{0}, ~uint64_t{0}, ~uint64_t{0});
  EXPECT_EQ(r.out[0], 0x408f276du);
  EXPECT_EQ(r.out[1], 0x41c83b0eu);
  EXPECT_EQ(r.out[2], 0xa20bc7c6u);
  EXPECT_EQ(r.out[3], 0x6d5451fdu);
  EXPECT_EQ(uniform_at(7, 0, 3), uniform_at(7, 0, 3));
  EXPECT_NE(uniform_at(7, 0, 3), uniform_at(7, 1, 3));
}

TEST(BoundedQueue, RefusesWhenFullAndWakesOnClose) {
  BoundedQueue<int> queue(2);
  EXPECT_TRUE(queue.try_push(1));
  EXPECT_TRUE(queue.try_push(2));
  EXPECT_FALSE(queue.try_push(3));
  EXPECT_EQ(queue.pop(std::chrono::seconds(1)), 1);
  std::thread closer([&] { queue.close(); });
  EXPECT_EQ(queue.pop(std::chrono::seconds(1)), 2);
  EXPECT_EQ(queue.pop(std::chrono::seconds(10)), std::nullopt);
  closer.join();
  EXPECT_FALSE(queue.try_push(4));
}

TEST(ThreadExecutor, RunsNothingAfterItWasStopped) {
  auto executor = make_thread_executor("test");
  std::atomic<int> runs{0};
  auto held = std::make_shared<int>(1);
  executor->post([&] {
    executor->post_after(std::chrono::milliseconds(1),
                         [&runs, held] { ++runs; });  // while it is being stopped
    ++runs;
  });
  drain(*executor);
  executor->stop();
  const int before = runs;
  executor->post([&runs, held] { ++runs; });
  EXPECT_EQ(executor->post_after(std::chrono::milliseconds(0), [&runs, held] { ++runs; }), 0u);
  executor->stop();
  EXPECT_EQ(runs, before);
  EXPECT_EQ(held.use_count(), 1) << "what was waiting is dropped";
}

TEST(ThreadExecutor, KeepsOrderFiresTimersAndCancels) {
  std::vector<int> order;
  std::promise<void> done;
  {
    auto executor = make_thread_executor("test");
    executor->post_after(std::chrono::milliseconds(30), [&] {
      order.push_back(3);
      done.set_value();
    });
    const TimerId cancelled =
        executor->post_after(std::chrono::milliseconds(5), [&] { order.push_back(99); });
    executor->cancel(cancelled);
    executor->post([&] { order.push_back(1); });
    executor->post([&] { order.push_back(2); });
    done.get_future().wait();
  }
  EXPECT_EQ(order, (std::vector<int>{1, 2, 3}));
}

TEST(Utf8, ReplacesMaximalInvalidParts) {
  EXPECT_EQ(replace_invalid_utf8("a\xF0\x9F\x8C\x9E"), "a\xF0\x9F\x8C\x9E");
  EXPECT_EQ(replace_invalid_utf8("\xF0\x9F\x8C"), "\xEF\xBF\xBD");          // truncated: one
  EXPECT_EQ(replace_invalid_utf8("\xC0\xAF"), "\xEF\xBF\xBD\xEF\xBF\xBD");  // overlong: one a byte
  EXPECT_EQ(replace_invalid_utf8("\xED\xA0\x80").size(), 9u);               // surrogate
  EXPECT_FALSE(is_valid_utf8("\xF4\x90\x80\x80"));
  EXPECT_TRUE(is_valid_utf8("\xE2\x80\x94"));
}

TEST(Config, FieldsParseFromText) {
  std::optional<double> rate;
  std::vector<std::string> keys;
  bool quiet = false;
  int threads = 0;
  EXPECT_TRUE(parse_field("2.5", rate).ok());
  EXPECT_EQ(rate, 2.5);
  EXPECT_TRUE(parse_field("a,b", keys).ok());
  EXPECT_EQ(keys, (std::vector<std::string>{"a", "b"}));
  EXPECT_TRUE(parse_field("yes", quiet).ok());
  EXPECT_TRUE(quiet);
  EXPECT_EQ(parse_field("4x", threads).message(), "'4x' is no number");
  EXPECT_EQ(environment_name("kv-memory"), "TESSERA_KV_MEMORY");
}

TEST(Config, ByteSizes) {
  EXPECT_EQ(parse_byte_size("8GB")->bytes, 8000000000u);
  EXPECT_EQ(parse_byte_size("512 mib")->bytes, uint64_t{512} << 20);
  EXPECT_EQ(parse_byte_size("123")->bytes, 123u);
  for (const char* bad : {"", "GiB", "-1GiB", "1e400", "3 apples"})
    EXPECT_FALSE(parse_byte_size(bad).ok()) << bad;
  EXPECT_EQ(format_bytes(98362432), "93.8 MiB");
}

TEST(LruMap, ForgetsWhatWasNotTouchedForLongest) {
  LruMap<int, std::string> map(2);
  map.touch(1) = "one";
  map.touch(2) = "two";
  ASSERT_NE(map.find(1), nullptr);
  EXPECT_EQ(*map.find(1), "one");
  map.touch(1);  // looking alone did not count
  map.touch(3) = "three";
  EXPECT_EQ(map.find(2), nullptr);
  EXPECT_EQ(*map.find(1), "one");
  EXPECT_EQ(map.size(), 2u);
}

}  // namespace
}  // namespace tessera
