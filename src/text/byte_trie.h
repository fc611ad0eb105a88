// A read-only prefix tree over byte strings, for longest and all-prefix matches.
#pragma once

#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

namespace tessera::text {

// Immutable after build; one node per distinct prefix.
class ByteTrie {
 public:
  // (key, value) pairs; of equal keys the last one counts, empty keys do not. The keys need not outlive the
  // call.
  static ByteTrie build(std::vector<std::pair<std::string_view, int32_t>> entries);

  bool empty() const { return nodes_.size() <= 1; }
  // Calls visit(length, value) for each key that `text` starts with, from short to long.
  template <typename Visit>
  void for_each_prefix(std::string_view text, Visit&& visit) const {
    uint32_t node = 0;
    for (size_t i = 0; i < text.size(); ++i) {
      node = child(node, static_cast<uint8_t>(text[i]));
      if (node == 0) return;
      if (nodes_[node].value >= 0) visit(i + 1, nodes_[node].value);
    }
  }
  // Length and value of the longest key that `text` starts with; length 0: none.
  std::pair<size_t, int32_t> longest_prefix(std::string_view text) const {
    std::pair<size_t, int32_t> best{0, -1};
    for_each_prefix(text, [&](size_t length, int32_t value) { best = {length, value}; });
    return best;
  }

 private:
  struct Node {
    uint32_t first_child = 0;  // children lie together, ordered by byte
    uint16_t children = 0;
    uint8_t byte = 0;  // on the edge that leads here
    int32_t value = -1;
  };
  // 0 (the root is nobody's child): none.
  uint32_t child(uint32_t parent, uint8_t byte) const {
    if (parent == 0) return roots_.empty() ? 0 : roots_[byte];
    const Node& node = nodes_[parent];
    uint32_t low = node.first_child, high = low + node.children;
    while (low < high) {
      const uint32_t middle = (low + high) / 2;
      if (nodes_[middle].byte < byte) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    return low < node.first_child + node.children && nodes_[low].byte == byte ? low : 0;
  }

  std::vector<Node> nodes_ = std::vector<Node>(1);
  std::vector<uint32_t> roots_;  // [256] child of the root by byte
};

}  // namespace tessera::text
