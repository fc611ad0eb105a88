#include "wire/certificates.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "base/files.h"
#include "wire/address.h"
#include "wire/join_token.h"
#include "wire/openssl_handles.h"

namespace tessera::wire {
namespace {

using ::testing::HasSubstr;
namespace fs = std::filesystem;

constexpr int64_t kNow = 1'800'000'000;

class Certificates : public ::testing::Test {
 protected:
  Certificates() {
    folder_ = fs::temp_directory_path() / ("tessera-ca-" + std::to_string(getpid()));
    fs::remove_all(folder_);
  }
  ~Certificates() override { fs::remove_all(folder_); }
  fs::path folder_;
};

// Whether a TLS library would believe the first certificate of the chain, given the authority's.
bool verifies(const std::string& chain_pem, const std::string& ca_pem, int64_t when) {
  BioPtr leaf_bio = memory_bio(chain_pem), ca_bio = memory_bio(ca_pem);
  CertificatePtr leaf(PEM_read_bio_X509(leaf_bio.get(), nullptr, nullptr, nullptr));
  CertificatePtr ca(PEM_read_bio_X509(ca_bio.get(), nullptr, nullptr, nullptr));
  std::unique_ptr<X509_STORE, OpensslFree<X509_STORE_free>> store(X509_STORE_new());
  std::unique_ptr<X509_STORE_CTX, OpensslFree<X509_STORE_CTX_free>> context(X509_STORE_CTX_new());
  X509_STORE_add_cert(store.get(), ca.get());
  X509_STORE_CTX_init(context.get(), store.get(), leaf.get(), nullptr);
  X509_STORE_CTX_set_time(context.get(), 0, when);
  X509_STORE_CTX_set_purpose(context.get(), X509_PURPOSE_SSL_SERVER);
  return X509_verify_cert(context.get()) == 1;
}

TEST_F(Certificates, TheAuthorityIsMadeOnceAndItsKeyIsTheOwnersAlone) {
  auto first = CertificateAuthority::open(folder_, kNow);
  ASSERT_TRUE(first.ok()) << first.status().message();
  const auto mode = fs::status(folder_ / "ca.key").permissions();
  EXPECT_EQ(mode, fs::perms::owner_read | fs::perms::owner_write);
  auto second = CertificateAuthority::open(folder_, kNow + 5);
  ASSERT_TRUE(second.ok());
  EXPECT_EQ(first->sha256(), second->sha256());
  fs::remove(folder_ / "ca.key");
  EXPECT_EQ(CertificateAuthority::open(folder_, kNow).status().code(), Code::kCorrupt);
}

TEST_F(Certificates, AWorkersCertificateCarriesItsNameAndEndsInTime) {
  auto authority = CertificateAuthority::open(folder_, {3650, std::chrono::hours(30 * 24)}, kNow);
  ASSERT_TRUE(authority.ok());
  auto made = make_key_and_request("whatever");
  ASSERT_TRUE(made.ok());
  auto chain = authority->issue(made->csr_pem, "alpha", kNow);
  ASSERT_TRUE(chain.ok()) << chain.status().message();
  auto info = certificate_info(*chain);
  ASSERT_TRUE(info.ok());
  EXPECT_EQ(info->name, "alpha");
  EXPECT_EQ(info->not_after_unix_s, kNow + 30 * 24 * 3600);
  EXPECT_FALSE(info->should_renew(kNow));
  EXPECT_TRUE(info->should_renew(kNow + 21 * 24 * 3600));
  EXPECT_TRUE(verifies(*chain, authority->certificate_pem(), kNow));
  EXPECT_FALSE(verifies(*chain, authority->certificate_pem(), kNow + 31 * 24 * 3600));
  // The same key again: a renewal.
  auto request = make_request("alpha", made->key_pem);
  ASSERT_TRUE(request.ok());
  EXPECT_TRUE(authority->issue(*request, "alpha", kNow + 1).ok());
}

TEST_F(Certificates, AnExpiredOneRenewsForAWhileByItsKeyAlone) {
  auto authority = CertificateAuthority::open(folder_ / "ca", {3650, std::chrono::hours(24)}, kNow);
  auto stranger = CertificateAuthority::open(folder_ / "other", kNow);
  ASSERT_TRUE(authority.ok() && stranger.ok());
  auto made = make_key_and_request("alpha");
  auto other = make_key_and_request("alpha");
  ASSERT_TRUE(made.ok() && other.ok());
  auto chain = authority->issue(made->csr_pem, "alpha", kNow);
  auto forged = stranger->issue(made->csr_pem, "alpha", kNow);
  ASSERT_TRUE(chain.ok() && forged.ok());
  constexpr int64_t kDay = 24 * 3600;
  auto name = authority->check_expired(*chain, made->csr_pem, kNow + 30 * kDay);
  ASSERT_TRUE(name.ok()) << name.status().message();
  EXPECT_EQ(*name, "alpha");
  const auto denied = [&](const std::string& chain_pem, const std::string& csr_pem, int64_t now) {
    return authority->check_expired(chain_pem, csr_pem, now).status().code() == Code::kPermissionDenied;
  };
  EXPECT_TRUE(denied(*chain, made->csr_pem, kNow + 32 * kDay));  // too long ago
  EXPECT_TRUE(denied(*chain, other->csr_pem, kNow + 2 * kDay));  // who has the certificate, not the key
  EXPECT_TRUE(denied(*forged, made->csr_pem, kNow + 2 * kDay));
  EXPECT_EQ(authority->check_expired("nothing", made->csr_pem, kNow).status().code(), Code::kCorrupt);
}

TEST_F(Certificates, IdentitiesSurviveTheFolderAndMixedOnesAreFound) {
  auto authority = CertificateAuthority::open(folder_ / "ca", kNow);
  ASSERT_TRUE(authority.ok());
  auto gateway = authority->make_gateway_identity("gateway", kNow);
  ASSERT_TRUE(gateway.ok());
  EXPECT_EQ(load_identity(folder_ / "id").status().code(), Code::kNotFound);
  ASSERT_TRUE(save_identity(folder_ / "id", *gateway).ok());
  auto loaded = load_identity(folder_ / "id");
  ASSERT_TRUE(loaded.ok()) << loaded.status().message();
  EXPECT_EQ(loaded->name, "gateway");
  EXPECT_EQ(loaded->key_pem, gateway->key_pem);
  EXPECT_EQ(fs::status(folder_ / "id/key.pem").permissions(), fs::perms::owner_read | fs::perms::owner_write);
  auto other = make_key_and_request("gateway");
  ASSERT_TRUE(write_file_atomic(folder_ / "id/key.pem", other->key_pem).ok());
  EXPECT_EQ(load_identity(folder_ / "id").status().code(), Code::kCorrupt);
}

TEST_F(Certificates, BadRequestsAndNamesAreRefused) {
  auto authority = CertificateAuthority::open(folder_, kNow);
  ASSERT_TRUE(authority.ok());
  auto made = make_key_and_request("alpha");
  EXPECT_EQ(authority->issue("nonsense", "alpha", kNow).status().code(), Code::kInvalidArgument);
  for (const char* name : {"", "-a", "a-", "Alpha", "a.b", "gateway.tessera", "a b", "a,DNS:gateway.tessera"})
    EXPECT_EQ(authority->issue(made->csr_pem, name, kNow).status().code(), Code::kInvalidArgument) << name;
  KeyPtr rsa(EVP_RSA_gen(2048));
  BioPtr pem(BIO_new(BIO_s_mem()));
  PEM_write_bio_PrivateKey(pem.get(), rsa.get(), nullptr, nullptr, 0, nullptr, nullptr);
  auto request = make_request("alpha", bio_text(pem.get()));
  ASSERT_TRUE(request.ok());
  EXPECT_THAT(authority->issue(*request, "alpha", kNow).status().message(), HasSubstr("P-256"));
  // Somebody else's key put into a signed request.
  BioPtr in = memory_bio(made->csr_pem);
  RequestPtr stolen(PEM_read_bio_X509_REQ(in.get(), nullptr, nullptr, nullptr));
  KeyPtr other(EVP_EC_gen("prime256v1"));
  X509_REQ_set_pubkey(stolen.get(), other.get());
  BioPtr out(BIO_new(BIO_s_mem()));
  PEM_write_bio_X509_REQ(out.get(), stolen.get());
  EXPECT_THAT(authority->issue(bio_text(out.get()), "alpha", kNow).status().message(),
              HasSubstr("its own key"));
}

TEST(JoinToken, ComesBackFromItsText) {
  Digest ca{};
  ca[0] = 7;
  ca[31] = 9;
  auto token = JoinToken::make(kNow + 60, ca);
  ASSERT_TRUE(token.ok());
  const std::string text = token->text();
  EXPECT_EQ(text.find_first_not_of("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"),
            std::string::npos);
  auto back = JoinToken::parse(text, kNow);
  ASSERT_TRUE(back.ok()) << back.status().message();
  EXPECT_EQ(back->secret, token->secret);
  EXPECT_EQ(back->ca_sha256, ca);
  EXPECT_EQ(back->expires_unix_s, kNow + 60);
  EXPECT_NE(JoinToken::make(kNow, ca)->secret, token->secret);
  auto url = parse_join_url("tessera://gw:7800,10.0.0.1:7800/" + text, kNow);
  ASSERT_TRUE(url.ok()) << url.status().message();
  EXPECT_EQ(url->addresses, "gw:7800,10.0.0.1:7800");
}

TEST(JoinToken, SaysWhatIsWrong) {
  auto token = JoinToken::make(kNow, {});
  const std::string text = token->text();
  auto expired = JoinToken::parse(text, kNow);
  EXPECT_EQ(expired.status().code(), Code::kPermissionDenied);
  EXPECT_THAT(expired.status().message(), HasSubstr("expired at 2027-01-15"));
  for (size_t length = 0; length < text.size(); ++length)
    EXPECT_EQ(JoinToken::parse(text.substr(0, length), 0).status().code(), Code::kInvalidArgument);
  for (size_t i = 0; i < text.size(); ++i) {
    std::string typo = text;
    typo[i] = typo[i] == 'A' ? 'B' : 'A';
    EXPECT_EQ(JoinToken::parse(typo, 0).status().code(), Code::kInvalidArgument) << i;
  }
  EXPECT_FALSE(JoinToken::parse(text + "\n", 0).ok());
  EXPECT_FALSE(parse_join_url("http://gw:1/" + text, 0).ok());
  EXPECT_FALSE(parse_join_url("tessera://gw:1", 0).ok());
  EXPECT_FALSE(parse_join_url("tessera://gw/" + text, 0).ok());
}

TEST(Addresses, GetAPortWhereTheyHaveNone) {
  EXPECT_EQ(with_default_port("a,b:1,[::1],[::1]:2", 7), "a:7,b:1,[::1]:7,[::1]:2");
  EXPECT_EQ(with_default_port("a", 7), "a:7");
  EXPECT_FALSE(parse_addresses(with_default_port("a,,b", 7)).ok());
}

TEST(Addresses, ParseAndRememberWhatWorked) {
  auto list = parse_addresses("a.example:1,[::1]:65535,10.0.0.1:80");
  ASSERT_TRUE(list.ok());
  EXPECT_EQ((*list)[1].host, "::1");
  EXPECT_EQ((*list)[1].text(), "[::1]:65535");
  AddressBook book(*list);
  book.worked((*list)[2]);
  EXPECT_EQ(book.in_order(), (std::vector<Address>{(*list)[2], (*list)[0], (*list)[1]}));
  for (const char* bad :
       {"", "a", "a:", ":1", "a:0", "a:65536", "a:1,", "a:1x", "::1:1", "a b:1", "a/b:1", "[]:1"})
    EXPECT_FALSE(parse_addresses(bad).ok()) << bad;
}

}  // namespace
}  // namespace tessera::wire
