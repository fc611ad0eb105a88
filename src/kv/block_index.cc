#include "kv/block_index.h"

#include <bit>
#include <cstring>

#include "base/rng.h"
#include "base/status.h"

namespace tessera::kv {

BlockIndex::BlockIndex(int32_t pages)
    : slots_(std::bit_ceil(static_cast<size_t>(pages) * 2 + 2)),
      digests_(static_cast<size_t>(pages)),
      mask_(slots_.size() - 1),
      multiplier_(system_entropy() | 1) {}

// Multiply-shift hashing (Dietzfelbinger et al. 1997) of eight bytes that SHA-256 has mixed already.
uint32_t BlockIndex::place_of(const Digest& digest) const {
  uint64_t value;
  std::memcpy(&value, digest.data(), sizeof value);
  return static_cast<uint32_t>((value * multiplier_) >> 32);
}

size_t BlockIndex::probe(const Digest& digest, uint32_t place) const {
  size_t slot = place & mask_;
  while (slots_[slot].page >= 0 &&
         (slots_[slot].place != place || digests_[static_cast<size_t>(slots_[slot].page)] != digest))
    slot = next(slot);
  return slot;
}

PageId BlockIndex::find(const Digest& digest) const {
  return slots_[probe(digest, place_of(digest))].page;
}

PageId BlockIndex::find_or_add(const Digest& digest, PageId page) {
  const uint32_t place = place_of(digest);
  Slot& slot = slots_[probe(digest, place)];
  if (slot.page >= 0) return slot.page;
  slot = {place, page};
  digests_[static_cast<size_t>(page)] = digest;
  ++size_;
  return -1;
}

bool BlockIndex::holds(PageId page) const {
  return find(digests_[static_cast<size_t>(page)]) == page;
}

void BlockIndex::erase(PageId page) {
  const Digest& digest = digests_[static_cast<size_t>(page)];
  size_t hole = probe(digest, place_of(digest));
  TESSERA_CHECK(slots_[hole].page == page, "a page left the index that was not in it");
  // An entry behind the hole moves into it unless its own place lies between the two.
  for (size_t slot = next(hole); slots_[slot].page >= 0; slot = next(slot)) {
    const size_t from_home = (slot - slots_[slot].place) & mask_;
    if (from_home < ((slot - hole) & mask_)) continue;
    slots_[hole] = slots_[slot];
    hole = slot;
  }
  slots_[hole] = {};
  --size_;
}

}  // namespace tessera::kv
