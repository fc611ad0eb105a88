#include "gateway/key_authenticator.h"

#include <gtest/gtest.h>

#include "cluster/manual_executor.h"
#include "store/sqlite_database.h"
#include "store/test_util.h"

namespace tessera::gateway {
namespace {

using control::ApiKeyTerms;

// Does not answer while it is away.
class SwitchedDatabase final : public store::Database {
 public:
  explicit SwitchedDatabase(std::unique_ptr<store::Database> inner) : inner_(std::move(inner)) {}
  Result<store::Rows> execute(std::string_view sql, const std::vector<store::Value>& params) override {
    if (away) return unavailable("away");
    return inner_->execute(sql, params);
  }
  Status script(std::string_view sql) override { return inner_->script(sql); }
  Status transaction(const std::function<Status(store::Statements&)>& body) override {
    return inner_->transaction(body);
  }
  const std::string& description() const override { return inner_->description(); }
  bool away = false;

 private:
  const std::unique_ptr<store::Database> inner_;
};

class KeyAuthenticatorTest : public testing::Test {
 protected:
  KeyAuthenticatorTest()
      : database_(std::make_unique<SwitchedDatabase>(std::move(*store::open_sqlite(":memory:")))) {
    tenants_ = std::move(*control::Tenants::open(*database_, clock_));
    users_ = std::move(*control::Users::open(*database_, clock_));
    make(true);
  }
  void make(bool required) {
    KeyAuthenticatorOptions options;
    options.admin_keys = {"adm_boss", "flag"};
    options.key_required = required;
    authenticator_ = std::make_unique<KeyAuthenticator>(
        options, KeyAuthenticator::Sources{*tenants_, *users_, lockout_, *state_}, lookup_, clock_);
  }
  // The status (200: let in), and whoever it is.
  int status(net::Headers headers, const std::string& address = "127.0.0.1") {
    auto request = std::make_shared<net::HttpRequest>();
    request->headers = std::move(headers);
    request->remote_address = address;
    std::optional<int> status;
    caller_ = nullptr;
    authenticator_->authenticate(request, [&](api::ApiResult<api::CallerPtr> known) {
      EXPECT_FALSE(status) << "called back twice";
      if (auto* error = std::get_if<api::ApiError>(&known)) {
        status = error->status;
        code_ = error->code;
      } else {
        status = 200;
        caller_ = std::get<0>(known);
      }
    });
    waited_ = !status;
    lookup_.run();
    return status.value_or(0);
  }
  int with_key(const std::string& key, const std::string& address = "127.0.0.1") {
    return status({{"authorization", "Bearer " + key}}, address);
  }

