#include "wire/certificates.h"

#include <openssl/core_names.h>
#include <openssl/rand.h>

#include <array>
#include <ctime>
#include <vector>

#include "base/files.h"
#include "core/identity_name.h"
#include "wire/openssl_handles.h"

namespace tessera::wire {
namespace {

constexpr int64_t kDay = 24 * 3600;
// Certificates begin earlier by it: workers' clocks differ. No more than half the life of a short one.
constexpr int64_t kClockSkew = 3600;
constexpr size_t kMaxPem = 64 << 10;
constexpr std::string_view kCurve = "prime256v1";

// Never asks on the terminal for a passphrase.
int no_passphrase(char*, int, int, void*) {
  return -1;
}

Result<KeyPtr> new_key() {
  KeyPtr key(EVP_EC_gen(std::string(kCurve).c_str()));
  if (key == nullptr) return openssl_error(Code::kInternal, "no key can be made");
  return key;
}

Result<std::string> key_to_pem(EVP_PKEY* key) {
  BioPtr out(BIO_new(BIO_s_mem()));
  if (PEM_write_bio_PrivateKey(out.get(), key, nullptr, nullptr, 0, nullptr, nullptr) != 1)
    return openssl_error(Code::kInternal, "the key cannot be written");
  return bio_text(out.get());
}

Result<KeyPtr> key_from_pem(const std::string& pem) {
  BioPtr in = memory_bio(pem);
  KeyPtr key(PEM_read_bio_PrivateKey(in.get(), nullptr, no_passphrase, nullptr));
  if (key == nullptr) return openssl_error(Code::kCorrupt, "not a private key in PEM form");
  return key;
}

Result<std::string> certificate_to_pem(X509* certificate) {
  BioPtr out(BIO_new(BIO_s_mem()));
  if (PEM_write_bio_X509(out.get(), certificate) != 1)
    return openssl_error(Code::kInternal, "the certificate cannot be written");
  return bio_text(out.get());
}

Result<CertificatePtr> certificate_from_pem(const std::string& pem) {
  if (pem.size() > kMaxPem) return corrupt("a certificate of more than 64 KiB");
  BioPtr in = memory_bio(pem);
  CertificatePtr certificate(PEM_read_bio_X509(in.get(), nullptr, no_passphrase, nullptr));
  if (certificate == nullptr) return openssl_error(Code::kCorrupt, "not a certificate in PEM form");
  return certificate;
}

bool is_p256(EVP_PKEY* key) {
  std::array<char, 64> group{};
  size_t length = 0;
  return EVP_PKEY_get_base_id(key) == EVP_PKEY_EC &&
         EVP_PKEY_get_utf8_string_param(key, OSSL_PKEY_PARAM_GROUP_NAME, group.data(), group.size(),
                                        &length) == 1 &&
         std::string_view(group.data(), length) == kCurve;
}

bool set_common_name(X509_NAME* name, std::string_view text) {
  return X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC,
                                    reinterpret_cast<const unsigned char*>(text.data()),
                                    static_cast<int>(text.size()), -1, 0) == 1;
}

bool add_extension(X509* certificate, X509* issuer, int nid, const std::string& value) {
  X509V3_CTX context;
  X509V3_set_ctx_nodb(&context);
  X509V3_set_ctx(&context, issuer, certificate, nullptr, nullptr, 0);
  std::unique_ptr<X509_EXTENSION, OpensslFree<X509_EXTENSION_free>> extension(
      X509V3_EXT_conf_nid(nullptr, &context, nid, value.c_str()));
  return extension != nullptr && X509_add_ext(certificate, extension.get(), -1) == 1;
}

bool set_random_serial(X509* certificate) {
  std::array<unsigned char, 16> bytes{};
  if (RAND_bytes(bytes.data(), static_cast<int>(bytes.size())) != 1) return false;
  bytes[0] &= 0x7f;
  std::unique_ptr<BIGNUM, OpensslFree<BN_free>> number(
      BN_bin2bn(bytes.data(), static_cast<int>(bytes.size()), nullptr));
  return number != nullptr && BN_to_ASN1_INTEGER(number.get(), X509_get_serialNumber(certificate)) != nullptr;
}

// Version 3, serial, validity, subject and key; extensions and signature are the caller's.
Result<CertificatePtr> new_certificate(std::string_view name, EVP_PKEY* key, int64_t now_unix_s,
                                       int64_t life_s) {
  CertificatePtr certificate(X509_new());
  X509* x = certificate.get();
  if (x == nullptr || X509_set_version(x, X509_VERSION_3) != 1 || !set_random_serial(x) ||
      ASN1_TIME_set(X509_getm_notBefore(x), now_unix_s - std::min(kClockSkew, life_s / 2)) == nullptr ||
      ASN1_TIME_set(X509_getm_notAfter(x), now_unix_s + life_s) == nullptr ||
      !set_common_name(X509_get_subject_name(x), name) || X509_set_pubkey(x, key) != 1)
    return openssl_error(Code::kInternal, "the certificate cannot be made");
  return certificate;
}

Result<CertificatePtr> new_authority(EVP_PKEY* key, int64_t now_unix_s, int64_t days) {
  TESSERA_ASSIGN_OR_RETURN(auto certificate,
                           new_certificate("Tessera cluster authority", key, now_unix_s, days * kDay));
  X509* x = certificate.get();
  if (X509_set_issuer_name(x, X509_get_subject_name(x)) != 1 ||
      !add_extension(x, x, NID_basic_constraints, "critical,CA:TRUE,pathlen:0") ||
      !add_extension(x, x, NID_key_usage, "critical,keyCertSign,cRLSign") ||
      !add_extension(x, x, NID_subject_key_identifier, "hash") || X509_sign(x, key, EVP_sha256()) == 0)
    return openssl_error(Code::kInternal, "the authority's certificate cannot be made");
  return certificate;
}

// A request that proves its key.
Result<RequestPtr> checked_request(const std::string& csr_pem) {
  if (csr_pem.size() > kMaxPem) return invalid_argument("a certificate request of more than 64 KiB");
  BioPtr in = memory_bio(csr_pem);
  RequestPtr request(PEM_read_bio_X509_REQ(in.get(), nullptr, no_passphrase, nullptr));
  if (request == nullptr)
    return openssl_error(Code::kInvalidArgument, "not a certificate request in PEM form");
  EVP_PKEY* key = X509_REQ_get0_pubkey(request.get());
  if (key == nullptr || !is_p256(key))
    return openssl_error(Code::kInvalidArgument, "the request's key is not of ECDSA P-256");
  if (X509_REQ_verify(request.get(), key) != 1)
    return openssl_error(Code::kInvalidArgument, "the request is not signed with its own key");
  return request;
}

int64_t unix_time(const ASN1_TIME* time) {
  std::tm parts{};
  return ASN1_TIME_to_tm(time, &parts) == 1 ? timegm(&parts) : 0;
}

Status write_secret(const std::filesystem::path& path, const std::string& contents) {
  TESSERA_RETURN_IF_ERROR(write_file_atomic(path, contents));
  std::error_code error;
  std::filesystem::permissions(path, std::filesystem::perms::owner_read | std::filesystem::perms::owner_write,
                               error);
  if (error) return io_error("cannot protect " + path.string(), error.value());
  return {};
}

// Secrets lie in a folder that others cannot enter, so that they are never readable on their way either.
Status make_private_folder(const std::filesystem::path& folder) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (!error) std::filesystem::permissions(folder, std::filesystem::perms::owner_all, error);
  if (error) return io_error("cannot make " + folder.string(), error.value());
  return {};
}

}  // namespace

