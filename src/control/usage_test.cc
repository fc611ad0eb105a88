#include "control/usage.h"

#include <gtest/gtest.h>

#include "control/tenants.h"
#include "control/test_databases.h"

namespace tessera::control {
namespace {

constexpr int64_t kDay_ms = 24LL * 3600 * 1000;

// 2023-11-14T22:13:20Z plus what the test adds, a Tuesday.
class UsageTest : public DatabaseTest {
 protected:
  UsageTest() {
    tenants_ = std::move(*Tenants::open(*database_, clock_));
    usage_ = std::move(*Usage::open(*database_, clock_));
  }
  UsageRecord used(int64_t prompt, int64_t completion, const std::string& enterprise = "default") {
    UsageRecord record;
    record.id = *Usage::draw_id();
    record.request_id = "the client's own";
    record.enterprise = enterprise;
    record.model = "m";
    record.prompt_tokens = prompt;
    record.completion_tokens = completion;
    record.quantity = prompt + completion;
    record.ended_unix_ms = clock_.unix_time_ms();
    return record;
  }
  std::string enterprise(const std::string& code) {
    EnterpriseProfile profile;
    profile.code = profile.name = code;
    profile.credit_balance = kNano;
    return tenants_->create_enterprise(profile)->id;
  }
  int64_t credit(const std::string& id) { return tenants_->find_enterprise(id)->profile.credit_balance; }

