#include "text/byte_trie.h"

#include <algorithm>

namespace tessera::text {

ByteTrie ByteTrie::build(std::vector<std::pair<std::string_view, int32_t>> entries) {
  std::stable_sort(entries.begin(), entries.end(),
                   [](const auto& a, const auto& b) { return a.first < b.first; });
  // Breadth first: each node stands for the entries [begin, end) that share its prefix of `depth` bytes.
  struct Pending {
    uint32_t node;
    size_t begin, end, depth;
  };
  ByteTrie trie;
  std::vector<Pending> queue{{0, 0, entries.size(), 0}};
  for (size_t next = 0; next < queue.size(); ++next) {
    const Pending work = queue[next];
    size_t i = work.begin;
    for (; i < work.end && entries[i].first.size() == work.depth; ++i)
      if (work.depth > 0) trie.nodes_[work.node].value = entries[i].second;
    trie.nodes_[work.node].first_child = static_cast<uint32_t>(trie.nodes_.size());
    while (i < work.end) {
      const char byte = entries[i].first[work.depth];
      const size_t begin = i;
      while (i < work.end && entries[i].first[work.depth] == byte) ++i;
      const auto child = static_cast<uint32_t>(trie.nodes_.size());
      trie.nodes_.emplace_back().byte = static_cast<uint8_t>(byte);
      ++trie.nodes_[work.node].children;
      queue.push_back({child, begin, i, work.depth + 1});
    }
  }
  trie.roots_.assign(256, 0);
  const Node& root = trie.nodes_[0];
  for (uint32_t i = 0; i < root.children; ++i)
    trie.roots_[trie.nodes_[root.first_child + i].byte] = root.first_child + i;
  return trie;
}

}  // namespace tessera::text