  store::ManualClock clock_;
  cluster::ManualExecutor lookup_;
  std::unique_ptr<SwitchedDatabase> database_;
  std::unique_ptr<control::Tenants> tenants_;
  std::unique_ptr<control::Users> users_;
  std::unique_ptr<store::State> state_ = store::make_memory_state(clock_);
  control::Lockout lockout_{*state_};
  std::unique_ptr<KeyAuthenticator> authenticator_;
  api::CallerPtr caller_;
  std::string code_;
  bool waited_ = false;
};

TEST_F(KeyAuthenticatorTest, KeysAreTakenFromBothHeaders) {
  const std::string secret = tenants_->create_key("default", {})->secret;
  EXPECT_EQ(with_key(secret), 200);
  EXPECT_EQ(status({{"x-api-key", secret}}), 200);
  EXPECT_EQ(caller_->role, api::Role::kClient);
  EXPECT_EQ(caller_->tenant, "default");
  EXPECT_EQ(with_key("adm_boss"), 200);
  EXPECT_EQ(caller_->role, api::Role::kAdmin);
  EXPECT_EQ(status({{"x-api-key", "flag"}}), 200);
  EXPECT_EQ(caller_->role, api::Role::kAdmin);
  for (const char* wrong : {"", "ent_", "ent_wrong", "adm_", "adm_wrong", "fla", "flags"})
    EXPECT_EQ(with_key(wrong), 401) << wrong;
  EXPECT_EQ(status({}), 401);
}

TEST_F(KeyAuthenticatorTest, WhereNoKeyIsAskedForAWrongOneOfOursStillFails) {
  make(false);
  const std::string secret = tenants_->create_key("default", {})->secret;
  EXPECT_EQ(status({}), 200);
  EXPECT_EQ(caller_->role, api::Role::kAdmin);
  EXPECT_EQ(with_key("sk-any-client-sends-one"), 200);
  EXPECT_EQ(with_key("ent_wrong"), 401);
  EXPECT_EQ(with_key("adm_wrong"), 401);
  EXPECT_EQ(with_key(secret), 200);
  EXPECT_EQ(caller_->role, api::Role::kClient) << "a key of a tenant is that tenant";
}

TEST_F(KeyAuthenticatorTest, ScopesTravelWithTheCaller) {
  control::EnterpriseProfile profile;
  profile.name = profile.code = "acme";
  profile.tokens_per_minute = 500;
  profile.weight = 4;
  ASSERT_TRUE(tenants_->create_enterprise(profile).ok());
  ApiKeyTerms terms;
  terms.models = {"m"};
  terms.types = {"llm"};
  terms.addresses = {"10.0.0.0/8"};
  terms.max_concurrent = 2;
  const auto made = *tenants_->create_key("acme", terms);
  EXPECT_EQ(with_key(made.secret, "10.9.8.7"), 200);
  EXPECT_EQ(caller_->key, made.key.id);
  EXPECT_TRUE(caller_->may_use_model("m"));
  EXPECT_FALSE(caller_->may_use_model("n"));
  EXPECT_FALSE(caller_->may_use_type("image_gen"));
  EXPECT_EQ(caller_->limits.concurrent, 2);
  EXPECT_EQ(caller_->tenant_limits.tokens_per_minute, 500);
  EXPECT_EQ(caller_->weight, 4);
  EXPECT_EQ(with_key(made.secret, "11.9.8.7"), 403);
  EXPECT_EQ(code_, "address_not_allowed");
  profile.is_active = false;
  ASSERT_TRUE(tenants_->update_enterprise("acme", profile).ok());
  authenticator_->forget();
  EXPECT_EQ(with_key(made.secret, "10.9.8.7"), 403);
  EXPECT_EQ(code_, "enterprise_inactive");
}

TEST_F(KeyAuthenticatorTest, WhatTheDatabaseSaidIsBelievedForAShortTime) {
  const auto made = *tenants_->create_key("default", {});
  EXPECT_EQ(with_key(made.secret), 200);
  EXPECT_TRUE(waited_);
  EXPECT_EQ(with_key(made.secret), 200);
  EXPECT_FALSE(waited_) << "answered within the call";
  ASSERT_TRUE(tenants_->revoke_key("default", made.key.id).ok());
  clock_.advance(std::chrono::seconds(3));
  EXPECT_EQ(with_key(made.secret), 401) << "revoked by another gateway";
  const auto other = *tenants_->create_key("default", {});
  EXPECT_EQ(with_key(other.secret), 200);
  ASSERT_TRUE(tenants_->revoke_key("default", other.key.id).ok());
  authenticator_->forget();
  EXPECT_EQ(with_key(other.secret), 401) << "revoked here: at once";
  EXPECT_EQ(with_key("ent_wrong"), 401);
  EXPECT_EQ(with_key("ent_wrong"), 401);
  EXPECT_FALSE(waited_) << "guessing does not load the database";
}

TEST_F(KeyAuthenticatorTest, GuessingTheRestOfAKeyLocksTheGuesserOut) {
  const std::string secret = tenants_->create_key("default", {})->secret;
  std::string guess = secret;
  for (int i = 0; i < 5; ++i) {
    guess.back() = static_cast<char>('0' + i);
    if (guess == secret) guess.back() = 'z';
    EXPECT_EQ(with_key(guess, "10.0.0.1"), i < 4 ? 401 : 429) << i;
  }
  EXPECT_EQ(with_key(secret, "10.0.0.1"), 429) << "right or wrong";
  EXPECT_EQ(with_key(secret, "10.0.0.2"), 200) << "its owner is elsewhere";
}

TEST_F(KeyAuthenticatorTest, KnownKeysGoOnWithoutTheDatabase) {
  const std::string known = tenants_->create_key("default", {})->secret;
  const std::string unknown = tenants_->create_key("default", {})->secret;
  EXPECT_EQ(with_key(known), 200);
  database_->away = true;
  clock_.advance(std::chrono::minutes(10));
  EXPECT_EQ(with_key(known), 200);
  EXPECT_EQ(with_key(unknown), 503) << "not 401: it may be right";
}

TEST_F(KeyAuthenticatorTest, LoginsBringTheirRole) {
  ASSERT_TRUE(users_->add("ann", "operator", "a good password").ok());
  const auto tokens = *users_->login("ann", "a good password");
  EXPECT_EQ(with_key(tokens.access), 200);
  EXPECT_EQ(caller_->role, api::Role::kOperator);
  EXPECT_EQ(caller_->key, "user:ann");
  EXPECT_EQ(with_key(tokens.refresh), 401);
  ASSERT_TRUE(users_->change("ann", "viewer", {}, {}).ok());
  authenticator_->forget();
  EXPECT_EQ(with_key(tokens.access), 401);
}

TEST_F(KeyAuthenticatorTest, KeysEndWhenTheyExpire) {
  ApiKeyTerms terms;
  terms.expires_unix_ms = clock_.unix_time_ms() + 1500;
  const auto made = *tenants_->create_key("default", terms);
  EXPECT_EQ(with_key(made.secret), 200);
  clock_.advance(std::chrono::milliseconds(1501));
  EXPECT_EQ(with_key(made.secret), 401) << "though it is remembered as good";
  EXPECT_FALSE(waited_);
  const auto other = *tenants_->create_key("default", {});
  ASSERT_TRUE(tenants_->rotate_key("default", other.key.id, 1).ok());
  EXPECT_EQ(with_key(other.secret), 200) << "in its grace";
  clock_.advance(std::chrono::milliseconds(1001));
  EXPECT_EQ(with_key(other.secret), 401);
}

}  // namespace
}  // namespace tessera::gateway