Result<std::string> make_request(std::string_view name, const std::string& key_pem) {
  TESSERA_ASSIGN_OR_RETURN(auto key, key_from_pem(key_pem));
  RequestPtr request(X509_REQ_new());
  BioPtr out(BIO_new(BIO_s_mem()));
  if (request == nullptr || !set_common_name(X509_REQ_get_subject_name(request.get()), name) ||
      X509_REQ_set_pubkey(request.get(), key.get()) != 1 ||
      X509_REQ_sign(request.get(), key.get(), EVP_sha256()) == 0 ||
      PEM_write_bio_X509_REQ(out.get(), request.get()) != 1)
    return openssl_error(Code::kInternal, "the certificate request cannot be made");
  return bio_text(out.get());
}

Result<KeyAndRequest> make_key_and_request(std::string_view name) {
  TESSERA_ASSIGN_OR_RETURN(auto key, new_key());
  KeyAndRequest made;
  TESSERA_ASSIGN_OR_RETURN(made.key_pem, key_to_pem(key.get()));
  TESSERA_ASSIGN_OR_RETURN(made.csr_pem, make_request(name, made.key_pem));
  return made;
}

Result<CertificateInfo> certificate_info(const std::string& chain_pem) {
  TESSERA_ASSIGN_OR_RETURN(auto certificate, certificate_from_pem(chain_pem));
  CertificateInfo info;
  std::array<char, 256> name{};
  const int length = X509_NAME_get_text_by_NID(X509_get_subject_name(certificate.get()), NID_commonName,
                                               name.data(), static_cast<int>(name.size()));
  if (length > 0) info.name.assign(name.data(), static_cast<size_t>(length));
  info.not_before_unix_s = unix_time(X509_get0_notBefore(certificate.get()));
  info.not_after_unix_s = unix_time(X509_get0_notAfter(certificate.get()));
  return info;
}

