#include "wire/files_service.h"

#include "wire/channel.h"
#include "wire/codec.h"

namespace tessera::wire {
namespace {

namespace pb = tessera::v1;

constexpr int kMaxTransfers = 64;

// One transfer: read a chunk on the pool, write it, and so on. Deletes itself when gRPC is done with it.
class FileTransfer final : public grpc::ServerWriteReactor<pb::FileChunk> {
 public:
  FileTransfer(FileHandler& handler, BlockingPool& pool, std::atomic<int>& transfers, std::string peer,
               const pb::ReadModelFileRequest& request)
      : handler_(handler), pool_(pool), transfers_(transfers), peer_(std::move(peer)), request_(request) {}

  // Counts itself among the transfers.
  void begin() {
    if (++transfers_ > kMaxTransfers)
      Finish(to_grpc(resource_exhausted("too many file transfers at once: try again later")));
    else if (peer_.empty())
      Finish(to_grpc({Code::kPermissionDenied, "files are for members of the cluster only"}));
    else if (request_.model().size() > kMaxName || request_.file().size() > kMaxText ||
             request_.offset() > UINT64_MAX - request_.length())
      Finish(to_grpc(invalid_argument("no such range of a file")));
    else
      next();
  }
  void OnWriteDone(bool ok) override {
    if (ok)
      next();
    else
      Finish(to_grpc(cancelled("the reader is gone")));
  }
  void OnDone() override {
    --transfers_;
    delete this;
  }

 private:
  void next() {
    pool_.run([this] { send_chunk(); });
  }
  void send_chunk() {
    const uint64_t length = std::min(kFileChunkBytes, request_.length() - sent_);
    if (length == 0) {
      Finish(grpc::Status::OK);
      return;
    }
    auto bytes =
        handler_.read_file(peer_, request_.model(), request_.file(), request_.offset() + sent_, length);
    if (bytes.ok() && bytes->size() != length) bytes = internal_error("the file ended early");
    if (!bytes.ok()) {
      Finish(to_grpc(bytes.status()));
      return;
    }
    sent_ += length;
    chunk_.set_data(*std::move(bytes));
    StartWrite(&chunk_);
  }

  FileHandler& handler_;
  BlockingPool& pool_;
  std::atomic<int>& transfers_;
  const std::string peer_;
  const pb::ReadModelFileRequest request_;
  pb::FileChunk chunk_;  // belongs to the write under way
  uint64_t sent_ = 0;
};

}  // namespace

grpc::ServerWriteReactor<pb::FileChunk>* FilesService::ReadModelFile(
    grpc::CallbackServerContext* context, const pb::ReadModelFileRequest* request) {
  auto* transfer = new FileTransfer(handler_, pool_, transfers_, peer_name(*context), *request);
  transfer->begin();
  return transfer;
}

grpc::ServerUnaryReactor* FilesService::GetManifest(grpc::CallbackServerContext* context,
                                                    const pb::GetManifestRequest* request,
                                                    pb::Manifest* response) {
  auto* reactor = context->DefaultReactor();
  std::string peer = peer_name(*context);
  if (peer.empty() || request->model().size() > kMaxName) {
    reactor->Finish(to_grpc({Code::kPermissionDenied, "manifests are for members of the cluster only"}));
    return reactor;
  }
  pool_.run([this, reactor, request, response, peer = std::move(peer)] {
    auto manifest = handler_.manifest(peer, request->model());
    if (manifest.ok()) response->set_json(*std::move(manifest));
    reactor->Finish(to_grpc(manifest.status()));
  });
  return reactor;
}

}  // namespace tessera::wire
