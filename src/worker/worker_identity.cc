#include "worker/worker_identity.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "base/clock.h"
#include "core/identity_name.h"
#include "obs/log.h"
#include "wire/control_client.h"

namespace tessera::worker {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kLongestWait = 3600;  // seconds: a machine that slept notices soon

int64_t unix_seconds() {
  return SystemClock().unix_time_ms() / 1000;
}

}  // namespace

std::string host_name() {
  char name[256] = "";
  ::gethostname(name, sizeof name - 1);
  return make_identity_name(name);
}

Result<IdentityFolder> IdentityFolder::take(const fs::path& root, const std::string& name) {
  for (int number = 1; number < 1000; ++number) {
    const fs::path path = root / (number == 1 ? name : name + "-" + std::to_string(number));
    std::error_code error;
    fs::create_directories(path, error);
    if (error) return io_error(path.string(), error.value());
    const int lock = ::open((path / "lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (lock < 0) return io_error((path / "lock").string(), errno);
    IdentityFolder folder(path, lock);
    if (::flock(lock, LOCK_EX | LOCK_NB) == 0) return folder;
  }
  return resource_exhausted("too many workers run on this machine");
}

IdentityFolder::IdentityFolder(IdentityFolder&& other) noexcept
    : path_(std::move(other.path_)), lock_(std::exchange(other.lock_, -1)) {}

IdentityFolder::~IdentityFolder() {
  if (lock_ >= 0) ::close(lock_);
}

Result<wire::Identity> find_identity(const std::string& join_url, const fs::path& folder,
                                     const std::string& wanted_name) {
  TESSERA_ASSIGN_OR_RETURN(wire::JoinUrl url, wire::parse_join_url(join_url, 0));
  if (auto known = wire::load_identity(folder); known.ok()) {
    auto ca = wire::certificate_sha256(known->ca_pem);
    auto info = wire::certificate_info(known->chain_pem);
    if (ca.ok() && *ca == url.token.ca_sha256 && info.ok()) {
      if (info->should_renew(unix_seconds())) {
        auto renewed = wire::renew(url.addresses, *known);
        if (renewed.ok()) {
          TESSERA_RETURN_IF_ERROR(wire::save_identity(folder, *renewed));
          return renewed;
        }
        obs::log_warn("worker", "the certificate could not be renewed",
                      {{"why", renewed.status().message()}});
      }
      if (info->not_after_unix_s > unix_seconds()) return known;
    }
  }
  TESSERA_RETURN_IF_ERROR(wire::parse_join_url(join_url, unix_seconds()).status());  // expired?
  TESSERA_ASSIGN_OR_RETURN(wire::Identity identity, wire::join(url, wanted_name));
  TESSERA_RETURN_IF_ERROR(wire::save_identity(folder, identity));
  return identity;
}

Result<StartIdentity> start_identity(const std::string& join_url, const fs::path& home,
                                     const std::string& name) {
  const std::string wanted = name.empty() ? host_name() : name;
  TESSERA_RETURN_IF_ERROR(check_identity_name(wanted).with_context("--name"));
  TESSERA_ASSIGN_OR_RETURN(wire::JoinUrl url, wire::parse_join_url(join_url, 0));
  TESSERA_ASSIGN_OR_RETURN(IdentityFolder folder, IdentityFolder::take(home / "tls" / "workers", wanted));
  TESSERA_ASSIGN_OR_RETURN(wire::Identity identity, find_identity(join_url, folder.path(), wanted));
  return StartIdentity{std::move(folder), std::move(identity), std::move(url.addresses)};
}

IdentityRenewal::IdentityRenewal(fs::path folder, std::string gateway_addresses, wire::LiveIdentity identity)
    : folder_(std::move(folder)),
      gateway_addresses_(std::move(gateway_addresses)),
      identity_(std::move(identity)),
      executor_(make_thread_executor("renewal")) {
  executor_->post([this] { check(); });
}

IdentityRenewal::~IdentityRenewal() {
  executor_->stop();
}

void IdentityRenewal::check() {
  const auto current = identity_.get();
  const auto info = wire::certificate_info(current->chain_pem);
  if (!info.ok()) return;  // find_identity() has read it before
  int64_t wait = info->renew_unix_s() - unix_seconds();
  if (wait <= 0) {
    Result<wire::Identity> renewed = wire::renew(gateway_addresses_, *current);
    Status status = renewed.status();
    if (status.ok()) status = wire::save_identity(folder_, *renewed);
    if (status.ok()) status = identity_.replace(*renewed);
    if (status.ok()) {
      obs::log_info("worker", "the certificate is renewed");
      wait = 1;  // looks when the new one is due
    } else {
      obs::log_warn("worker", "the certificate could not be renewed", {{"why", status.message()}});
      wait = (info->not_after_unix_s - info->renew_unix_s()) / 20;
    }
  }
  executor_->post_after(std::chrono::seconds(std::clamp<int64_t>(wait, 1, kLongestWait)),
                        [this] { check(); });
}

}  // namespace tessera::worker
