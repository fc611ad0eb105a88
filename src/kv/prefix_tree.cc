#include "kv/prefix_tree.h"

#include <set>
#include <utility>

#include "base/status.h"

namespace tessera::kv {
namespace {

class LruPolicy final : public EvictionPolicy {
 public:
  void add(PageId page, uint64_t last_use) override { order_.emplace(last_use, page); }
  void remove(PageId page, uint64_t last_use) override { order_.erase({last_use, page}); }
  std::optional<PageId> victim() const override {
    if (order_.empty()) return std::nullopt;
    return order_.begin()->second;
  }

 private:
  std::set<std::pair<uint64_t, PageId>> order_;
};

}  // namespace

std::unique_ptr<EvictionPolicy> make_lru_policy() {
  return std::make_unique<LruPolicy>();
}

PrefixTree::PrefixTree(BlockPool& pool, std::unique_ptr<EvictionPolicy> policy)
    : pool_(pool),
      policy_(std::move(policy)),
      nodes_(static_cast<size_t>(pool.total())),
      index_(pool.total()) {
  pool_.set_listener(this);
}

PrefixTree::~PrefixTree() {
  pool_.set_listener(nullptr);
}

std::vector<PageId> PrefixTree::match(std::span<const Digest> hashes) {
  std::vector<PageId> pages;
  for (const Digest& hash : hashes) {
    const PageId page = index_.find(hash);
    if (page < 0) break;
    pool_.ref(page);
    pages.push_back(page);
  }
  return pages;
}

PageId PrefixTree::insert(PageId parent, const Digest& hash, PageId page) {
  if (const PageId before = index_.find_or_add(hash, page); before >= 0) {
    if (before != page) pool_.ref(before);
    return before;
  }
  Node& fresh = node(page);
  TESSERA_CHECK(!fresh.present, "a page stands for two blocks");
  fresh = Node{.present = true};
  if (parent >= 0) {
    TESSERA_CHECK(node(parent).present && pool_.refs(parent) > 0, "a block inserted below none that is held");
    fresh.parent = parent;
    ++node(parent).children;
  }
  pool_.keep(page);
  return page;
}

bool PrefixTree::evict_one() {
  const std::optional<PageId> page = policy_->victim();
  if (!page) return false;
  Node& leaf = node(*page);
  policy_->remove(*page, leaf.last_use);
  index_.erase(*page);
  if (leaf.parent >= 0) {
    Node& above = node(leaf.parent);
    if (--above.children == 0 && above.idle) policy_->add(leaf.parent, above.last_use);
  }
  leaf = Node{};
  pool_.drop(*page);
  return true;
}

void PrefixTree::on_idle(PageId page) {
  Node& idle = node(page);
  idle.idle = true;
  idle.last_use = ++clock_;
  if (idle.children == 0) policy_->add(page, idle.last_use);
}

void PrefixTree::on_busy(PageId page) {
  Node& busy = node(page);
  if (busy.children == 0) policy_->remove(page, busy.last_use);
  busy.idle = false;
}

bool PrefixTree::check() const {
  std::vector<int32_t> children(nodes_.size(), 0);
  int32_t present = 0;
  for (size_t page = 0; page < nodes_.size(); ++page) {
    const Node& n = nodes_[page];
    const auto id = static_cast<PageId>(page);
    if (n.present != pool_.kept(id)) return false;
    if (!n.present) continue;
    ++present;
    if (n.idle != (pool_.refs(id) == 0)) return false;
    if (!index_.holds(id)) return false;
    if (n.parent < 0) continue;
    const Node& above = nodes_[static_cast<size_t>(n.parent)];
    if (!above.present || (above.idle && !n.idle)) return false;
    ++children[static_cast<size_t>(n.parent)];
  }
  for (size_t page = 0; page < nodes_.size(); ++page)
    if (nodes_[page].present && nodes_[page].children != children[page]) return false;
  return present == size();
}

}  // namespace tessera::kv
