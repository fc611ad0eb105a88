#include "tensor/cpu/aligned_memory.h"

#include <sys/mman.h>

#include <cstdlib>
#include <cstring>
#include <string>

namespace tessera::tensor {

namespace {
constexpr uint64_t kMapFrom = 64 * 1024;
constexpr uint64_t kHugePage = 2 * 1024 * 1024;
}  // namespace

Result<AlignedMemory> AlignedMemory::allocate(uint64_t bytes) {
  AlignedMemory memory;
  const auto refused = [&] {
    return resource_exhausted("cannot allocate " + std::to_string(bytes) + " bytes of memory");
  };
  if (bytes == 0) return memory;
  if (bytes > (uint64_t{1} << 46)) return refused();
  if (bytes < kMapFrom) {
    void* p = std::aligned_alloc(64, (bytes + 63) / 64 * 64);
    if (p == nullptr) return refused();
    std::memset(p, 0, bytes);
    memory.data_ = static_cast<uint8_t*>(p);
  } else {
    void* p = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) return refused();
#if defined(MADV_HUGEPAGE)
    if (bytes >= 2 * kHugePage) (void)madvise(p, bytes, MADV_HUGEPAGE);  // only a hint
#endif
    memory.data_ = static_cast<uint8_t*>(p);
  }
  memory.bytes_ = bytes;
  return memory;
}

AlignedMemory::~AlignedMemory() {
  if (data_ == nullptr) return;
  if (bytes_ < kMapFrom) {
    std::free(data_);
  } else {
    munmap(data_, bytes_);
  }
}

}  // namespace tessera::tensor
