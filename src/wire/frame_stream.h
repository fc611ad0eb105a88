// One end of a bidirectional stream of bundles over gRPC's callback API: what both ends share. At most one
// write is under way; what is pushed meanwhile leaves together with the next. For this folder's .cc files.
#pragma once

#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/client_callback.h>
#include <grpcpp/support/server_callback.h>

#include <memory>
#include <string>
#include <vector>

#include "base/mutex.h"
#include "obs/log.h"
#include "wire/channel.h"
#include "wire/codec.h"
#include "wire/send_queue.h"

namespace tessera::wire {

enum class Push { kQueued, kFull, kClosed, kTooLarge };

// Hands each frame of a received message to `on_frame`. A frame of a kind that this build does not know is
// passed over: a newer peer may send it.
template <typename OnFrame>
Status deliver_bundle(const grpc::ByteBuffer& buffer, OnFrame on_frame) {
  grpc::Slice slice;
  if (!buffer.TrySingleSlice(&slice).ok() && !buffer.DumpToSingleSlice(&slice).ok())
    return internal_error("a received message cannot be read");
  TESSERA_ASSIGN_OR_RETURN(auto frames, split_bundle({slice.begin(), slice.size()}));
  for (auto bytes : frames) {
    auto frame = decode(bytes);
    if (frame.ok()) {
      TESSERA_RETURN_IF_ERROR(on_frame(*std::move(frame)));
    } else if (frame.status().code() == Code::kUnsupported) {
      obs::log_debug("wire", "frame passed over", {{"reason", frame.status().message()}});
    } else {
      return frame.status();
    }
  }
  return {};
}

// Reactor: grpc::ServerBidiReactor or ClientBidiReactor of ByteBuffers. The derived class reads.
template <typename Reactor>
class FrameStream : public Reactor {
 public:
  explicit FrameStream(const LinkOptions& options) : queue_(options.max_queue_bytes) {}

  // Thread-safe; never waits.
  Push push(std::string frame) {
    if (frame.size() + 16 > kMaxBundleBytes) return Push::kTooLarge;
    MutexLock lock(mutex_);
    if (closed_) return Push::kClosed;
    if (!queue_.push(std::move(frame))) return Push::kFull;
    if (!writing_) start_write();
    return Push::kQueued;
  }

  void OnWriteDone(bool ok) override {
    bool drained = false;
    {
      MutexLock lock(mutex_);
      writing_ = false;
      if (!ok) closed_ = true;
      if (!closed_ && !queue_.empty()) start_write();
      drained = !writing_;
    }
    if (drained) on_idle();
  }

  // Frames that were never given to the connection. After close_queue() or the end of the stream.
  std::vector<std::string> unsent() {
    MutexLock lock(mutex_);
    return queue_.drain();
  }

 protected:
  // No write is under way; called after a write has ended, without the lock.
  virtual void on_idle() = 0;

  // From here on push() refuses. True for the first caller.
  bool close_queue() {
    MutexLock lock(mutex_);
    const bool first = !closed_;
    closed_ = true;
    return first;
  }
  bool writing() {
    MutexLock lock(mutex_);
    return writing_;
  }
  void start_reading() { this->StartRead(&received_); }
  const grpc::ByteBuffer& received() const { return received_; }

 private:
  void start_write() TESSERA_REQUIRES(mutex_) {
    writing_ = true;
    sending_ = queue_.take();
    this->StartWrite(&sending_);  // its completion comes on another thread, or after this one's callback
  }

  Mutex mutex_;
  SendQueue queue_ TESSERA_GUARDED_BY(mutex_);
  bool writing_ TESSERA_GUARDED_BY(mutex_) = false;
  bool closed_ TESSERA_GUARDED_BY(mutex_) = false;
  grpc::ByteBuffer sending_;   // belongs to the write under way
  grpc::ByteBuffer received_;  // belongs to the read under way, then to OnReadDone
};

}  // namespace tessera::wire
