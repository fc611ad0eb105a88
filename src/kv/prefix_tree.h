// PrefixTree: which full KV pages hold which prefix of tokens, so that a new sequence begins where an old one
// has already been.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "base/sha256.h"
#include "kv/block_index.h"
#include "kv/block_pool.h"

namespace tessera::kv {

// Which idle leaf goes first when pages run out. Called with idle leaves only.
class EvictionPolicy {
 public:
  virtual ~EvictionPolicy() = default;
  // `last_use` grows with every release; within one sequence the deeper page is released first.
  virtual void add(PageId page, uint64_t last_use) = 0;
  virtual void remove(PageId page, uint64_t last_use) = 0;
  // The page to evict next, still in the set; nothing when it is empty.
  virtual std::optional<PageId> victim() const = 0;
};

// Least recently used first.
std::unique_ptr<EvictionPolicy> make_lru_policy();

// A tree over blocks of kKvBlockTokens tokens. A node's key is its link of the SHA-256 chain over model
// identity, salt, RoPE variant and all tokens up to it (core/prefix_hash.h), so equal keys mean equal
// prefixes and a lookup needs no comparison of tokens. Each node holds one page, kept in the pool. Whoever
// holds a node's page holds the pages of all nodes above it too (match() and insert() see to it), so an idle
// node has only idle nodes below: every cached page can be evicted, leaves first.
//
// O(1) per block (the policy: O(log idle leaves)). One thread, the pool's. Must outlive no page table.
class PrefixTree final : public IdleListener {
 public:
  PrefixTree(BlockPool& pool, std::unique_ptr<EvictionPolicy> policy);
  ~PrefixTree() override;

  // The pages of the longest known prefix of `hashes`, one reference each for the caller.
  std::vector<PageId> match(std::span<const Digest> hashes);

  // Names a full page that the caller holds. `parent` is the page of the block before it, held and in the
  // tree; -1 for a first block. Returns the page that stands for this block: `page`, or the one of an equal
  // block inserted before, then with a reference that the caller takes over (PageTable::replace).
  PageId insert(PageId parent, const Digest& hash, PageId page);

  // Frees the policy's victim; false when no page is cached.
  bool evict_one();

  int32_t size() const { return index_.size(); }
  // True when every node's page is kept, parents exist and child counts agree.
  bool check() const;

 private:
  struct Node {
    PageId parent = -1;  // -1: first block
    int32_t children = 0;
    bool present = false;
    bool idle = false;
    uint64_t last_use = 0;
  };
  void on_idle(PageId page) override;
  void on_busy(PageId page) override;
  Node& node(PageId page) { return nodes_[static_cast<size_t>(page)]; }

  BlockPool& pool_;
  const std::unique_ptr<EvictionPolicy> policy_;
  std::vector<Node> nodes_;  // by page: a page stands for one block at most
  BlockIndex index_;
  uint64_t clock_ = 0;
};

}  // namespace tessera::kv
