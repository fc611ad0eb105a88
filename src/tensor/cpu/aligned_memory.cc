#include "tensor/cpu/aligned_memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <string>

namespace tessera::tensor {

namespace {
constexpr uint64_t kMapFrom = 64 * 1024;
constexpr uint64_t kHugePage = 2 * 1024 * 1024;

// Fresh pages, starting at a multiple of `alignment` (0: any page), so that huge pages fit; nullptr: refused.
uint8_t* map_aligned(uint64_t bytes, uint64_t alignment) {
  void* mapped = mmap(nullptr, bytes + alignment, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) return nullptr;
  auto* p = static_cast<uint8_t*>(mapped);
  if (alignment == 0) return p;
  const uint64_t page = static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
  const uint64_t skipped = (alignment - reinterpret_cast<uintptr_t>(p) % alignment) % alignment;
  const uint64_t used = (skipped + bytes + page - 1) / page * page;
  const uint64_t mapped_end = (bytes + alignment + page - 1) / page * page;
  if (skipped > 0) munmap(p, skipped);
  if (mapped_end > used) munmap(p + used, mapped_end - used);
#if defined(MADV_HUGEPAGE)
  (void)madvise(p + skipped, bytes, MADV_HUGEPAGE);  // only a hint
#endif
  return p + skipped;
}

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
    uint8_t* p = map_aligned(bytes, bytes >= kHugePage ? kHugePage : 0);
    if (p == nullptr) return refused();
    memory.data_ = p;
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
