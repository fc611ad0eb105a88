#include "engine/scheduler.h"

#include <algorithm>

#include "core/prefix_hash.h"

namespace tessera::engine {

Scheduler::Scheduler(const SchedulerOptions& options)
    : options_(options),
      pool_(options.kv_pages),
      tree_(pool_, kv::make_lru_policy()),
      prefill_rows_(options.max_batch_tokens) {}

Status Scheduler::admit(Sequence& sequence) {
  if (running() >= options_.max_sequences)
    return resource_exhausted("the worker already runs " + std::to_string(options_.max_sequences) +
                              " sequences");
  const auto length = static_cast<int>(sequence.tokens.size());
  if (sequence.reuse_prefix && sequence.may_hit) {
    // At least one token is left to feed: somebody has to produce the next one.
    const auto reusable = static_cast<size_t>((length - 1) / kKvBlockTokens);
    const std::span<const Digest> hashes(sequence.hashes);
    for (kv::PageId page : tree_.match(hashes.first(std::min(reusable, hashes.size()))))
      sequence.pages.append(page);
  }
  const int32_t need = kv::pages_for(length + 1) - sequence.pages.size();
  // Running sequences may grow by a page each before anybody closes; an empty engine needs no such margin.
  const int32_t margin = std::min(running(), pool_.total() / 16);
  if (pool_.free() + pool_.cached() - promised_pages() < need + margin && !order_.empty()) {
    sequence.pages.truncate(0);
    return resource_exhausted("the worker's KV cache has no room for " + std::to_string(length) +
                              " tokens now");
  }
  sequence.named_blocks = sequence.pages.size();
  sequence.kv_length = sequence.pages.size() * kKvBlockTokens;
  sequence.input_end = sequence.kv_length;
  auto place =
      std::upper_bound(order_.begin(), order_.end(), &sequence, [](const Sequence* a, const Sequence* b) {
        return a->priority != b->priority ? a->priority > b->priority : a->arrival < b->arrival;
      });
  order_.insert(place, &sequence);
  return {};
}

// Pages that admitted sequences were promised and do not hold yet.
int32_t Scheduler::promised_pages() const {
  int32_t pages = 0;
  for (const Sequence* sequence : order_)
    pages += std::max(kv::pages_for(sequence->opened_tokens + 1) - sequence->pages.size(), 0);
  return pages;
}

// How many sequences may decode in one step.
int Scheduler::group_size() const {
  if (!options_.overlap_hops || options_.is_tail) return options_.max_sequences;
  int decoding = 0;
  size_t hops = 1;
  for (const Sequence* sequence : order_) {
    if (!sequence->is_decoding()) continue;
    ++decoding;
    hops = std::max(hops, sequence->route->size());
  }
  const auto groups = static_cast<int>(hops);
  return std::max((decoding + groups - 1) / groups, 1);
}

std::span<const StepItem> Scheduler::plan() {
  items_.clear();
  Budget budget{options_.max_batch_tokens, options_.max_logit_rows};
  // A waiting prefill gets at least one row, however many sequences decode.
  bool prefill_waits = false, somebody_decodes = false;
  for (const Sequence* sequence : order_) {
    const bool decodes = sequence->is_decoding();
    somebody_decodes |= decodes;
    prefill_waits |= !decodes && sequence->pending() > 0;
  }
  const Budget reserve{prefill_waits && budget.rows > 1 ? 1 : 0,
                       prefill_waits && budget.logit_rows > 1 ? 1 : 0};
  budget.rows -= reserve.rows;
  budget.logit_rows -= reserve.logit_rows;
  const size_t count = order_.size();
  const size_t first = first_decode_ < count ? first_decode_ : 0;
  first_decode_ = 0;
  int room_in_group = group_size();
  for (size_t i = 0; i < count; ++i) {
    const size_t index = first + i < count ? first + i : first + i - count;
    Sequence& sequence = *order_[index];
    if (sequence.pending() == 0 || !sequence.is_decoding() || sequence.preempted) continue;
    if (budget.rows == 0 || room_in_group == 0 ||
        (sequence.sample_at_end && options_.is_tail && budget.logit_rows == 0)) {
      first_decode_ = index;
      break;
    }
    --room_in_group;
    add(sequence, budget);
  }
  budget.rows += reserve.rows;
  budget.logit_rows += reserve.logit_rows;
  // Those that decode need not be in this step: on a route of several hops most are under way.
  if (somebody_decodes) budget.rows = std::min(budget.rows, prefill_rows_);
  decoded_alone_ = options_.decode_alone && prefill_waits && !items_.empty() && !decoded_alone_;
  for (size_t i = 0; prefill_waits && !decoded_alone_ && i < count && budget.rows > 0; ++i) {
    Sequence& sequence = *order_[i];
    if (sequence.pending() > 0 && !sequence.is_decoding() && !sequence.preempted) add(sequence, budget);
  }
  // A sequence may have been preempted after it got its share.
  if (!preempted_.empty())
    std::erase_if(items_, [](const StepItem& item) { return item.sequence->preempted; });
  return items_;
}

// The largest share that the budgets allow.
void Scheduler::add(Sequence& sequence, Budget& budget) {
  const int start = sequence.kv_length;
  const int pending = sequence.pending();
  int rows = std::min(pending, budget.rows);
  bool sample = sequence.sample_at_end && rows == pending;
  int logit_rows = 0;
  if (options_.is_tail) {
    const bool scores = sequence.sampling.scores_prompt();
    const auto scored = [&] { return scores ? sequence.sampling.scored_rows(start, rows) : 0; };
    if (scored() > budget.logit_rows) {
      rows = budget.logit_rows;
      sample = false;
    }
    logit_rows = scored() + (sample ? 1 : 0);
    if (logit_rows > budget.logit_rows) {
      --rows;
      sample = false;
      logit_rows = scored();
    }
  }
  if (rows == 0) return;
  const int32_t pages = kv::pages_for(start + rows);
  if (sequence.pages.size() < pages && !reserve_pages(sequence, pages)) return;
  items_.push_back({&sequence, rows, start, sample});
  budget.rows -= rows;
  budget.logit_rows -= logit_rows;
}

bool Scheduler::reserve_pages(Sequence& sequence, int32_t count) {
  while (sequence.pages.size() < count) {
    if (std::optional<kv::PageId> page = pool_.take()) {
      sequence.pages.append(*page);
    } else if (!tree_.evict_one()) {
      preempt_for(sequence);
      if (sequence.preempted) return false;
    }
  }
  return true;
}

// Takes the pages of the lowest-priority youngest sequence that has any; that may be the one in need.
void Scheduler::preempt_for(const Sequence& needy) {
  auto victim = std::find_if(order_.rbegin(), order_.rend(), [&](const Sequence* candidate) {
    return candidate == &needy || candidate->pages.size() > 0;
  });
  TESSERA_CHECK(victim != order_.rend(), "a sequence that was not admitted");
  (*victim)->preempted = true;
  (*victim)->pages.truncate(0);
  preempted_.push_back(*victim);
}

void Scheduler::name_blocks(Sequence& sequence) {
  const std::span<const TokenId> tokens(sequence.tokens);
  for (; (sequence.named_blocks + 1) * kKvBlockTokens <= sequence.kv_length; ++sequence.named_blocks) {
    const auto block = static_cast<size_t>(sequence.named_blocks);
    if (block == sequence.hashes.size())
      sequence.hashes.push_back(prefix_next(block == 0 ? sequence.hash_root : sequence.hashes[block - 1],
                                            tokens.subspan(block * kKvBlockTokens, kKvBlockTokens)));
    const kv::PageId own = sequence.pages[sequence.named_blocks];
    const kv::PageId above = block == 0 ? -1 : sequence.pages[sequence.named_blocks - 1];
    const kv::PageId shared = tree_.insert(above, sequence.hashes[block], own);
    if (shared != own) sequence.pages.replace(sequence.named_blocks, shared);
  }
}

bool Scheduler::truncate(Sequence& sequence, int length) {
  const bool cuts_named_page =
      length % kKvBlockTokens != 0 && length / kKvBlockTokens < sequence.named_blocks;
  if (cuts_named_page) return false;
  sequence.pages.truncate(kv::pages_for(length));
  sequence.named_blocks = std::min(sequence.named_blocks, length / kKvBlockTokens);
  sequence.kv_length = length;
  return true;
}

void Scheduler::release(Sequence& sequence) {
  sequence.pages.truncate(0);
  std::erase(order_, &sequence);
}

}  // namespace tessera::engine
