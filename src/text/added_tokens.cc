#include "text/added_tokens.h"

#include <algorithm>

#include "text/unicode.h"

namespace tessera::text {
namespace {

constexpr size_t kMaxContentBytes = 4096;  // bounds the work at each position of a text

size_t last_character(std::string_view text, size_t end) {
  size_t at = end - 1;
  while (at > 0 && (static_cast<uint8_t>(text[at]) & 0xC0) == 0x80) --at;
  return at;
}

bool touches_word(std::string_view text, size_t begin, size_t end) {
  if (begin > 0) {
    size_t at = last_character(text, begin);
    if (is_word_character(next_code_point(text, at))) return true;
  }
  return end < text.size() && is_word_character(next_code_point(text, end));
}

size_t skip_spaces_left(std::string_view text, size_t begin, size_t limit) {
  while (begin > limit) {
    const size_t at = last_character(text, begin);
    size_t after = at;
    if (at < limit || !is_whitespace(next_code_point(text, after))) break;
    begin = at;
  }
  return begin;
}

size_t skip_spaces_right(std::string_view text, size_t end) {
  while (end < text.size()) {
    size_t after = end;
    if (!is_whitespace(next_code_point(text, after))) break;
    end = after;
  }
  return end;
}

}  // namespace

Result<AddedTokens> AddedTokens::build(std::vector<AddedToken> tokens, const Normalizer* normalizer,
                                       bool literal_normalized) {
  AddedTokens added;
  added.tokens_ = std::move(tokens);
  std::vector<std::string> normalized_forms;
  std::vector<std::pair<std::string_view, int32_t>> raw, normalized;
  normalized_forms.reserve(added.tokens_.size());
  for (size_t i = 0; i < added.tokens_.size(); ++i) {
    const AddedToken& token = added.tokens_[i];
    if (token.content.size() > kMaxContentBytes)
      return unsupported("tokenizer: an added token of more than 4096 bytes");
    if (!added.by_id_.emplace(token.id, i).second) continue;
    added.end_id_ = std::max(added.end_id_, token.id + 1);
    if (token.content.empty() || !added.by_content_.emplace(token.content, i).second) continue;
    if (!token.match_normalized) {
      raw.emplace_back(token.content, static_cast<int32_t>(i));
      continue;
    }
    std::string form = token.content;
    if (normalizer != nullptr && !literal_normalized) TESSERA_RETURN_IF_ERROR(normalizer->apply(form, true));
    if (form.size() > kMaxContentBytes)
      return unsupported("tokenizer: an added token whose normalized form has more than 4096 bytes");
    normalized_forms.push_back(std::move(form));
    normalized.emplace_back(normalized_forms.back(), static_cast<int32_t>(i));
  }
  added.raw_ = ByteTrie::build(std::move(raw));
  added.normalized_ = ByteTrie::build(std::move(normalized));
  return added;
}

const AddedToken* AddedTokens::by_id(int32_t id) const {
  const auto found = by_id_.find(id);
  return found == by_id_.end() ? nullptr : &tokens_[found->second];
}

const AddedToken* AddedTokens::by_content(std::string_view content) const {
  const auto found = by_content_.find(std::string(content));
  return found == by_content_.end() ? nullptr : &tokens_[found->second];
}

bool AddedTokens::is_special(std::string_view content) const {
  const AddedToken* token = by_content(content);
  return token != nullptr && token->special;
}

Status AddedTokens::split(const ByteTrie& trie, std::string_view text, const PartSink& sink) const {
  size_t done = 0;
  const auto text_until = [&](size_t end) {
    return done < end ? sink({text.substr(done, end - done), nullptr}) : Status();
  };
  for (size_t at = 0; !trie.empty() && at < text.size();) {
    const auto [length, index] = trie.longest_prefix(text.substr(at));
    if (length == 0) {
      ++at;
      continue;
    }
    const AddedToken& token = tokens_[static_cast<size_t>(index)];
    size_t begin = at, end = at + length;
    at = end;
    if (token.single_word && touches_word(text, begin, end)) continue;
    if (token.lstrip) begin = skip_spaces_left(text, begin, std::min(begin, done));
    if (token.rstrip) end = skip_spaces_right(text, end);
    TESSERA_RETURN_IF_ERROR(text_until(begin));
    TESSERA_RETURN_IF_ERROR(sink({text.substr(begin, end - begin), &token}));
    done = std::max(done, end);
  }
  return text_until(text.size());
}

}  // namespace tessera::text
