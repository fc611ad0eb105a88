// The dialling end of a stream. For this folder's .cc files.
#pragma once

#include <grpcpp/client_context.h>
#include <grpcpp/generic/generic_stub.h>

#include <functional>
#include <memory>
#include <string>

#include "wire/frame_stream.h"

namespace tessera::wire {

// Keeps itself alive until gRPC is done with it.
class ClientStream final : public FrameStream<grpc::ClientBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>>,
                           public std::enable_shared_from_this<ClientStream> {
 public:
  struct Callbacks {
    // One after another, on gRPC's threads; an error ends the stream with it.
    std::function<Status(Frame)> on_frame;
    // Once, after the last frame. The receiver lets go of the stream on a thread of its own: gRPC 1.51 must
    // not see the process's last channel die on one of its callback threads, which it then joins.
    std::function<void(const Status&, std::shared_ptr<ClientStream>)> on_end;
  };

  // Dials and sends `first`.
  static std::shared_ptr<ClientStream> start(std::shared_ptr<grpc::Channel> channel,
                                             const std::string& method, std::string first,
                                             const LinkOptions& options, Callbacks callbacks);
  ClientStream(std::shared_ptr<grpc::Channel> channel, const LinkOptions& options, Callbacks callbacks)
      : FrameStream(options), channel_(std::move(channel)), callbacks_(std::move(callbacks)) {}

  // Breaks the stream off; on_end hears this reason. Thread-safe; the first call counts.
  void cancel(const Status& reason);

  void OnReadDone(bool ok) override;
  void OnDone(const grpc::Status& status) override;

 private:
  void on_idle() override {}

  const std::shared_ptr<grpc::Channel> channel_;
  Callbacks callbacks_;
  grpc::ClientContext context_;
  Mutex reason_mutex_;
  Status reason_ TESSERA_GUARDED_BY(reason_mutex_);
  std::shared_ptr<ClientStream> self_;
};

}  // namespace tessera::wire
