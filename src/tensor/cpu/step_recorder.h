// Collects the ops of a step as phases for the thread pool, joining row-wise ops into one phase.
#pragma once

#include <functional>
#include <initializer_list>
#include <vector>

#include "tensor/cpu/thread_pool.h"
#include "tensor/tensor.h"

namespace tessera::tensor {

// Memory that a row-wise op touches: row r of the op lies at data + r * stride.
struct RowAccess {
  const void* data = nullptr;
  int64_t rows = 0;
  int64_t stride_bytes = 0;
  int64_t width_bytes = 0;
  bool any_row = false;  // read at rows other than the op's own
};
inline RowAccess row_access(const Tensor& t) {
  const int64_t size = dtype_info(t.dtype).bytes_per_block;
  return {t.data, t.rows, t.stride * size, t.cols * size, false};
}

class StepRecorder {
 public:
  explicit StepRecorder(int threads) : threads_(threads) {}

  // run(row, worker) for every row. Joins the row-wise op before it when both have the same rows and touch
  // shared memory only at the same row, so that one thread does a row's ops back to back. What is too small
  // to share is done by the thread that ends the phase before.
  void rows(int64_t count, std::initializer_list<RowAccess> accesses, std::function<void(int64_t, int)> run);
  // A phase of its own, after everything recorded so far.
  void phase(int tasks, std::function<void(int, int)> run);
  // All phases; the recorder is empty afterwards.
  std::vector<Phase> take();

 private:
  bool joins_chain(int64_t count, std::initializer_list<RowAccess> accesses) const;
  void close_chain();

  const int threads_;
  std::vector<Phase> phases_;
  int64_t chain_rows_ = 0;
  std::vector<std::function<void(int64_t, int)>> chain_;
  std::vector<RowAccess> chain_accesses_;
};

}  // namespace tessera::tensor
