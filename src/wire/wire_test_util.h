// A cluster's authority and identities in a folder of the test's own, and waiting without sleeping too long.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <ctime>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <thread>

#include "wire/certificates.h"
#include "wire/link_options.h"

namespace tessera::wire {

inline bool eventually(const std::function<bool()>& condition,
                       std::chrono::seconds limit = std::chrono::seconds(20)) {
  const auto end = std::chrono::steady_clock::now() + limit;
  while (!condition()) {
    if (std::chrono::steady_clock::now() > end) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  return true;
}

// Short waits, so that tests of failures are quick.
inline LinkOptions quick_options() {
  LinkOptions options;
  options.first_backoff = std::chrono::milliseconds(20);
  options.longest_backoff = std::chrono::milliseconds(100);
  return options;
}

class WireTest : public ::testing::Test {
 protected:
  WireTest() {
    static std::atomic<int> next{0};
    folder_ = std::filesystem::temp_directory_path() /
              ("tessera-wire-" + std::to_string(getpid()) + "-" + std::to_string(next++));
    auto authority = CertificateAuthority::open(folder_ / "ca", std::time(nullptr));
    EXPECT_TRUE(authority.ok()) << authority.status().message();
    authority_ = std::make_unique<CertificateAuthority>(*std::move(authority));
    gateway_ = *authority_->make_gateway_identity("gateway", std::time(nullptr));
  }
  ~WireTest() override { std::filesystem::remove_all(folder_); }

  Identity identity(const std::string& name) { return identity_from(*authority_, name, std::time(nullptr)); }
  static Identity identity_from(const CertificateAuthority& authority, const std::string& name, int64_t now) {
    auto made = make_key_and_request(name);
    EXPECT_TRUE(made.ok());
    auto chain = authority.issue(made->csr_pem, name, now);
    EXPECT_TRUE(chain.ok()) << chain.status().message();
    return {name, made->key_pem, *chain, authority.certificate_pem()};
  }

  std::filesystem::path folder_;
  std::unique_ptr<CertificateAuthority> authority_;
  Identity gateway_;
};

}  // namespace tessera::wire