Result<Digest> certificate_sha256(const std::string& certificate_pem) {
  TESSERA_ASSIGN_OR_RETURN(auto certificate, certificate_from_pem(certificate_pem));
  Digest digest{};
  unsigned length = 0;
  if (X509_digest(certificate.get(), EVP_sha256(), digest.data(), &length) != 1 || length != digest.size())
    return openssl_error(Code::kInternal, "the certificate cannot be hashed");
  return digest;
}

Status save_identity(const std::filesystem::path& folder, const Identity& identity) {
  TESSERA_RETURN_IF_ERROR(make_private_folder(folder));
  TESSERA_RETURN_IF_ERROR(write_secret(folder / "key.pem", identity.key_pem));
  TESSERA_RETURN_IF_ERROR(write_file_atomic(folder / "ca.pem", identity.ca_pem));
  return write_file_atomic(folder / "chain.pem", identity.chain_pem);
}

Result<Identity> load_identity(const std::filesystem::path& folder) {
  if (!std::filesystem::exists(folder / "chain.pem"))
    return not_found("no certificate in " + folder.string() + ": this process has not joined a cluster yet");
  Identity identity;
  TESSERA_ASSIGN_OR_RETURN(identity.key_pem, read_file(folder / "key.pem", kMaxPem));
  TESSERA_ASSIGN_OR_RETURN(identity.ca_pem, read_file(folder / "ca.pem", kMaxPem));
  TESSERA_ASSIGN_OR_RETURN(identity.chain_pem, read_file(folder / "chain.pem", kMaxPem));
  TESSERA_ASSIGN_OR_RETURN(auto info, certificate_info(identity.chain_pem));
  identity.name = info.name;
  if (Status status = check_identity(identity); !status.ok()) return status.with_context(folder.string());
  return identity;
}

Status check_identity(const Identity& identity) {
  TESSERA_ASSIGN_OR_RETURN(auto info, certificate_info(identity.chain_pem));
  TESSERA_ASSIGN_OR_RETURN(auto certificate, certificate_from_pem(identity.chain_pem));
  TESSERA_ASSIGN_OR_RETURN(auto authority, certificate_from_pem(identity.ca_pem));
  TESSERA_ASSIGN_OR_RETURN(auto key, key_from_pem(identity.key_pem));
  if (info.name != identity.name)
    return corrupt("the certificate is of '" + info.name + "', not of '" + identity.name + "'");
  if (X509_check_private_key(certificate.get(), key.get()) != 1)
    return openssl_error(Code::kCorrupt, "the key and the certificate do not belong together");
  if (X509_verify(certificate.get(), X509_get0_pubkey(authority.get())) != 1)
    return openssl_error(Code::kCorrupt, "the certificate is not signed by the cluster's authority");
  return {};
}

struct CertificateAuthority::Keys {
  KeyPtr key;
  CertificatePtr certificate;

  // Signs a certificate for `subject_key`; names.front() is the common name, all are DNS names.
  Result<std::string> sign(EVP_PKEY* subject_key, const std::vector<std::string>& names, int64_t now_unix_s,
                           std::chrono::seconds life) const {
    TESSERA_ASSIGN_OR_RETURN(auto made,
                             new_certificate(names.front(), subject_key, now_unix_s, life.count()));
    std::string alternatives;
    for (const auto& name : names) alternatives += (alternatives.empty() ? "DNS:" : ",DNS:") + name;
    X509* x = made.get();
    if (X509_set_issuer_name(x, X509_get_subject_name(certificate.get())) != 1 ||
        !add_extension(x, certificate.get(), NID_basic_constraints, "critical,CA:FALSE") ||
        !add_extension(x, certificate.get(), NID_key_usage, "critical,digitalSignature") ||
        !add_extension(x, certificate.get(), NID_ext_key_usage, "serverAuth,clientAuth") ||
        !add_extension(x, certificate.get(), NID_subject_alt_name, alternatives) ||
        !add_extension(x, certificate.get(), NID_authority_key_identifier, "keyid") ||
        X509_sign(x, key.get(), EVP_sha256()) == 0)
      return openssl_error(Code::kInternal, "the certificate cannot be signed");
    return certificate_to_pem(x);
  }
};

CertificateAuthority::CertificateAuthority() : keys_(std::make_unique<Keys>()) {}
CertificateAuthority::~CertificateAuthority() = default;
CertificateAuthority::CertificateAuthority(CertificateAuthority&&) noexcept = default;
CertificateAuthority& CertificateAuthority::operator=(CertificateAuthority&&) noexcept = default;

