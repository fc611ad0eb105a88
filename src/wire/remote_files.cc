#include <tessera/v1/services.grpc.pb.h>

#include <thread>

#include "base/mutex.h"
#include "wire/channel.h"
#include "wire/files.h"

namespace tessera::wire {
namespace {

namespace pb = tessera::v1;
using std::chrono::milliseconds;

// Ends a call when nothing has arrived for a while: a deadline would count from its beginning.
class StallGuard {
 public:
  StallGuard(grpc::ClientContext& context, milliseconds stall)
      : context_(context), stall_(stall), thread_([this] { watch(); }) {}
  ~StallGuard() {
    {
      MutexLock lock(mutex_);
      over_ = true;
      wake_.notify_all();
    }
    thread_.join();
  }
  void progress() {
    MutexLock lock(mutex_);
    last_ = std::chrono::steady_clock::now();
  }
  bool stalled() {
    MutexLock lock(mutex_);
    return stalled_;
  }

 private:
  void watch() {
    MutexLock lock(mutex_);
    while (!over_ && !stalled_) {
      if (std::chrono::steady_clock::now() < last_ + stall_) {
        wake_.wait_until(mutex_, last_ + stall_);
        continue;
      }
      stalled_ = true;
      context_.TryCancel();
    }
  }
  grpc::ClientContext& context_;
  const milliseconds stall_;
  Mutex mutex_;
  CondVar wake_;
  std::chrono::steady_clock::time_point last_ TESSERA_GUARDED_BY(mutex_) = std::chrono::steady_clock::now();
  bool over_ TESSERA_GUARDED_BY(mutex_) = false;
  bool stalled_ TESSERA_GUARDED_BY(mutex_) = false;
  std::thread thread_;  // last: it uses the others
};

class RemoteFilesImpl final : public RemoteFiles {
 public:
  RemoteFilesImpl(std::vector<Address> addresses, LiveIdentity identity, std::string expected_name,
                  const LinkOptions& options)
      : book_(std::move(addresses)),
        identity_(std::move(identity)),
        expected_name_(std::move(expected_name)),
        options_(options) {}

  Status read(const std::string& model, const std::string& file, uint64_t offset, uint64_t length,
              const Sink& sink, milliseconds stall) override {
    TESSERA_ASSIGN_OR_RETURN(auto stub, connect());
    pb::ReadModelFileRequest request;
    request.set_model(model);
    request.set_file(file);
    request.set_offset(offset);
    request.set_length(length);
    grpc::ClientContext context;
    StallGuard guard(context, stall);
    auto reader = stub->ReadModelFile(&context, request);
    pb::FileChunk chunk;
    uint64_t received = 0;
    Status status;
    while (status.ok() && reader->Read(&chunk)) {
      guard.progress();
      received += chunk.data().size();
      status = received <= length ? sink(chunk.data()) : corrupt("the peer sent more than was asked for");
    }
    if (!status.ok()) context.TryCancel();
    const grpc::Status end = reader->Finish();
    if (!status.ok()) return status;
    if (guard.stalled())
      return deadline_exceeded("the peer sent nothing for " + std::to_string(stall.count()) + " ms");
    if (!end.ok()) return lost(from_grpc(end));
    return received == length ? Status() : corrupt("the peer sent less than was asked for");
  }

  Result<std::string> manifest(const std::string& model, milliseconds deadline) override {
    TESSERA_ASSIGN_OR_RETURN(auto stub, connect());
    pb::GetManifestRequest request;
    request.set_model(model);
    pb::Manifest manifest;
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + deadline);
    const grpc::Status end = stub->GetManifest(&context, request, &manifest);
    if (!end.ok()) return lost(from_grpc(end));
    return std::move(*manifest.mutable_json());
  }

 private:
  // The connection that is up, or the first address that answers.
  Result<std::shared_ptr<pb::Files::Stub>> connect() {
    MutexLock lock(mutex_);
    if (stub_ != nullptr) return stub_;
    const auto identity = identity_.get();
    for (const Address& address : book_.in_order()) {
      auto channel = make_channel(address, identity->ca_pem, identity.get(), expected_name_, options_);
      if (!channel->WaitForConnected(std::chrono::system_clock::now() + options_.connect_timeout)) continue;
      book_.worked(address);
      stub_ = pb::Files::NewStub(channel);
      return stub_;
    }
    return unavailable("no address of " + expected_name_ + " answers");
  }
  Status lost(Status status) {
    if (status.code() != Code::kUnavailable) return status;
    MutexLock lock(mutex_);
    stub_ = nullptr;
    return status;
  }

  AddressBook book_;
  const LiveIdentity identity_;
  const std::string expected_name_;
  const LinkOptions options_;
  Mutex mutex_;
  std::shared_ptr<pb::Files::Stub> stub_ TESSERA_GUARDED_BY(mutex_);
};

}  // namespace

Result<std::unique_ptr<RemoteFiles>> RemoteFiles::open(std::string_view addresses,
                                                       const LiveIdentity& identity,
                                                       const std::string& expected_name,
                                                       const LinkOptions& options, RelayClient* relay) {
  TESSERA_ASSIGN_OR_RETURN(auto list, addresses_to_dial(addresses, relay));
  return std::unique_ptr<RemoteFiles>(
      std::make_unique<RemoteFilesImpl>(std::move(list), identity, expected_name, options));
}

}  // namespace tessera::wire
