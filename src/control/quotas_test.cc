#include "control/quotas.h"

#include <gtest/gtest.h>

#include "store/test_util.h"

namespace tessera::control {
namespace {

using std::chrono::milliseconds;

class QuotasTest : public testing::Test {
 protected:
  QuotasTest() {
    // To the beginning of a minute.
    clock_.advance(milliseconds(60'000 - clock_.unix_time_ms() % 60'000));
  }
  QuotaAnswer admit(const QuotaSubject& subject, int64_t tokens = 0) {
    return quotas_.admit({subject}, tokens, "holder " + std::to_string(++holders_));
  }
  store::ManualClock clock_;
  std::unique_ptr<store::State> state_ = store::make_memory_state(clock_);
  Quotas quotas_{*state_, clock_};
  int holders_ = 0;
};

TEST_F(QuotasTest, MinutesSlide) {
  const QuotaSubject subject{.name = "key/a", .requests_per_minute = 10};
  for (int i = 0; i < 10; ++i) {
    const QuotaAnswer answer = admit(subject);
    EXPECT_TRUE(answer.admitted) << i;
    EXPECT_EQ(answer.requests.limit, 10);
    EXPECT_EQ(answer.requests.remaining, 9 - i);
  }
  QuotaAnswer refused = admit(subject);
  EXPECT_FALSE(refused.admitted);
  EXPECT_EQ(refused.code, "requests_per_minute");
  EXPECT_EQ(refused.retry_ms, 60'000);
  EXPECT_EQ(refused.requests.remaining, 0);
  clock_.advance(milliseconds(60'000));
  EXPECT_FALSE(admit(subject).admitted) << "all of the last minute counts still";
  clock_.advance(milliseconds(30'000));
  int admitted = 0;
  while (admit(subject).admitted) ++admitted;
  EXPECT_EQ(admitted, 5) << "half of it has faded";
  const int64_t wait = admit(subject).retry_ms;
  EXPECT_GT(wait, 0);
  clock_.advance(milliseconds(wait));
  EXPECT_TRUE(admit(subject).admitted) << "it said when to come again";
  EXPECT_TRUE(admit({.name = "key/b", .requests_per_minute = 10}).admitted) << "others are others";
}

TEST_F(QuotasTest, TokensAreReservedAndWhatWasNotUsedComesBack) {
  const QuotaSubject subject{.name = "key/a", .tokens_per_minute = 1000};
  const QuotaAnswer first = admit(subject, 600);
  ASSERT_TRUE(first.admitted);
  EXPECT_EQ(first.tokens.remaining, 400);
  EXPECT_FALSE(admit(subject, 600).admitted);
  quotas_.release(first.ticket, 100);
  EXPECT_TRUE(admit(subject, 900).admitted);
  const QuotaAnswer large = admit(subject, 1001);
  EXPECT_FALSE(large.admitted);
  EXPECT_EQ(large.retry_ms, 0) << "waiting does not help";
  EXPECT_NE(large.refusal.find("max_tokens"), std::string::npos);
}

TEST_F(QuotasTest, SlotsAreTakenReturnedAndLeftByTheDead) {
  const QuotaSubject subject{.name = "key/a", .concurrent = 2};
  const QuotaAnswer a = admit(subject), b = admit(subject);
  EXPECT_TRUE(a.admitted && b.admitted);
  EXPECT_EQ(admit(subject).code, "concurrent");
  quotas_.release(a.ticket, 0);
  quotas_.release(a.ticket, 0);
  EXPECT_TRUE(admit(subject).admitted) << "and only one: releasing twice returns one slot";
  EXPECT_FALSE(admit(subject).admitted);
  clock_.advance(Quotas::kSlotLife - milliseconds(1));
  quotas_.renew(b.ticket);
  clock_.advance(milliseconds(2));
  EXPECT_TRUE(admit(subject).admitted) << "nobody renewed the other slot";
  EXPECT_FALSE(admit(subject).admitted) << "the renewed one is held";
}

TEST_F(QuotasTest, ARefusedRequestTakesNothing) {
  const QuotaSubject key{
      .name = "key/a", .requests_per_minute = 5, .tokens_per_minute = 100, .concurrent = 5};
  const QuotaSubject tenant{.name = "tenant/t", .concurrent = 1};
  const QuotaAnswer first = quotas_.admit({key, tenant}, 10, "first");
  ASSERT_TRUE(first.admitted);
  for (int i = 0; i < 20; ++i) EXPECT_EQ(quotas_.admit({key, tenant}, 10, "more").code, "concurrent");
  quotas_.release(first.ticket, 10);
  const QuotaAnswer second = quotas_.admit({key, tenant}, 10, "second");
  EXPECT_TRUE(second.admitted);
  EXPECT_EQ(second.requests.remaining, 3);
  EXPECT_EQ(second.tokens.remaining, 80);
}

TEST_F(QuotasTest, DaysAreOfUtc) {
  const QuotaSubject subject{.name = "key/a", .requests_per_day = 1};
  EXPECT_TRUE(admit(subject).admitted);
  const QuotaAnswer refused = admit(subject);
  EXPECT_EQ(refused.code, "requests_per_day");
  clock_.advance(milliseconds(refused.retry_ms));
  EXPECT_TRUE(admit(subject).admitted);
}

// Answers nothing while it is away.
class AwayState final : public store::State {
 public:
  Result<std::optional<std::string>> get(std::string_view) override { return away(); }
  Status set(std::string_view, std::string_view, store::Ttl) override { return away(); }
  Result<bool> compare_and_set(std::string_view, std::optional<std::string_view>, std::string_view,
                               store::Ttl) override {
    return away();
  }
  Result<bool> compare_and_erase(std::string_view, std::string_view) override { return away(); }
  Result<int64_t> increment(std::string_view, int64_t, store::Ttl) override { return away(); }
  Result<bool> expire(std::string_view, store::Ttl) override { return away(); }
  Status erase(std::string_view) override { return away(); }

 private:
  static Status away() { return unavailable("away"); }
};

TEST_F(QuotasTest, WithoutTheStateNothingIsLimited) {
  AwayState away;
  Quotas quotas(away, clock_);
  for (int i = 0; i < 5; ++i)
    EXPECT_TRUE(quotas.admit({{.name = "a", .requests_per_minute = 1, .concurrent = 1}}, 0, "h").admitted);
  EXPECT_TRUE(quotas.degraded());
}

}  // namespace
}  // namespace tessera::control
