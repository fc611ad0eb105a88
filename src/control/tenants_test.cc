#include "control/tenants.h"

#include <gtest/gtest.h>

#include <set>

#include "control/addresses.h"
#include "control/test_databases.h"

namespace tessera::control {
namespace {

class TenantsTest : public DatabaseTest {
 protected:
  TenantsTest() { tenants_ = std::move(*Tenants::open(*database_, clock_)); }
  Enterprise enterprise(const std::string& code) {
    EnterpriseProfile profile;
    profile.code = code;
    profile.name = "The " + code;
    return *tenants_->create_enterprise(profile);
  }
  bool opens(const std::string& secret) {
    const auto found = tenants_->find_secret(secret);
    EXPECT_TRUE(found.ok());
    return found->has_value();
  }

  store::ManualClock clock_;
  std::unique_ptr<Tenants> tenants_;
};

TEST_P(TenantsTest, AnEnterpriseComesBackAsItWasWritten) {
  EnterpriseProfile profile;
  profile.code = "acme";
  profile.name = "Acme";
  profile.contact_email = "a@acme.example";
  profile.monthly_budget = 25 * kNano / 2;
  profile.credit_balance = -7;
  profile.prepaid = true;
  profile.plan = "big";
  profile.custom_pricing = R"({"llm_tokens":0.001})";
  profile.allow_logging = true;
  profile.tokens_per_minute = 1000;
  profile.weight = 3;
  const Enterprise made = *tenants_->create_enterprise(profile);
  const Enterprise read = *tenants_->find_enterprise("acme");
  EXPECT_EQ(read.id, made.id);
  EXPECT_EQ(read.id, tenants_->find_enterprise(made.id)->id) << "by its id, too";
  EXPECT_EQ(read.profile.contact_email, "a@acme.example");
  EXPECT_EQ(read.profile.monthly_budget, 25 * kNano / 2);
  EXPECT_EQ(read.profile.credit_balance, -7);
  EXPECT_TRUE(read.profile.prepaid);
  EXPECT_EQ(read.profile.custom_pricing, R"({"llm_tokens":0.001})");
  EXPECT_EQ(read.profile.tokens_per_minute, 1000);
  EXPECT_EQ(read.profile.weight, 3);
  EXPECT_EQ(read.created_unix_ms, clock_.unix_time_ms());
  EXPECT_EQ(tenants_->list_enterprises()->size(), 2u) << "the default one is there from the start";
  EXPECT_EQ(tenants_->find_enterprise("nobody").status().code(), Code::kNotFound);
}

TEST_P(TenantsTest, ValuesThatCannotBeAreRefused) {
  EnterpriseProfile profile;
  profile.name = "x";
  for (const char* code : {"", "Upper", "white space", "ü"}) {
    profile.code = code;
    EXPECT_EQ(tenants_->create_enterprise(profile).status().code(), Code::kInvalidArgument) << code;
  }
  profile.code = "x";
  profile.data_retention_days = 6;
  EXPECT_EQ(tenants_->create_enterprise(profile).status().code(), Code::kInvalidArgument);
  profile.data_retention_days = 7;
  EXPECT_TRUE(tenants_->create_enterprise(profile).ok());
  EXPECT_EQ(tenants_->create_enterprise(profile).status().code(), Code::kInvalidArgument) << "taken";
  EXPECT_EQ(tenants_->update_enterprise("default", profile).status().code(), Code::kInvalidArgument)
      << "taken";
  ApiKeyTerms terms;
  terms.addresses = {"10.0.0.0/99"};
  EXPECT_EQ(tenants_->create_key("x", terms).status().code(), Code::kInvalidArgument);
  EXPECT_EQ(tenants_->create_key("nobody", {}).status().code(), Code::kNotFound);
}

TEST_P(TenantsTest, AnUpdateLeavesTheCreditAloneUnlessItSaysSo) {
  Enterprise acme = enterprise("acme");
  EnterpriseProfile profile = acme.profile;
  ASSERT_TRUE(database_->execute("UPDATE enterprises SET credit_balance = 5 WHERE id = $1", {acme.id}).ok());
  profile.name = "New name";
  EXPECT_EQ(tenants_->update_enterprise("acme", profile)->profile.credit_balance, 5);
  EXPECT_EQ(tenants_->update_enterprise("acme", profile, 9)->profile.credit_balance, 9);
  EXPECT_EQ(tenants_->find_enterprise("acme")->profile.name, "New name");
}

TEST_P(TenantsTest, ASecretIsShownOnceAndStoredHashed) {
  enterprise("acme");
  ApiKeyTerms terms;
  terms.name = "laptop";
  terms.models = {"a", "b"};
  terms.addresses = {"10.0.0.0/8"};
  terms.requests_per_day = 7;
  const NewApiKey made = *tenants_->create_key("acme", terms);
  EXPECT_TRUE(made.secret.starts_with("ent_"));
  EXPECT_EQ(made.secret.size(), 4 + 43u) << "32 bytes";
  const auto found = tenants_->find_secret(made.secret);
  ASSERT_TRUE(found.ok() && found->has_value());
  EXPECT_EQ((*found)->key.id, made.key.id);
  EXPECT_EQ((*found)->enterprise.profile.code, "acme");
  EXPECT_EQ((*found)->key.terms.models, terms.models);
  EXPECT_EQ((*found)->key.terms.requests_per_day, 7);
  EXPECT_FALSE(opens("ent_wrong"));
  EXPECT_FALSE(opens(""));
  for (const char* table : {"api_keys", "api_key_secrets", "enterprises"}) {
    const auto rows = database_->execute(std::string("SELECT * FROM ") + table);
    for (const store::Row& row : rows->rows)
      for (const store::Value& value : row) {
        std::string text;
        if (const auto* s = std::get_if<std::string>(&value)) text = *s;
        if (const auto* b = std::get_if<store::Blob>(&value)) text.assign(b->begin(), b->end());
        EXPECT_EQ(text.find(made.secret.substr(4)), std::string::npos) << table;
      }
  }
  EXPECT_NE(made.secret, tenants_->create_key("acme", terms)->secret);
}

TEST_P(TenantsTest, RotationKeepsTheKeyAndItsOldSecretForTheGraceOnly) {
  enterprise("acme");
  const NewApiKey first = *tenants_->create_key("acme", {});
  const NewApiKey second = *tenants_->rotate_key("acme", first.key.id, 60);
  EXPECT_EQ(second.key.id, first.key.id);
  EXPECT_TRUE(opens(first.secret));
  EXPECT_TRUE(opens(second.secret));
  const NewApiKey third = *tenants_->rotate_key("acme", first.key.id, 3600);
  clock_.advance(std::chrono::seconds(61));
  EXPECT_FALSE(opens(first.secret)) << "a further rotation does not lengthen its life";
  EXPECT_TRUE(opens(second.secret));
  const NewApiKey fourth = *tenants_->rotate_key("acme", first.key.id, 0);
  EXPECT_FALSE(opens(second.secret));
  EXPECT_FALSE(opens(third.secret)) << "without grace all older secrets end";
  EXPECT_TRUE(opens(fourth.secret));
  EXPECT_EQ(tenants_->rotate_key("acme", first.key.id, 8 * 24 * 3600).status().code(),
            Code::kInvalidArgument);
  EXPECT_EQ(tenants_->rotate_key("default", first.key.id, 0).status().code(), Code::kNotFound)
      << "another enterprise's key";
}

TEST_P(TenantsTest, ASigningKeyHasTheSecretsThatWorkNow) {
  ApiKeyTerms terms;
  terms.require_signature = true;
  const NewApiKey first = *tenants_->create_key("default", terms);
  const NewApiKey second = *tenants_->rotate_key("default", first.key.id, 60);
  const auto hash = [](const std::string& secret) { return sha256(as_bytes(secret)); };
  auto found = *tenants_->find_signing_key(first.key.id);
  ASSERT_TRUE(found);
  EXPECT_TRUE(found->known.key.terms.require_signature);
  EXPECT_EQ(std::set<Digest>(found->secrets.begin(), found->secrets.end()),
            (std::set<Digest>{hash(first.secret), hash(second.secret)}));
  clock_.advance(std::chrono::seconds(61));
  found = *tenants_->find_signing_key(first.key.id);
  EXPECT_EQ(found->secrets, std::vector<Digest>{hash(second.secret)});
  EXPECT_FALSE(*tenants_->find_signing_key("key_none"));
}

TEST_P(TenantsTest, ARevokedKeyIsKnownAsThat) {
  enterprise("acme");
  const NewApiKey made = *tenants_->create_key("acme", {});
  EXPECT_EQ(tenants_->revoke_key("default", made.key.id).code(), Code::kNotFound);
  EXPECT_TRUE(tenants_->revoke_key("acme", made.key.id).ok());
  EXPECT_NE((*tenants_->find_secret(made.secret))->key.revoked_unix_ms, 0);
  EXPECT_EQ(tenants_->rotate_key("acme", made.key.id, 0).status().code(), Code::kInvalidArgument);
  ASSERT_EQ(tenants_->list_keys("acme")->size(), 1u);
  EXPECT_EQ(tenants_->list_keys("default")->size(), 0u);
  EXPECT_EQ(tenants_->list_keys("")->size(), 1u);
}

TEST(AddressSet, HoldsWhatItsNetworksHold) {
  const AddressSet set = *AddressSet::parse({"10.1.0.0/16", "192.0.2.7", "2001:db8::/32"});
  for (const char* in : {"10.1.0.0", "10.1.255.255", "192.0.2.7", "::ffff:10.1.2.3", "2001:db8::1"})
    EXPECT_TRUE(set.contains(in)) << in;
  for (const char* out : {"10.2.0.0", "192.0.2.8", "2001:db9::1", "", "10.1", "nonsense", "::1"})
    EXPECT_FALSE(set.contains(out)) << out;
  for (const char* wrong : {"10.1.0.0/33", "10.1.0.0/", "/8", "", "2001:db8::/129", "a.b.c.d", "10.0.0.0/-1"})
    EXPECT_FALSE(AddressSet::parse({wrong}).ok()) << wrong;
}

TESSERA_ON_EVERY_DATABASE(TenantsTest);

}  // namespace
}  // namespace tessera::control