  store::ManualClock clock_;
  std::unique_ptr<Tenants> tenants_;
  std::unique_ptr<Usage> usage_;
};

TEST(PriceList, DefaultsAreTheDocumentedOnes) {
  const PriceList prices = PriceList::defaults();
  EXPECT_EQ(prices.amount(UsageType::kLlmTokens, 1), 2000) << "0.002 for a thousand";
  EXPECT_EQ(prices.amount(UsageType::kLlmTokens, 1'000'000), 2 * kNano);
  EXPECT_EQ(prices.amount(UsageType::kLlmRequests, 3), 30'000'000);
  EXPECT_EQ(prices.amount(UsageType::kImageGen, 1), 100'000'000);
  EXPECT_EQ(prices.amount(UsageType::kImagePixels, 1024 * 1024), 10'485'760'000);
  EXPECT_EQ(prices.amount(UsageType::kWhisperSeconds, 2), 12'000'000);
  EXPECT_EQ(prices.amount(UsageType::kEmbeddingTokens, 1000), 100'000);
  EXPECT_EQ(prices.amount(UsageType::kGpuSeconds, 1), 1'000'000);
  EXPECT_EQ(prices.amount(UsageType::kGpuSeconds, -1), 0);
  EXPECT_EQ(prices.amount(UsageType::kImageGen, INT64_MAX), INT64_MAX) << "no overflow";
}

TEST(PriceList, ReadsWhatItWritesAndNothingElse) {
  const PriceList list = *PriceList::parse(R"({"llm_tokens": 0.0005, "gpu_seconds": 7})");
  EXPECT_EQ(PriceList::parse(list.text())->text(), list.text());
  EXPECT_EQ(list.amount(UsageType::kLlmTokens, 3), 1500);
  EXPECT_EQ(list.amount(UsageType::kImageGen, 3), 0);
  EXPECT_EQ(list.over(PriceList::defaults()).amount(UsageType::kImageGen, 3), 300'000'000);
  EXPECT_EQ(list.over(PriceList::defaults()).amount(UsageType::kGpuSeconds, 1), 7 * kNano);
  for (const char* wrong : {"[]", R"({"tokens": 1})", R"({"llm_tokens": -1})", R"({"llm_tokens": "1"})",
                            R"({"llm_tokens": 1e9})", R"({"llm_tokens": null})", "{"})
    EXPECT_FALSE(PriceList::parse(wrong).ok()) << wrong;
}

TEST_P(UsageTest, ARecordCountsOnceHoweverOftenItIsWritten) {
  const std::string acme = enterprise("acme");
  const UsageRecord one = used(600, 400, acme), other = used(1000, 0, acme);
  EXPECT_EQ(one.request_id, other.request_id) << "the client's id does not matter";
  ASSERT_TRUE(usage_->record({one, one, other}).ok());
  ASSERT_TRUE(usage_->record({other}).ok());
  const UsageTotals totals = *usage_->totals({acme});
  EXPECT_EQ(totals.requests, 2);
  EXPECT_EQ(totals.quantity, 2000);
  EXPECT_EQ(totals.prompt_tokens, 1600);
  EXPECT_EQ(totals.amount, 4'000'000);
  EXPECT_EQ(credit(acme), kNano - 4'000'000);
  EXPECT_EQ(*usage_->spent_this_month(acme), 4'000'000);
  EXPECT_EQ(*usage_->spent_this_month("default"), 0);
  clock_.advance(std::chrono::hours(24 * 31));
  EXPECT_EQ(*usage_->spent_this_month(acme), 0) << "a new month";
}

TEST_P(UsageTest, OwnPricesComeBeforeThePlansBeforeTheDefaults) {
  const std::string acme = enterprise("acme");
  ASSERT_TRUE(usage_->set_plan({"big", *PriceList::parse(R"({"llm_tokens": 0.001, "image_gen": 5})")}).ok());
  EnterpriseProfile profile = tenants_->find_enterprise("acme")->profile;
  const auto price = [&](UsageType type) { return usage_->prices_of(acme)->amount(type, 1000); };
  EXPECT_EQ(price(UsageType::kLlmTokens), 2'000'000);
  profile.plan = "big";
  ASSERT_TRUE(tenants_->update_enterprise("acme", profile).ok());
  EXPECT_EQ(price(UsageType::kLlmTokens), 1'000'000);
  EXPECT_EQ(price(UsageType::kGpuSeconds), kNano) << "the plan is silent";
  profile.custom_pricing = R"({"llm_tokens": 0.003})";
  ASSERT_TRUE(tenants_->update_enterprise("acme", profile).ok());
  EXPECT_EQ(price(UsageType::kLlmTokens), 3'000'000);
  EXPECT_EQ(price(UsageType::kImageGen), 5000 * kNano);
  ASSERT_TRUE(usage_->record({used(1000, 0, acme)}).ok());
  EXPECT_EQ(usage_->records({acme}, 10, 0)->at(0).amount, 3'000'000);
  EXPECT_EQ(usage_->remove_plan("big").code(), Code::kInvalidArgument) << "somebody pays by it";
  EXPECT_EQ(usage_->remove_plan("none").code(), Code::kNotFound);
  EXPECT_EQ(usage_->plans()->size(), 1u);
}

TEST_P(UsageTest, SummariesGroupByWhatIsAsked) {
  const std::string acme = enterprise("acme");
  ASSERT_TRUE(usage_->record({used(10, 0), used(20, 0, acme)}).ok());
  clock_.advance(std::chrono::hours(1));
  UsageRecord failed = used(30, 0, acme);
  failed.status = 499;
  failed.model = "n";
  ASSERT_TRUE(usage_->record({failed}).ok());
  clock_.advance(std::chrono::hours(24 * 20));  // 4 December
  ASSERT_TRUE(usage_->record({used(40, 0, acme)}).ok());
  const auto groups = [&](const std::string& by) {
    std::string text;
    const std::vector<UsageGroup> found = *usage_->summary({acme}, by);
    for (const UsageGroup& g : found) text += g.name + "=" + std::to_string(g.totals.quantity) + " ";
    return text;
  };
  EXPECT_EQ(groups("enterprise"), acme + "=90 ");
  EXPECT_EQ(groups("model"), "m=60 n=30 ");
  EXPECT_EQ(groups("status"), "200=60 499=30 ");
  EXPECT_EQ(groups("type"), "llm_tokens=90 ");
  EXPECT_EQ(groups("hour"), "1699999200000=20 1700002800000=30 1701730800000=40 ");
  EXPECT_EQ(groups("day"), "1699920000000=50 1701648000000=40 ");
  EXPECT_EQ(groups("week"), "1699833600000=50 1701648000000=40 ") << "from Monday";
  EXPECT_EQ(groups("month"), "1698796800000=50 1701388800000=40 ");
  EXPECT_EQ(usage_->summary({}, "enterprise")->size(), 2u);
  EXPECT_EQ(usage_->summary({}, "colour").status().code(), Code::kInvalidArgument);
  EXPECT_EQ(usage_->totals({acme})->failed, 1);
  EXPECT_EQ(usage_->totals({acme, "", "n"})->requests, 1);
  EXPECT_EQ(usage_->totals({acme, "", "", clock_.unix_time_ms()})->requests, 1);
  EXPECT_EQ(usage_->records({acme}, 2, 1)->size(), 2u);
  EXPECT_EQ(usage_->records({acme}, 10, 0)->at(0).quantity, 40) << "newest first";
}

TEST_P(UsageTest, ABillIsMadeOnceWhenItsPeriodIsOver) {
  const std::string acme = enterprise("acme");
  const int64_t november = clock_.unix_time_ms();
  UsageRecord image = used(0, 0, acme);
  image.type = UsageType::kImageGen;
  image.quantity = 2;
  ASSERT_TRUE(usage_->record({used(1000, 0, acme), image}).ok());
  EXPECT_EQ(usage_->make_bill(acme, november).status().code(), Code::kInvalidArgument) << "not over";
  ASSERT_TRUE(usage_->make_due_bills().ok());
  EXPECT_EQ(usage_->bills("")->size(), 0u) << "no enterprise is older than this month";
  clock_.advance(std::chrono::hours(24 * 20));
  ASSERT_TRUE(usage_->make_due_bills().ok());
  ASSERT_TRUE(usage_->make_due_bills().ok());
  ASSERT_EQ(usage_->bills(acme)->size(), 1u);
  const Bill bill = *usage_->find_bill(usage_->bills(acme)->at(0).id);
  EXPECT_EQ(bill.from_unix_ms, 1698796800000);
  EXPECT_EQ(bill.to_unix_ms, 1701388800000);
  EXPECT_EQ(bill.totals.requests, 2);
  EXPECT_EQ(bill.totals.amount, 2'000'000 + 200'000'000);
  ASSERT_EQ(bill.lines.size(), 2u);
  EXPECT_EQ(bill.lines[0].name, "image_gen");
  EXPECT_EQ(bill.lines[0].totals.amount, 200'000'000);
  UsageRecord late = used(5000, 0, acme);
  late.ended_unix_ms = november;
  ASSERT_TRUE(usage_->record({late}).ok());
  EXPECT_EQ(usage_->make_bill(acme, november)->id, bill.id) << "a bill stays what it is";
  EXPECT_EQ(usage_->make_bill("nobody", november).status().code(), Code::kNotFound);
  EXPECT_EQ(usage_->find_bill("bill_none").status().code(), Code::kNotFound);
}

TEST(Periods, AreOfUtc) {
  EXPECT_EQ(period_start("monthly", 1700000000000), 1698796800000);
  EXPECT_EQ(period_start("monthly", 1700000000000, 1), 1701388800000);
  EXPECT_EQ(period_start("monthly", 1700000000000, -11), 1669852800000);
  EXPECT_EQ(period_start("weekly", 1700000000000), 1699833600000);
  EXPECT_EQ(period_start("weekly", 1699833600000), 1699833600000);
  EXPECT_EQ(period_start("weekly", 1699833600000 - 1), 1699833600000 - 7 * kDay_ms);
}

TESSERA_ON_EVERY_DATABASE(UsageTest);

}  // namespace
}  // namespace tessera::control