Result<CertificateAuthority> CertificateAuthority::open(const std::filesystem::path& folder,
                                                        const Options& options, int64_t now_unix_s) {
  const auto key_file = folder / "ca.key", certificate_file = folder / "ca.pem";
  const bool has_key = std::filesystem::exists(key_file),
             has_certificate = std::filesystem::exists(certificate_file);
  CertificateAuthority authority;
  authority.certificate_life_ = options.certificate_life;
  if (has_key && has_certificate) {
    TESSERA_ASSIGN_OR_RETURN(auto key_pem, read_file(key_file, kMaxPem));
    TESSERA_ASSIGN_OR_RETURN(authority.certificate_pem_, read_file(certificate_file, kMaxPem));
    TESSERA_ASSIGN_OR_RETURN(authority.keys_->key, key_from_pem(key_pem));
    TESSERA_ASSIGN_OR_RETURN(authority.keys_->certificate, certificate_from_pem(authority.certificate_pem_));
    if (X509_check_private_key(authority.keys_->certificate.get(), authority.keys_->key.get()) != 1)
      return openssl_error(Code::kCorrupt,
                           "ca.key and ca.pem in " + folder.string() + " do not belong together");
  } else if (has_certificate) {
    return corrupt("the cluster's authority in " + folder.string() +
                   " has lost ca.key: restore it from a backup");
  } else {
    // The key is written first and counts only with its certificate: a crash between the two makes another.
    TESSERA_RETURN_IF_ERROR(make_private_folder(folder));
    TESSERA_ASSIGN_OR_RETURN(authority.keys_->key, new_key());
    TESSERA_ASSIGN_OR_RETURN(auto key_pem, key_to_pem(authority.keys_->key.get()));
    TESSERA_ASSIGN_OR_RETURN(authority.keys_->certificate,
                             new_authority(authority.keys_->key.get(), now_unix_s, options.authority_days));
    TESSERA_ASSIGN_OR_RETURN(authority.certificate_pem_,
                             certificate_to_pem(authority.keys_->certificate.get()));
    TESSERA_RETURN_IF_ERROR(write_secret(key_file, key_pem));
    TESSERA_RETURN_IF_ERROR(write_file_atomic(certificate_file, authority.certificate_pem_));
  }
  TESSERA_ASSIGN_OR_RETURN(authority.sha256_, certificate_sha256(authority.certificate_pem_));
  return authority;
}

Result<std::string> CertificateAuthority::issue(const std::string& csr_pem, std::string_view worker,
                                                int64_t now_unix_s) const {
  TESSERA_RETURN_IF_ERROR(check_identity_name(worker));
  TESSERA_ASSIGN_OR_RETURN(RequestPtr request, checked_request(csr_pem));
  EVP_PKEY* key = X509_REQ_get0_pubkey(request.get());
  TESSERA_ASSIGN_OR_RETURN(auto pem, keys_->sign(key, {std::string(worker)}, now_unix_s, certificate_life_));
  return pem + certificate_pem_;
}

Result<std::string> CertificateAuthority::check_expired(const std::string& chain_pem,
                                                        const std::string& csr_pem,
                                                        int64_t now_unix_s) const {
  const auto denied = [](std::string why) { return Status(Code::kPermissionDenied, std::move(why)); };
  TESSERA_ASSIGN_OR_RETURN(RequestPtr request, checked_request(csr_pem));
  TESSERA_ASSIGN_OR_RETURN(CertificatePtr certificate, certificate_from_pem(chain_pem));
  TESSERA_ASSIGN_OR_RETURN(CertificateInfo info, certificate_info(chain_pem));
  const EVP_PKEY* key = X509_get0_pubkey(certificate.get());
  if (X509_verify(certificate.get(), X509_get0_pubkey(keys_->certificate.get())) != 1)
    return openssl_error(Code::kPermissionDenied, "the expired certificate is not of this cluster");
  if (key == nullptr || EVP_PKEY_eq(key, X509_REQ_get0_pubkey(request.get())) != 1)
    return denied("the request is not signed with the expired certificate's key");
  if (info.not_after_unix_s + kRenewalGrace.count() < now_unix_s)
    return denied("the certificate of " + info.name + " expired too long ago to renew: join again");
  TESSERA_RETURN_IF_ERROR(check_identity_name(info.name));
  return info.name;
}

Result<Identity> CertificateAuthority::make_gateway_identity(std::string_view name,
                                                             int64_t now_unix_s) const {
  TESSERA_RETURN_IF_ERROR(check_identity_name(name));
  Identity identity;
  identity.name = name;
  identity.ca_pem = certificate_pem_;
  TESSERA_ASSIGN_OR_RETURN(auto key, new_key());
  TESSERA_ASSIGN_OR_RETURN(identity.key_pem, key_to_pem(key.get()));
  TESSERA_ASSIGN_OR_RETURN(auto pem, keys_->sign(key.get(), {std::string(name), std::string(kGatewayDnsName)},
                                                 now_unix_s, certificate_life_));
  identity.chain_pem = pem + certificate_pem_;
  return identity;
}

}  // namespace tessera::wire
