#include "control/users.h"

#include <gtest/gtest.h>

#include "control/test_databases.h"

namespace tessera::control {
namespace {

constexpr const char* kPassword = "correct horse battery";

class UsersTest : public DatabaseTest {
 protected:
  UsersTest() {
    users_ = std::move(*Users::open(*database_, clock_));
    EXPECT_TRUE(users_->add("ann", "operator", kPassword).ok());
  }
  bool opens(const std::string& token) { return users_->find_access(token)->has_value(); }

  store::ManualClock clock_;
  std::unique_ptr<Users> users_;
};

TEST_P(UsersTest, PasswordsAreHashedWithArgon2id) {
  const auto rows = database_->execute("SELECT password FROM users");
  const std::string hash = store::text_at(rows->rows.at(0), 0);
  EXPECT_TRUE(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$")) << hash;
  EXPECT_EQ(hash.find(kPassword), std::string::npos);
  EXPECT_EQ(users_->add("ann", "viewer", kPassword).status().code(), Code::kInvalidArgument) << "taken";
  EXPECT_EQ(users_->add("bob", "viewer", "short").status().code(), Code::kInvalidArgument);
  EXPECT_EQ(users_->add("bob", "king", kPassword).status().code(), Code::kInvalidArgument);
  EXPECT_EQ(users_->add("Bob", "viewer", kPassword).status().code(), Code::kInvalidArgument);
  EXPECT_EQ(users_->list()->size(), 1u);
}

TEST_P(UsersTest, ALoginGivesATokenForAnHour) {
  const LoginTokens tokens = *users_->login("ann", kPassword);
  const auto access = *users_->find_access(tokens.access);
  ASSERT_TRUE(access);
  EXPECT_EQ(access->user.name, "ann");
  EXPECT_EQ(access->user.role, "operator");
  EXPECT_FALSE(opens(tokens.refresh)) << "a refresh token opens nothing";
  EXPECT_EQ(users_->login("ann", "wrong password").status().code(), Code::kPermissionDenied);
  EXPECT_EQ(users_->login("nobody", kPassword).status().code(), Code::kPermissionDenied);
  clock_.advance(std::chrono::milliseconds(Users::kAccessLife_ms));
  EXPECT_FALSE(opens(tokens.access));
}

TEST_P(UsersTest, RefreshTokensWorkOnceAndAThiefEndsTheLogin) {
  const LoginTokens first = *users_->login("ann", kPassword);
  const LoginTokens elsewhere = *users_->login("ann", kPassword);
  const LoginTokens second = *users_->refresh(first.refresh);
  EXPECT_FALSE(opens(first.access)) << "replaced";
  EXPECT_TRUE(opens(second.access));
  EXPECT_EQ(users_->refresh(first.refresh).status().code(), Code::kPermissionDenied);
  EXPECT_FALSE(opens(second.access)) << "whoever has it";
  EXPECT_FALSE(users_->refresh(second.refresh).ok());
  EXPECT_TRUE(opens(elsewhere.access)) << "another login goes on";
  clock_.advance(std::chrono::milliseconds(Users::kRefreshLife_ms));
  EXPECT_FALSE(users_->refresh(elsewhere.refresh).ok()) << "expired";
  EXPECT_TRUE(users_->forget_expired().ok());
  EXPECT_EQ(database_->execute("SELECT 1 FROM user_tokens")->rows.size(), 0u);
}

TEST_P(UsersTest, ChangesEndLogins) {
  std::string token = users_->login("ann", kPassword)->access;
  ASSERT_TRUE(users_->change("ann", {}, "another password", {}).ok());
  EXPECT_FALSE(opens(token));
  EXPECT_FALSE(users_->login("ann", kPassword).ok());
  token = users_->login("ann", "another password")->access;
  EXPECT_EQ(users_->change("ann", "viewer", {}, {})->role, "viewer");
  EXPECT_FALSE(opens(token)) << "the role went with it";
  token = users_->login("ann", "another password")->access;
  ASSERT_TRUE(users_->change("ann", {}, {}, true).ok());
  EXPECT_FALSE(opens(token));
  EXPECT_FALSE(users_->login("ann", "another password").ok());
  ASSERT_TRUE(users_->change("ann", {}, {}, false).ok());
  token = users_->login("ann", "another password")->access;
  ASSERT_TRUE(users_->logout(token).ok());
  EXPECT_FALSE(opens(token));
  token = users_->login("ann", "another password")->access;
  ASSERT_TRUE(users_->remove("ann").ok());
  EXPECT_FALSE(opens(token));
  EXPECT_EQ(users_->remove("ann").code(), Code::kNotFound);
  EXPECT_EQ(users_->change("ann", {}, {}, true).status().code(), Code::kNotFound);
}

TESSERA_ON_EVERY_DATABASE(UsersTest);

}  // namespace
}  // namespace tessera::control
