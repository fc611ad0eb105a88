#include <algorithm>
#include <array>

#include "text/byte_level.h"
#include "text/token_model.h"
#include "text/unicode.h"

namespace tessera::text {
namespace {

uint64_t pack(uint32_t high, uint32_t low) {
  return uint64_t{high} << 32 | low;
}

// Open addressing from a pair of 32-bit numbers to a merge; the all-ones key is never stored.
class PairTable {
 public:
  struct Entry {
    uint64_t key = kEmpty;
    uint32_t rank = 0;
    int32_t whole = 0;
  };
  explicit PairTable(size_t count) {
    size_t capacity = 16;
    while (capacity < 2 * count) capacity *= 2;
    entries_.resize(capacity);
  }
  // A later entry of the same key replaces the earlier one.
  void insert(uint64_t key, uint32_t rank, int32_t whole) {
    size_t at = slot(key);
    while (entries_[at].key != kEmpty && entries_[at].key != key) at = (at + 1) & (entries_.size() - 1);
    entries_[at] = {key, rank, whole};
  }
  const Entry* find(uint64_t key) const {
    for (size_t at = slot(key);; at = (at + 1) & (entries_.size() - 1)) {
      if (entries_[at].key == key) return &entries_[at];
      if (entries_[at].key == kEmpty) return nullptr;
    }
  }

 private:
  static constexpr uint64_t kEmpty = ~uint64_t{0};
  size_t slot(uint64_t key) const {
    key *= 0x9E3779B97F4A7C15u;
    return static_cast<size_t>(key ^ key >> 32) & (entries_.size() - 1);
  }
  std::vector<Entry> entries_;
};

// A token of the piece being merged; the list links what is left.
struct Symbol {
  int32_t id;  // kGone: merged into its left neighbour
  int32_t previous, next;
};
constexpr int32_t kGone = -1, kNone = -1;

struct BpeScratch final : ModelScratch {
  std::vector<Symbol> symbols;
  std::vector<uint64_t> heap;  // (rank, position), smallest first
  // Ids of short pieces seen in this call, so that a word is merged once.
  std::unordered_map<std::string, std::vector<int32_t>> cache;
};
constexpr size_t kMaxCached = 1 << 16, kMaxCachedBytes = 64;

class BpeModel final : public TokenModel {
 public:
  BpeModel(Vocabulary vocabulary, BpeRules rules)
      : vocabulary_(std::move(vocabulary)),
        rules_(std::move(rules)),
        merges_(rules_.merges.size()),
        neighbours_(find_neighbours()) {
    for (size_t c = 0; c < characters_.size(); ++c) {
      std::string text;
      append_utf8(text, static_cast<char32_t>(c));
      characters_[c] = vocabulary_.find(text).value_or(kNone);
    }
    for (int b = 0; b < 256; ++b)
      bytes_[static_cast<size_t>(b)] =
          vocabulary_.find(byte_piece(static_cast<unsigned char>(b))).value_or(kNone);
    for (const auto& merge : rules_.merges) {
      merges_.insert(pack(static_cast<uint32_t>(merge.left), static_cast<uint32_t>(merge.right)), merge.rank,
                     merge.whole);
    }
    rules_.merges = {};
  }

  std::unique_ptr<ModelScratch> make_scratch() const override { return std::make_unique<BpeScratch>(); }
  const Vocabulary& vocabulary() const override { return vocabulary_; }

  Status encode(std::string_view piece, ModelScratch& scratch_base,
                std::vector<int32_t>& ids) const override {
    auto& scratch = static_cast<BpeScratch&>(scratch_base);
    if (rules_.ignore_merges) {
      if (const auto id = vocabulary_.find(piece)) {
        ids.push_back(*id);
        return {};
      }
    }
    if (piece.size() <= kMaxCachedBytes || !rules_.continuing_prefix.empty() || !rules_.word_suffix.empty()) {
      encode_cached(piece, scratch, ids);
      return {};
    }
    for (size_t begin = 0; begin < piece.size();) {
      const size_t end = next_cut(piece, begin);
      encode_cached(piece.substr(begin, end - begin), scratch, ids);
      begin = end;
    }
    return {};
  }

 private:
  // Characters that stand side by side in the result of some merge. No merge crosses any other boundary, so a
  // long piece may be cut there without changing its tokens.
  PairTable find_neighbours() const {
    std::vector<uint64_t> pairs;
    std::vector<bool> seen(static_cast<size_t>(vocabulary_.size()));
    for (const auto& merge : rules_.merges) {
      if (seen[static_cast<size_t>(merge.whole)]) continue;
      seen[static_cast<size_t>(merge.whole)] = true;
      const std::string_view text = *vocabulary_.piece(merge.whole);
      size_t at = 0;
      char32_t left = text.empty() ? 0 : next_code_point(text, at);
      while (at < text.size()) {
        const char32_t right = next_code_point(text, at);
        pairs.push_back(pack(left, right));
        left = right;
      }
    }
    std::sort(pairs.begin(), pairs.end());
    pairs.erase(std::unique(pairs.begin(), pairs.end()), pairs.end());
    PairTable table(pairs.size());
    for (const uint64_t pair : pairs) table.insert(pair, 0, 0);
    return table;
  }
  size_t next_cut(std::string_view piece, size_t begin) const {
    size_t at = begin;
    char32_t left = next_code_point(piece, at);
    while (at < piece.size()) {
      const size_t here = at;
      const char32_t right = next_code_point(piece, at);
      if (neighbours_.find(pack(left, right)) == nullptr && is_known(left) && is_known(right)) return here;
      left = right;
    }
    return piece.size();
  }
  bool is_known(char32_t c) const {
    if (c < characters_.size()) return characters_[c] != kNone;
    std::string text;
    append_utf8(text, c);
    return vocabulary_.find(text).has_value();
  }

