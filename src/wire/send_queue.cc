#include "wire/send_queue.h"

#include "wire/codec.h"

namespace tessera::wire {
namespace {

constexpr uint64_t kBundleTarget = 1 << 20;
constexpr size_t kCopyBelow = 4096;  // small frames share one slice

// The slice owns the string.
grpc::Slice slice_of(std::string bytes) {
  auto* owned = new std::string(std::move(bytes));
  return grpc::Slice(
      owned->data(), owned->size(), [](void* string) { delete static_cast<std::string*>(string); }, owned);
}

}  // namespace

bool SendQueue::push(std::string frame) {
  if (!frames_.empty() && bytes_ + frame.size() > max_bytes_) return false;
  bytes_ += frame.size();
  frames_.push_back(std::move(frame));
  return true;
}

grpc::ByteBuffer SendQueue::take() {
  std::vector<grpc::Slice> slices;
  std::string small;
  uint64_t taken = 0;
  while (!frames_.empty() && (taken == 0 || taken + frames_.front().size() <= kBundleTarget)) {
    std::string frame = std::move(frames_.front());
    frames_.pop_front();
    taken += frame.size();
    small += bundle_prefix(frame.size());
    if (frame.size() < kCopyBelow) {
      small += frame;
      continue;
    }
    slices.push_back(slice_of(std::move(small)));
    small.clear();
    slices.push_back(slice_of(std::move(frame)));
  }
  if (!small.empty()) slices.push_back(slice_of(std::move(small)));
  bytes_ -= taken;
  return grpc::ByteBuffer(slices.data(), slices.size());
}

std::vector<std::string> SendQueue::drain() {
  std::vector<std::string> all(std::make_move_iterator(frames_.begin()),
                               std::make_move_iterator(frames_.end()));
  frames_.clear();
  bytes_ = 0;
  return all;
}

}  // namespace tessera::wire
