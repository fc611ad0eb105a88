// Scheduler: which sequences run in the next step, with how many rows, in which KV pages.
#pragma once

#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "engine/sequence.h"
#include "kv/block_pool.h"
#include "kv/prefix_tree.h"

namespace tessera::engine {

struct SchedulerOptions {
  int32_t kv_pages = 0;
  int max_batch_tokens = 0;  // rows of a step
  int max_logit_rows = 0;    // rows of a step that may ask for logits; tail only
  int max_sequences = 0;
  bool is_tail = false;
  // At a head: decoding sequences go in as many groups as their routes have hops
  // (EngineOptions::overlap_hops). Without it, sequences that once met in a batch would stay in one for ever.
  bool overlap_hops = false;
  // On routes of several machines: decode rows that meet waiting prompt rows go in a step of their own, every
  // second one. They come one by one from the hop before, so each would else take a whole step of prompt rows
  // longer at every hop.
  bool decode_alone = false;
};

// A sequence's share of a step: rows at positions [start, start + rows), pages allocated.
struct StepItem {
  Sequence* sequence = nullptr;
  int rows = 0;
  int start = 0;
  bool sample = false;  // a token is wanted after the last row
};

// Owns the KV bookkeeping. Sequences belong to the caller and are known here between admit() and release().
// One thread.
class Scheduler {
 public:
  explicit Scheduler(const SchedulerOptions& options);

  // Gives the sequence the longest cached prefix of its tokens (kv_length, pages) and a place in the order.
  // ResourceExhausted when there is no room now. A sequence that is admitted can prefill: its pages are
  // counted against later admissions until it has them.
  Status admit(Sequence& sequence);
  // The longest sequence that can ever fit, in tokens.
  int64_t capacity_tokens() const { return int64_t{pool_.total()} * kKvBlockTokens; }

  // Decode rows first, then prefill by priority and arrival, under the budgets. When pages run out, the
  // lowest-priority youngest sequence is preempted: it loses its pages and shows up in take_preempted().
  // The span is valid until the next plan().
  std::span<const StepItem> plan();
  // Prompt rows of a step while others decode, from the next plan() on.
  void set_prefill_rows(int rows) { prefill_rows_ = rows; }
  // Sequences that the last plan() preempted; the caller releases them.
  std::vector<Sequence*> take_preempted() { return std::exchange(preempted_, {}); }

  // After a step computed KV up to kv_length: names newly full blocks in the prefix tree.
  void name_full_blocks(Sequence& sequence) {
    if (sequence.reuse_prefix && (sequence.named_blocks + 1) * kKvBlockTokens <= sequence.kv_length)
      name_blocks(sequence);
  }
  // Forgets KV from `length` on. False when that would cut a page that others may share.
  bool truncate(Sequence& sequence, int length);
  // Gives back the pages and the place in the order; full blocks stay cached.
  void release(Sequence& sequence);

  kv::BlockPool& pool() { return pool_; }
  const kv::BlockPool& pool() const { return pool_; }
  int running() const { return static_cast<int>(order_.size()); }
  // Invariant I6 and the tree's own; for tests and idle moments.
  bool check() const { return pool_.check() && tree_.check(); }

 private:
  struct Budget {
    int rows = 0;
    int logit_rows = 0;
  };
  int group_size() const;
  void name_blocks(Sequence& sequence);

  void add(Sequence& sequence, Budget& budget);
  bool reserve_pages(Sequence& sequence, int32_t count);
  void preempt_for(const Sequence& needy);
  int32_t promised_pages() const;

  const SchedulerOptions options_;
  kv::BlockPool pool_;
  kv::PrefixTree tree_;
  std::vector<Sequence*> order_;  // priority descending, then arrival
  std::vector<StepItem> items_;
  std::vector<Sequence*> preempted_;
  int prefill_rows_;            // of a step while others decode
  bool decoded_alone_ = false;  // the last step left waiting prompt rows out
  size_t first_decode_ = 0;     // where the next step begins when one step cannot hold all decode rows
};

}  // namespace tessera::engine