  void encode_cached(std::string_view piece, BpeScratch& scratch, std::vector<int32_t>& ids) const {
    const bool cacheable = piece.size() <= kMaxCachedBytes;
    std::string key;
    if (cacheable) {
      key = piece;
      if (const auto found = scratch.cache.find(key); found != scratch.cache.end()) {
        ids.insert(ids.end(), found->second.begin(), found->second.end());
        return;
      }
    }
    const size_t first = ids.size();
    set_characters(piece, scratch.symbols);
    merge_all(scratch);
    if (!scratch.symbols.empty())
      for (int32_t i = 0; i != kNone; i = scratch.symbols[static_cast<size_t>(i)].next)
        ids.push_back(scratch.symbols[static_cast<size_t>(i)].id);
    if (cacheable && scratch.cache.size() < kMaxCached)
      scratch.cache.emplace(std::move(key),
                            std::vector<int32_t>(ids.begin() + static_cast<ptrdiff_t>(first), ids.end()));
  }

  int32_t find_character(std::string_view text, char32_t c, bool first, bool last) const {
    const bool prefixed = !first && !rules_.continuing_prefix.empty();
    const bool suffixed = last && !rules_.word_suffix.empty();
    if (!prefixed && !suffixed) {
      if (c < characters_.size()) return characters_[c];
      return vocabulary_.find(text).value_or(kNone);
    }
    std::string decorated = prefixed ? rules_.continuing_prefix : std::string();
    decorated.append(text);
    if (suffixed) decorated.append(rules_.word_suffix);
    return vocabulary_.find(decorated).value_or(kNone);
  }

  // One symbol a character; bytes or the unknown token for what the vocabulary lacks.
  void set_characters(std::string_view piece, std::vector<Symbol>& symbols) const {
    symbols.clear();
    const auto add = [&](int32_t id) {
      const auto index = static_cast<int32_t>(symbols.size());
      symbols.push_back({id, index - 1, index + 1});
    };
    bool unknown_pending = false;
    for (size_t at = 0; at < piece.size();) {
      const size_t begin = at;
      const char32_t c = next_code_point(piece, at);
      const std::string_view text = piece.substr(begin, at - begin);
      const int32_t id = find_character(text, c, begin == 0, at == piece.size());
      if (id != kNone) {
        if (unknown_pending) add(*rules_.unknown);
        unknown_pending = false;
        add(id);
      } else if (rules_.byte_fallback && has_bytes(text)) {
        for (const char byte : text) add(bytes_[static_cast<uint8_t>(byte)]);
      } else if (rules_.unknown) {
        if (unknown_pending && !rules_.fuse_unknown) add(*rules_.unknown);
        unknown_pending = true;
      }
    }
    if (unknown_pending) add(*rules_.unknown);
    if (!symbols.empty()) symbols.back().next = kNone;
  }
  bool has_bytes(std::string_view text) const {
    return std::all_of(text.begin(), text.end(),
                       [&](char byte) { return bytes_[static_cast<uint8_t>(byte)] != kNone; });
  }

  const PairTable::Entry* merge_at(const std::vector<Symbol>& symbols, int32_t left) const {
    const Symbol& symbol = symbols[static_cast<size_t>(left)];
    if (symbol.id == kGone || symbol.next == kNone) return nullptr;
    return merges_.find(pack(static_cast<uint32_t>(symbol.id),
                             static_cast<uint32_t>(symbols[static_cast<size_t>(symbol.next)].id)));
  }

  // Applies the best merge until none is left: O(n log n) by a heap whose stale entries are skipped.
  void merge_all(BpeScratch& scratch) const {
    auto& symbols = scratch.symbols;
    auto& heap = scratch.heap;
    heap.clear();
    const auto entry_at = [&](int32_t i, const PairTable::Entry& merge) {
      return pack(merge.rank, static_cast<uint32_t>(i));
    };
    for (int32_t i = 0; i < static_cast<int32_t>(symbols.size()); ++i)
      if (const auto* merge = merge_at(symbols, i)) heap.push_back(entry_at(i, *merge));
    std::make_heap(heap.begin(), heap.end(), std::greater<>());
    const auto push = [&](int32_t i) {
      if (i == kNone) return;
      const auto* merge = merge_at(symbols, i);
      if (merge == nullptr) return;
      heap.push_back(entry_at(i, *merge));
      std::push_heap(heap.begin(), heap.end(), std::greater<>());
    };
    while (!heap.empty()) {
      std::pop_heap(heap.begin(), heap.end(), std::greater<>());
      const uint64_t top = heap.back();
      heap.pop_back();
      const auto left = static_cast<int32_t>(top & 0xFFFFFFFF);
      const auto* merge = merge_at(symbols, left);
      if (merge == nullptr || entry_at(left, *merge) != top) continue;
      Symbol& symbol = symbols[static_cast<size_t>(left)];
      Symbol& right = symbols[static_cast<size_t>(symbol.next)];
      symbol.id = merge->whole;
      symbol.next = right.next;
      right.id = kGone;
      if (symbol.next != kNone) symbols[static_cast<size_t>(symbol.next)].previous = left;
      push(symbol.previous);
      push(left);
    }
  }

  Vocabulary vocabulary_;
  BpeRules rules_;
  PairTable merges_, neighbours_;
  std::array<int32_t, 0x250> characters_{};  // ids of single characters
  std::array<int32_t, 256> bytes_{};         // ids of the byte pieces
};

}  // namespace

std::unique_ptr<const TokenModel> make_bpe_model(Vocabulary vocabulary, BpeRules rules) {
  return std::make_unique<BpeModel>(std::move(vocabulary), std::move(rules));
}

}  // namespace tessera::text
