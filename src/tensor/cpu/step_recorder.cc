#include "tensor/cpu/step_recorder.h"

#include <algorithm>

namespace tessera::tensor {

namespace {

// Whether row r of one and row s != r of the other never share memory.
bool rows_apart(const RowAccess& a, const RowAccess& b) {
  const auto* a_begin = static_cast<const uint8_t*>(a.data);
  const auto* b_begin = static_cast<const uint8_t*>(b.data);
  const auto end = [](const RowAccess& x) {
    return static_cast<const uint8_t*>(x.data) + (x.rows - 1) * x.stride_bytes + x.width_bytes;
  };
  if (end(a) <= b_begin || end(b) <= a_begin) return true;
  if (a.any_row || b.any_row || a.stride_bytes != b.stride_bytes) return false;
  const int64_t low = std::min<int64_t>(0, b_begin - a_begin);
  const int64_t high = std::max<int64_t>(a.width_bytes, b_begin - a_begin + b.width_bytes);
  return high - low <= a.stride_bytes;  // columns of one wider tensor
}

}  // namespace

bool StepRecorder::joins_chain(int64_t count, std::initializer_list<RowAccess> accesses) const {
  if (chain_.empty() || chain_rows_ != count) return false;
  for (const RowAccess& next : accesses)
    for (const RowAccess& earlier : chain_accesses_)
      if (!rows_apart(earlier, next)) return false;
  return true;
}

void StepRecorder::rows(int64_t count, std::initializer_list<RowAccess> accesses,
                        std::function<void(int64_t, int)> run) {
  if (count <= 0) return;
  if (!joins_chain(count, accesses)) close_chain();
  chain_rows_ = count;
  chain_.push_back(std::move(run));
  chain_accesses_.insert(chain_accesses_.end(), accesses.begin(), accesses.end());
}

void StepRecorder::close_chain() {
  if (chain_.empty()) return;
  const int64_t rows = chain_rows_;
  const int64_t per_task = std::clamp<int64_t>(rows / (threads_ * 4), 1, 32);
  const int tasks = static_cast<int>((rows + per_task - 1) / per_task);
  if (tasks == 1 && !phases_.empty() && !phases_.back().then) {
    phases_.back().then = [ops = std::move(chain_), rows](int worker) {
      for (int64_t r = 0; r < rows; ++r)
        for (const auto& op : ops) op(r, worker);
    };
  } else {
    phases_.push_back({tasks, [ops = std::move(chain_), rows, per_task](int task, int worker) {
                         const int64_t begin = task * per_task;
                         const int64_t end = std::min(rows, begin + per_task);
                         for (int64_t r = begin; r < end; ++r)
                           for (const auto& op : ops) op(r, worker);
                       }});
  }
  chain_.clear();
  chain_accesses_.clear();
  chain_rows_ = 0;
}

void StepRecorder::phase(int tasks, std::function<void(int, int)> run) {
  close_chain();
  if (tasks > 0) phases_.push_back({tasks, std::move(run)});
}

std::vector<Phase> StepRecorder::take() {
  close_chain();
  return std::exchange(phases_, {});
}

}  // namespace tessera::tensor
