// The Files service of a gateway or a worker. For this folder's .cc files.
#pragma once

#include <tessera/v1/services.grpc.pb.h>

#include <atomic>

#include "wire/blocking_pool.h"
#include "wire/files.h"

namespace tessera::wire {

// Only for peers with a certificate of the cluster.
class FilesService final : public tessera::v1::Files::CallbackService {
 public:
  FilesService(FileHandler& handler, BlockingPool& pool) : handler_(handler), pool_(pool) {}

  grpc::ServerWriteReactor<tessera::v1::FileChunk>* ReadModelFile(
      grpc::CallbackServerContext* context, const tessera::v1::ReadModelFileRequest* request) override;
  grpc::ServerUnaryReactor* GetManifest(grpc::CallbackServerContext* context,
                                        const tessera::v1::GetManifestRequest* request,
                                        tessera::v1::Manifest* response) override;

 private:
  FileHandler& handler_;
  BlockingPool& pool_;
  std::atomic<int> transfers_{0};
};

}  // namespace tessera::wire
