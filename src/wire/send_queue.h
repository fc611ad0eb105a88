// Frames that wait for a stream to be writable: bounded in bytes, handed over several at a time. Not
// thread-safe: its stream's lock guards it. For this folder's .cc files.
#pragma once

#include <grpcpp/support/byte_buffer.h>

#include <deque>
#include <string>
#include <vector>

namespace tessera::wire {

class SendQueue {
 public:
  explicit SendQueue(uint64_t max_bytes) : max_bytes_(max_bytes) {}

  bool empty() const { return frames_.empty(); }
  // False: no room. A frame that finds the queue empty is always taken.
  bool push(std::string frame);
  // All that waits, up to about 1 MiB, as one bundle. The frames' bytes are moved, not copied.
  grpc::ByteBuffer take();
  std::vector<std::string> drain();

 private:
  const uint64_t max_bytes_;
  std::deque<std::string> frames_;
  uint64_t bytes_ = 0;
};

}  // namespace tessera::wire
