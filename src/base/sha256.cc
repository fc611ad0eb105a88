#include "base/sha256.h"

#define OPENSSL_SUPPRESS_DEPRECATED  // for SHA256_Init and its two; see sha256()
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/sha.h>

#include "base/status.h"

namespace tessera {
namespace {
struct FreeContext {
  void operator()(EVP_MD_CTX* context) const { EVP_MD_CTX_free(context); }
};
using Context = std::unique_ptr<EVP_MD_CTX, FreeContext>;

Context start(const EVP_MD* algorithm) {
  Context context(EVP_MD_CTX_new());
  TESSERA_CHECK(context != nullptr && EVP_DigestInit_ex(context.get(), algorithm, nullptr) == 1,
                "digest init");
  return context;
}

// Looked up once: OpenSSL's search by name takes longer than the hash of a KV block.
const EVP_MD* sha256_algorithm() {
  static const EVP_MD* const algorithm = EVP_MD_fetch(nullptr, "SHA256", nullptr);
  TESSERA_CHECK(algorithm != nullptr, "OpenSSL has no SHA-256");
  return algorithm;
}
}  // namespace

struct Sha256::Impl {
  Context context;
};

Sha256::Sha256() : impl_(std::make_unique<Impl>(Impl{start(sha256_algorithm())})) {}
Sha256::~Sha256() = default;

void Sha256::update(std::span<const uint8_t> bytes) {
  TESSERA_CHECK(EVP_DigestUpdate(impl_->context.get(), bytes.data(), bytes.size()) == 1, "digest update");
}

Digest Sha256::finish() {
  Digest digest{};
  unsigned length = 0;
  TESSERA_CHECK(EVP_DigestFinal_ex(impl_->context.get(), digest.data(), &length) == 1 && length == 32,
                "digest end");
  return digest;
}

// OpenSSL's plain functions: for a short input (a KV block) EVP's bookkeeping takes longer than the hash.
Digest sha256(std::span<const uint8_t> bytes) {
  Digest digest{};
  SHA256_CTX context;
  TESSERA_CHECK(SHA256_Init(&context) == 1 && SHA256_Update(&context, bytes.data(), bytes.size()) == 1 &&
                    SHA256_Final(digest.data(), &context) == 1,
                "digest");
  return digest;
}

Digest hmac_sha256(std::span<const uint8_t> key, std::span<const uint8_t> message) {
  Digest digest{};
  unsigned length = 0;
  TESSERA_CHECK(HMAC(EVP_sha256(), key.data(), static_cast<int>(key.size()), message.data(), message.size(),
                     digest.data(), &length) != nullptr,
                "hmac");
  return digest;
}

std::string git_blob_id(std::span<const uint8_t> contents) {
  Context context = start(EVP_sha1());
  const std::string header = "blob " + std::to_string(contents.size());
  EVP_DigestUpdate(context.get(), header.c_str(), header.size() + 1);
  EVP_DigestUpdate(context.get(), contents.data(), contents.size());
  uint8_t digest[EVP_MAX_MD_SIZE];
  unsigned length = 0;
  TESSERA_CHECK(EVP_DigestFinal_ex(context.get(), digest, &length) == 1, "digest end");
  return to_hex({digest, length});
}

std::string to_hex(std::span<const uint8_t> bytes) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  text.reserve(bytes.size() * 2);
  for (uint8_t byte : bytes) {
    text.push_back(kDigits[byte >> 4]);
    text.push_back(kDigits[byte & 15]);
  }
  return text;
}

}  // namespace tessera
