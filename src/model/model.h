// Model: the blocks [first, last) of a checkpoint on one backend, with embedding at the head and LM head at
// the tail.
#pragma once

#include <functional>
#include <memory>
#include <span>

#include "checkpoint/source.h"
#include "core/step.h"
#include "model/spec.h"
#include "tensor/backend.h"

namespace tessera::model {

struct LoadOptions {
  tensor::MatrixFormat format = tensor::MatrixFormat::kAuto;
  bool exact_products = false;   // quantised as `format` says, multiplied in float32 (tensor::MatrixSource)
  DType kv_dtype = DType::kF16;  // of the caches that enqueue() will get: part of numerics()
  // Called after each tensor with bytes done and bytes of all tensors of the range.
  std::function<void(uint64_t done, uint64_t total)> progress;
};

// Activation memory of a step; one per Model user, reused for every step.
class Workspace {
 public:
  virtual ~Workspace() = default;
  virtual int max_rows() const = 0;
  virtual uint64_t bytes() const = 0;
};

// Immutable after load; weights shared by all workspaces. Enqueueing is for the backend's one thread.
class Model {
 public:
  // Touches only the tensors of `range` (plus embedding at block 0, final norm and LM head at the last
  // block).
  static Result<std::unique_ptr<Model>> load(const ModelSpec& spec,
                                             std::shared_ptr<const checkpoint::Source> source,
                                             BlockRange range, tensor::Backend& backend,
                                             const LoadOptions& options);
  virtual ~Model() = default;

  virtual const ModelSpec& spec() const = 0;
  virtual BlockRange range() const = 0;
  bool is_head() const { return range().first == 0; }
  bool is_tail() const { return range().last == spec().num_blocks; }
  virtual uint64_t weight_bytes() const = 0;
  // Equal for every range of one checkpoint: quantised weights anywhere make the class that of kInt8.
  virtual const NumericsClass& numerics() const = 0;

  // max_logit_rows: logits held at once; steps that ask for more compute them in parts of so many rows.
  virtual Result<std::unique_ptr<Workspace>> make_workspace(int max_rows, int max_logit_rows) const = 0;

  // Enqueues one step and the copies of its results into `result` (sized here). kv[i] belongs to block first
  // + i. Plan, kv and result must stay valid until the backend's wait(). plan.rows <= workspace.max_rows().
  virtual void enqueue(const StepPlan& plan, std::span<const tensor::KvView> kv, Workspace& workspace,
                       StepResult& result) = 0;
};

// Bytes that load() will hold on the device for this range and format, without reading any weight.
Result<uint64_t> estimate_weight_bytes(const ModelSpec& spec, const checkpoint::Source& source,
                                       BlockRange range, tensor::MatrixFormat format);

}  // namespace tessera::model
