#include "control/placement_model.h"

#include <algorithm>
#include <cmath>

#include "base/status.h"

namespace tessera::control {
namespace {

// Of a worker that measured nothing, and of a link that nobody measured.
constexpr double kAssumedDecodeBytesPerS = 5e9;
constexpr double kAssumedPrefillOpsPerS = 5e10;
constexpr double kAssumedLinkBytesPerS = 12.5e6;
// An observed time moves a measured one by no more than this: it may come from a worker under other load.
constexpr double kObservedAtLeast = 0.5, kObservedAtMost = 4;

constexpr int kDefaultContextNeeded = 2048;

double positive_or(double value, double otherwise) {
  return value > 0 && std::isfinite(value) ? value : otherwise;
}

double refined(double measured, double observed) {
  if (!(observed > 0) || !std::isfinite(observed)) return measured;
  return std::clamp(observed, measured * kObservedAtLeast, measured * kObservedAtMost);
}

}  // namespace

ShapeIndex::ShapeIndex(const ModelShape& shape) : shape_(&shape), before_(1, 0) {
  TESSERA_CHECK(shape.num_blocks >= 0 && shape.block_bytes.size() == static_cast<size_t>(shape.num_blocks),
                "a model shape needs the bytes of each block");
  for (uint64_t bytes : shape.block_bytes) before_.push_back(before_.back() + bytes);
  context_needed_ =
      shape.min_context > 0 ? shape.min_context : std::clamp(shape.context_length, 1, kDefaultContextNeeded);
}

uint64_t ShapeIndex::weight_bytes(BlockRange range) const {
  const uint64_t head = range.first == 0 ? shape_->head_bytes : 0;
  const uint64_t tail = range.last == shape_->num_blocks ? shape_->tail_bytes : 0;
  const uint64_t ends = shape_->tied_embedding ? std::max(head, tail) : head + tail;
  return before_[range.last] - before_[range.first] + ends;
}

uint64_t ShapeIndex::kv_bytes(BlockRange range, int64_t tokens) const {
  return shape_->kv_bytes_per_token * static_cast<uint64_t>(range.size()) * static_cast<uint64_t>(tokens);
}

int ShapeIndex::longest_from(int first, int limit, uint64_t room) const {
  int fits = first, too_long = limit + 1;
  while (too_long - fits > 1) {
    const int middle = fits + (too_long - fits) / 2;
    (needed_bytes({first, middle}) <= room ? fits : too_long) = middle;
  }
  return fits;
}

int ShapeIndex::longest_until(int last, int limit, uint64_t room) const {
  int fits = last, too_long = limit - 1;
  while (fits - too_long > 1) {
    const int middle = fits - (fits - too_long) / 2;
    (needed_bytes({middle, last}) <= room ? fits : too_long) = middle;
  }
  return fits;
}

double ShapeIndex::decode_read_bytes(BlockRange range) const {
  const uint64_t tail = range.last == shape_->num_blocks ? shape_->tail_bytes : 0;
  return static_cast<double>(before_[range.last] - before_[range.first] + tail);
}

double ShapeIndex::ops_per_token(BlockRange range) const {
  return 2 * static_cast<double>(before_[range.last] - before_[range.first]) /
         positive_or(shape_->bytes_per_parameter, 2);
}

int ShapeIndex::position_of_read(BlockRange range, double bytes) const {
  const double wanted = static_cast<double>(before_[range.first]) + bytes;
  auto begin = before_.begin() + range.first, end = before_.begin() + range.last + 1;
  auto above = std::lower_bound(begin, end, wanted,
                                [](uint64_t sum, double value) { return static_cast<double>(sum) < value; });
  if (above == end) return range.last;
  if (above != begin && wanted - static_cast<double>(*(above - 1)) < static_cast<double>(*above) - wanted)
    --above;
  return static_cast<int>(above - before_.begin());
}

PlacementView::PlacementView(const ClusterSnapshot& snapshot) : links_(&snapshot.links) {
  for (const WorkerSnapshot& worker : snapshot.workers) workers_.push_back(&worker);
  std::stable_sort(workers_.begin(), workers_.end(), [](auto* a, auto* b) { return a->name < b->name; });
  for (const ModelShape& model : snapshot.models) {
    model_indices_.emplace(model.name, num_models());
    shapes_.emplace_back(model);
  }
  for (int model = 0; model < num_models(); ++model) {
    auto& decode = decode_s_per_byte_.emplace_back();
    auto& prefill = prefill_s_per_op_.emplace_back();
    for (const WorkerSnapshot* worker : workers_) {
      const WorkerCapabilities& measured = worker->capabilities;
      double byte_s = 1 / positive_or(measured.decode_bytes_per_s, kAssumedDecodeBytesPerS);
      double op_s = 1 / positive_or(measured.prefill_ops_per_s, kAssumedPrefillOpsPerS);
      for (const auto& hosted : worker->hosted) {
        const ShapeIndex& shape = shapes_[model];
        if (hosted.model != shape.shape().name || hosted.blocks.first < 0 ||
            hosted.blocks.last > shape.num_blocks() || hosted.blocks.size() <= 0)
          continue;
        const double bytes = shape.decode_read_bytes(hosted.blocks), ops = shape.ops_per_token(hosted.blocks);
        if (bytes > 0) byte_s = refined(byte_s, hosted.decode_step_s / bytes);
        if (ops > 0) op_s = refined(op_s, hosted.prefill_token_s / ops);
        break;
      }
      decode.push_back(byte_s);
      prefill.push_back(op_s);
    }
  }
}

int PlacementView::model_index(const std::string& name) const {
  auto found = model_indices_.find(name);
  return found == model_indices_.end() ? -1 : found->second;
}

const LinkSnapshot& PlacementView::link(int from, int to) const {
  const uint64_t key = (static_cast<uint64_t>(from) << 32) | static_cast<uint32_t>(to);
  auto [slot, is_new] = link_cache_.try_emplace(key);
  if (!is_new) return slot->second;
  const std::string &a = workers_[from]->name, &b = workers_[to]->name;
  auto found = links_->find({a, b});
  if (found == links_->end()) found = links_->find({b, a});
  LinkSnapshot link{std::max(workers_[from]->gateway_rtt_s, workers_[to]->gateway_rtt_s), 0};
  if (found != links_->end()) link = found->second;
  link.bytes_per_s = positive_or(link.bytes_per_s, kAssumedLinkBytesPerS);
  return slot->second = link;
}

double PlacementView::decode_s(int model, const Stage& stage) const {
  return shapes_[model].decode_read_bytes(stage.blocks) * decode_s_per_byte_[model][stage.worker];
}

double PlacementView::prefill_s(int model, const Stage& stage, int tokens) const {
  // A chunk reads the weights at least once.
  return std::max(
      tokens * shapes_[model].ops_per_token(stage.blocks) * prefill_s_per_op_[model][stage.worker],
      decode_s(model, stage));
}

double PlacementView::throughput(int model, const Stage& stage, double batch) const {
  const double ops_s = shapes_[model].ops_per_token(stage.blocks) * prefill_s_per_op_[model][stage.worker];
  const double step_s = decode_s(model, stage) + batch * ops_s;
  return step_s > 0 ? batch / step_s : 0;
}

double PlacementView::row_s(int model, int from, int to) const {
  if (from == to) return 0;
  const LinkSnapshot& hop = link(from, to);
  return hop.rtt_s / 2 + static_cast<double>(shapes_[model].shape().row_bytes) / hop.bytes_per_s;
}

Prediction PlacementView::predict(int model, const std::vector<Stage>& route) const {
  Prediction result;
  if (route.empty()) return result;
  constexpr int kChunks = kPromptTokens / kPrefillChunkTokens;
  const double chunk_bytes = static_cast<double>(shapes_[model].shape().row_bytes) * kPrefillChunkTokens;
  double slowest_chunk_s = 0;
  for (size_t i = 0; i < route.size(); ++i) {
    const double chunk_s = prefill_s(model, route[i], kPrefillChunkTokens);
    result.token_s += decode_s(model, route[i]);
    result.ttft_s += chunk_s;
    slowest_chunk_s = std::max(slowest_chunk_s, chunk_s);
    if (i + 1 == route.size() || route[i].worker == route[i + 1].worker) continue;
    const LinkSnapshot& hop = link(route[i].worker, route[i + 1].worker);
    result.token_s += row_s(model, route[i].worker, route[i + 1].worker);
    result.ttft_s += hop.rtt_s / 2 + chunk_bytes / hop.bytes_per_s;
    slowest_chunk_s = std::max(slowest_chunk_s, chunk_bytes / hop.bytes_per_s);
  }
  const int head = route.front().worker, tail = route.back().worker;
  if (head != tail) result.token_s += link(tail, head).rtt_s / 2;
  result.ttft_s +=
      (kChunks - 1) * slowest_chunk_s + (workers_[head]->gateway_rtt_s + workers_[tail]->gateway_rtt_s) / 2;
  return result;
}

uint64_t weight_bytes(const ModelShape& shape, BlockRange blocks) {
  if (blocks.first < 0 || blocks.size() < 0 || blocks.last > shape.num_blocks) return 0;
  return ShapeIndex(shape).weight_bytes(blocks);
}

}  // namespace tessera::control
