// The serving end of a stream. For this folder's .cc files.
#pragma once

#include <memory>
#include <string>

#include "wire/frame_stream.h"

namespace tessera::wire {

// Keeps itself alive until gRPC is done with it. The derived class is told of frames one after another, and
// of the end once, after the last frame.
class ServerStream : public FrameStream<grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>>,
                     public std::enable_shared_from_this<ServerStream> {
 public:
  ServerStream(grpc::CallbackServerContext* context, const LinkOptions& options)
      : FrameStream(options), context_(context) {}

  void begin() {
    self_ = shared_from_this();
    start_reading();
  }

  // Ends the stream with this status. What is queued is not sent; a write that the peer does not take is cut
  // off. Thread-safe; the first call counts.
  void end(const Status& status);
  // Sends `last` and what is queued, then ends. Cut off by abort() if the peer does not read.
  void end_after(std::string last, const Status& status);
  // Breaks the connection of a stream that is ending. Thread-safe.
  void abort();

  void OnReadDone(bool ok) final;
  void OnDone() final;

 protected:
  virtual Status on_frame(Frame frame) = 0;
  virtual void on_end(const Status& status) = 0;

 private:
  void on_idle() final;
  void finish_once() TESSERA_REQUIRES(end_mutex_);

  grpc::CallbackServerContext* const context_;
  Mutex end_mutex_;  // taken before the stream's own lock
  bool ending_ TESSERA_GUARDED_BY(end_mutex_) = false;
  bool finished_ TESSERA_GUARDED_BY(end_mutex_) = false;
  bool done_ TESSERA_GUARDED_BY(end_mutex_) = false;
  Status reason_ TESSERA_GUARDED_BY(end_mutex_);
  std::shared_ptr<ServerStream> self_;
};

}  // namespace tessera::wire
