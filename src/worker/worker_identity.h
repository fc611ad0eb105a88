// Whom a worker process is: the identity that it keeps between runs, and how its certificate stays fresh.
#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include "base/executor.h"
#include "wire/live_identity.h"

namespace tessera::worker {

// A valid worker name after this machine's.
std::string host_name();

// A folder for an identity that no other process of this machine uses, as long as it lives.
class IdentityFolder {
 public:
  // ROOT/NAME, or ROOT/NAME-2 and so on where other processes run.
  static Result<IdentityFolder> take(const std::filesystem::path& root, const std::string& name);
  IdentityFolder(IdentityFolder&& other) noexcept;
  ~IdentityFolder();
  const std::filesystem::path& path() const { return path_; }

 private:
  IdentityFolder(std::filesystem::path path, int lock) : path_(std::move(path)), lock_(lock) {}
  std::filesystem::path path_;
  int lock_;
};

// The identity of an earlier run if it belongs to this cluster (renewed if that is due), else a new one by
// the invitation `join_url`. PermissionDenied: the gateway refuses it. Waits for the gateway.
Result<wire::Identity> find_identity(const std::string& join_url, const std::filesystem::path& folder,
                                     const std::string& wanted_name);

// Both, for a worker process that starts.
struct StartIdentity {
  IdentityFolder folder;
  wire::Identity identity;
  std::string gateway_addresses;  // of the invitation
};
// `name` empty: this machine's. InvalidArgument: a name that no worker can have, or no invitation.
Result<StartIdentity> start_identity(const std::string& join_url, const std::filesystem::path& home,
                                     const std::string& name);

// Renews the certificate while the worker runs: two thirds into its life, then again until it works. New
// connections show the new one; those that are up stay.
class IdentityRenewal {
 public:
  IdentityRenewal(std::filesystem::path folder, std::string gateway_addresses, wire::LiveIdentity identity);
  ~IdentityRenewal();

 private:
  void check();

  const std::filesystem::path folder_;
  const std::string gateway_addresses_;
  const wire::LiveIdentity identity_;
  std::unique_ptr<Executor> executor_;  // thread "renewal"
};

}  // namespace tessera::worker
