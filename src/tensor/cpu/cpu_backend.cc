#include "tensor/cpu/cpu_backend.h"

#include <algorithm>
#include <cstring>
#include <string>

#include "tensor/cpu/isa.h"
#include "tensor/cpu/matmul_task.h"
#include "tensor/cpu/moe.h"
#include "tensor/cpu/packed_matrix.h"
#include "tensor/cpu/rope_angles.h"
#include "tensor/cpu/step_recorder.h"
#include "tensor/cpu/thread_pool.h"
#include "tensor/sampling.h"

namespace tessera::tensor {

namespace {

class CpuBuffer final : public Buffer {
 public:
  explicit CpuBuffer(AlignedMemory memory) : memory_(std::move(memory)) {}
  void* data() override { return memory_.data(); }
  uint64_t bytes() const override { return memory_.bytes(); }

 private:
  AlignedMemory memory_;
};

const PackedMatrix& packed(const Matrix& matrix) {
  return static_cast<const PackedMatrix&>(matrix);
}

int kv_bytes(DType dtype) {
  TESSERA_CHECK(dtype == DType::kF32 || dtype == DType::kF16 || dtype == DType::kBF16,
                "KV is F32, F16 or BF16");
  return dtype == DType::kF32 ? 4 : 2;
}

// A row of the batch: its sequence and position.
struct RowPlace {
  const StepSequence* sequence;
  int64_t position;
};
using RowPlaces = std::vector<RowPlace>;

// A piece of an attention op: some rows of one sequence, some query heads of one KV head.
struct AttentionTask {
  const StepSequence* sequence;
  int32_t row;  // inside the sequence
  int32_t rows;
  int32_t kv_head;
  int32_t head;  // first query head
  int32_t heads;
};

}  // namespace

// Ops record rows and phases; submit() runs them at once with the caller as one of the threads.
class CpuBackend final : public Backend {
 public:
  CpuBackend(std::shared_ptr<ThreadPool> pool, CpuOptions options)
      : pool_(std::move(pool)), kernels_(kernels_for(options.isa)), recorder_(pool_->threads()) {
    const int threads = pool_->threads();
    info_.name = "cpu";
    info_.description = "CPU, " + std::string(isa_name(options.isa)) + ", " + std::to_string(threads) +
                        (threads == 1 ? " thread" : " threads");
    info_.threads = threads;
    sample_scratch_.resize(static_cast<size_t>(threads));
    attention_scratch_.resize(static_cast<size_t>(threads));
  }

  const BackendInfo& info() const override { return info_; }
  NumericsClass numerics(MatrixFormat format, DType kv) const override {
    NumericsClass result;
    result.backend = "cpu";
    result.kernels = format == MatrixFormat::kInt8   ? "int8.2"
                     : format == MatrixFormat::kInt4 ? "int8.2+int4"  // other weights than kInt8's
                                                     : "f32.1";
    result.kv = kv;
    return result;
  }

  Result<std::unique_ptr<Buffer>> allocate(uint64_t bytes) override {
    TESSERA_ASSIGN_OR_RETURN(AlignedMemory memory, AlignedMemory::allocate(bytes));
    return std::unique_ptr<Buffer>(std::make_unique<CpuBuffer>(std::move(memory)));
  }
  void copy_to_device(void* device, const void* host, uint64_t bytes) override {
    std::memcpy(device, host, bytes);
  }
  void copy_to_host(void* host, const void* device, uint64_t bytes) override {
    std::memcpy(host, device, bytes);
  }
  // Always packs, so the source is not kept.
  Result<std::unique_ptr<Matrix>> make_matrix(const MatrixSource& source, MatrixFormat format,
                                              std::shared_ptr<const void>) override {
    TESSERA_ASSIGN_OR_RETURN(std::unique_ptr<PackedMatrix> matrix,
                             PackedMatrix::pack(source, format, *pool_));
    if (source.exact_products) {
      TESSERA_ASSIGN_OR_RETURN(matrix, matrix->widened(*pool_));
    }
    return std::unique_ptr<Matrix>(std::move(matrix));
  }
  int64_t kv_page_bytes(int kv_heads, int head_dim, DType dtype) const override {
    return int64_t{2} * kv_heads * head_dim * kKvBlockTokens * kv_bytes(dtype);
  }

  void embed(std::span<const TokenId> ids, const Matrix& table, float scale, Tensor out) override;
  void rms_norm(Tensor x, std::span<const float> weight, float eps, Tensor out) override;
  void matmul(Tensor x, const Matrix& w, std::span<const float> bias, Tensor out) override;
  void rope_table(std::span<const StepSequence> sequences, const RopeParams& params, Tensor table) override;
  void rope(Tensor x, int head_dim, int rotary_dim, Tensor table) override;
  void kv_write(Tensor k, Tensor v, std::span<const StepSequence> sequences, KvView kv) override;
  void attention(Tensor q, KvView kv, std::span<const StepSequence> sequences, const AttentionParams& params,
                 Tensor out) override;
  void gated_activation(Tensor gate_up, Activation activation, Tensor out) override;
  void moe(Tensor x, const MoeParams& params, Tensor out) override;
  void add(Tensor x, Tensor y) override;
  void softcap(Tensor x, float cap) override;
  void round_to(Tensor x, DType dtype) override;
  void gather_rows(Tensor x, std::span<const int32_t> rows, Tensor out) override;
  void copy(Tensor x, Tensor out) override;
  void sample(Tensor logits, std::span<const SampleRequest> requests, std::span<SampledToken> out) override;

  Ticket submit() override {
    pool_->run(recorder_.take());
    places_.reset();
    places_key_ = {};
    return ++ticket_;
  }
  void wait(Ticket ticket) override { TESSERA_CHECK(ticket <= ticket_); }

 private:
  std::shared_ptr<const RowPlaces> places(std::span<const StepSequence> sequences, int64_t rows);
  std::vector<AttentionTask> attention_tasks(std::span<const StepSequence> sequences,
                                             const AttentionParams& params) const;

  std::shared_ptr<ThreadPool> pool_;
  const KernelTable& kernels_;
  BackendInfo info_;
  StepRecorder recorder_;
  Ticket ticket_ = 0;
  std::shared_ptr<QuantBuffer> quant_;  // int8 activations of the matmul in hand
  int64_t quant_capacity_ = 0;
  MoeScratch moe_;
  std::vector<SampleScratch> sample_scratch_;          // per thread
  std::vector<std::vector<float>> attention_scratch_;  // per thread
  std::shared_ptr<const RowPlaces> places_;            // of this step
  std::span<const StepSequence> places_key_;
};

namespace {
void check_matrix(const Tensor& t) {
  TESSERA_CHECK(t.dtype == DType::kF32 && t.stride >= t.cols && t.rows >= 0, "activations are float32");
}
void check_same_shape(const Tensor& a, const Tensor& b) {
  check_matrix(a);
  check_matrix(b);
  TESSERA_CHECK(a.rows == b.rows && a.cols == b.cols);
}
}  // namespace

std::shared_ptr<const RowPlaces> CpuBackend::places(std::span<const StepSequence> sequences, int64_t rows) {
  if (places_ != nullptr && places_key_.data() == sequences.data() && places_key_.size() == sequences.size())
    return places_;
  auto result = std::make_shared<RowPlaces>(static_cast<size_t>(rows), RowPlace{nullptr, 0});
  for (const StepSequence& sequence : sequences) {
    TESSERA_CHECK(sequence.first_row >= 0 && sequence.rows >= 0 &&
                  sequence.first_row + sequence.rows <= rows);
    for (int32_t r = 0; r < sequence.rows; ++r)
      (*result)[static_cast<size_t>(sequence.first_row + r)] = {&sequence, int64_t{sequence.start} + r};
  }
  for (const RowPlace& place : *result) TESSERA_CHECK(place.sequence != nullptr, "row without a sequence");
  places_ = result;
  places_key_ = sequences;
  return result;
}

void CpuBackend::embed(std::span<const TokenId> ids, const Matrix& table, float scale, Tensor out) {
  check_matrix(out);
  TESSERA_CHECK(out.rows == static_cast<int64_t>(ids.size()) && out.cols == table.k());
  recorder_.rows(out.rows, {row_access(out)},
                 [this, ids, &table = packed(table), scale, out](int64_t r, int) {
                   table.read_row(ids[static_cast<size_t>(r)], out.f32(r));
                   if (scale != 1.0f) kernels_.scale(out.f32(r), scale, out.cols);
                 });
}

void CpuBackend::rms_norm(Tensor x, std::span<const float> weight, float eps, Tensor out) {
  check_same_shape(x, out);
  const auto group = static_cast<int64_t>(weight.size());
  TESSERA_CHECK(group > 0 && x.cols % group == 0);
  recorder_.rows(x.rows, {row_access(x), row_access(out)},
                 [this, x, weight, eps, out, group](int64_t r, int) {
                   for (int64_t c = 0; c < x.cols; c += group)
                     kernels_.rms_norm(x.f32(r) + c, weight.data(), group, eps, out.f32(r) + c);
                 });
}

void CpuBackend::matmul(Tensor x, const Matrix& w, std::span<const float> bias, Tensor out) {
  check_matrix(x);
  check_matrix(out);
  const PackedMatrix& matrix = packed(w);
  TESSERA_CHECK(x.rows == out.rows && x.cols == matrix.k() && out.cols == matrix.n());
  TESSERA_CHECK(bias.empty() || static_cast<int64_t>(bias.size()) == matrix.n());
  if (x.rows == 0) return;
  MatmulInput input{x.f32(), x.stride, {}};
  if (matrix.needs_quant()) {
    const int64_t groups = matrix.groups();
    if (x.rows * groups > quant_capacity_) {  // ops recorded before keep the smaller one
      quant_ = std::make_shared<QuantBuffer>();
      quant_->reserve(x.rows, groups);
      quant_capacity_ = x.rows * groups;
    }
    input.quant = quant_->rows(groups);
    recorder_.rows(x.rows, {row_access(x)}, [this, x, quant = quant_, rows = input.quant](int64_t r, int) {
      kernels_.quantise(x.f32(r), x.cols, QuantBuffer::at_row(rows, r));
    });
  }
  const PanelRuns runs(matrix, run_width(matrix, pool_->threads()));
  const int64_t row_chunks = (x.rows + kMaxTaskRows - 1) / kMaxTaskRows;
  const float* bias_data = bias.empty() ? nullptr : bias.data();
  recorder_.phase(static_cast<int>(runs.count * row_chunks), [this, runs, row_chunks, input, rows = x.rows,
                                                              bias_data, out, quant = quant_](int task, int) {
    const int64_t first = task % row_chunks * kMaxTaskRows;
    MatmulInput part = input;
    part.x += first * part.x_stride;
    if (part.quant.q != nullptr) part.quant = QuantBuffer::at_row(part.quant, first);
    matmul_run(kernels_, runs.at(task / row_chunks), part, std::min<int64_t>(kMaxTaskRows, rows - first),
               bias_data, out.f32(first), out.stride);
  });
}

void CpuBackend::rope_table(std::span<const StepSequence> sequences, const RopeParams& params, Tensor table) {
  check_matrix(table);
  const int64_t half = params.rotary_dim / 2;
  TESSERA_CHECK(table.cols == params.rotary_dim);
  TESSERA_CHECK(params.inv_freq.size() == params.attention_factor.size() * static_cast<size_t>(half));
  recorder_.rows(table.rows, {row_access(table)},
                 [rows = places(sequences, table.rows), params, half, table](int64_t r, int) {
                   const RowPlace& place = (*rows)[static_cast<size_t>(r)];
                   const auto variant = static_cast<size_t>(place.sequence->rope_variant);
                   TESSERA_CHECK(variant < params.attention_factor.size());
                   const float factor = params.attention_factor[variant];
                   const float* inv_freq = params.inv_freq.data() + variant * static_cast<size_t>(half);
                   float* cosine = table.f32(r);
                   float* sine = cosine + half;
                   for (int64_t i = 0; i < half; ++i) {
                     cos_sin(static_cast<float>(place.position) * inv_freq[i], cosine + i, sine + i);
                     cosine[i] *= factor;
                     sine[i] *= factor;
                   }
                 });
}

void CpuBackend::rope(Tensor x, int head_dim, int rotary_dim, Tensor table) {
  check_matrix(x);
  TESSERA_CHECK(head_dim > 0 && x.cols % head_dim == 0 && rotary_dim <= head_dim &&
                table.cols == rotary_dim && table.rows == x.rows);
  const int64_t half = rotary_dim / 2;
  recorder_.rows(x.rows, {row_access(x), row_access(table)},
                 [this, x, head_dim, half, table](int64_t r, int) {
                   for (int64_t c = 0; c < x.cols; c += head_dim)
                     kernels_.rope(x.f32(r) + c, table.f32(r), table.f32(r) + half, half);
                 });
}

namespace {

// One position's K and V of every KV head into its page.
template <typename T>
void write_position(T* page, int lane, int kv_heads, int head_dim, const T* k, const T* v) {
  T* values = page + int64_t{kv_heads} * head_dim * kKvBlockTokens;
  for (int h = 0; h < kv_heads; ++h) {
    T* keys = page + int64_t{h} * head_dim * kKvBlockTokens;
    for (int d = 0; d < head_dim; ++d) keys[d * kKvBlockTokens + lane] = k[h * head_dim + d];
    std::memcpy(values + (int64_t{h} * kKvBlockTokens + lane) * head_dim, v + h * head_dim,
                sizeof(T) * static_cast<size_t>(head_dim));
  }
}

uint8_t* page_of(const KvView& kv, const RowPlace& place) {
  const auto page = static_cast<size_t>(place.position / kKvBlockTokens);
  TESSERA_CHECK(page < place.sequence->pages.size(), "position past the page table");
  return static_cast<uint8_t*>(kv.data) + place.sequence->pages[page] * kv.page_stride_bytes;
}

}  // namespace

void CpuBackend::kv_write(Tensor k, Tensor v, std::span<const StepSequence> sequences, KvView kv) {
  check_same_shape(k, v);
  TESSERA_CHECK(k.cols == int64_t{kv.kv_heads} * kv.head_dim);
  TESSERA_CHECK(kv.page_stride_bytes >= kv_page_bytes(kv.kv_heads, kv.head_dim, kv.dtype));
  recorder_.rows(k.rows, {row_access(k), row_access(v)},
                 [this, k, v, kv, rows = places(sequences, k.rows)](int64_t r, int) {
                   const RowPlace& place = (*rows)[static_cast<size_t>(r)];
                   uint8_t* page = page_of(kv, place);
                   const int lane = static_cast<int>(place.position % kKvBlockTokens);
                   if (kv.dtype == DType::kF32) {
                     write_position(reinterpret_cast<float*>(page), lane, kv.kv_heads, kv.head_dim, k.f32(r),
                                    v.f32(r));
                     return;
                   }
                   std::vector<uint16_t> narrow(static_cast<size_t>(2 * k.cols));
                   const auto convert = kv.dtype == DType::kF16 ? kernels_.to_f16 : kernels_.to_bf16;
                   convert(k.f32(r), narrow.data(), k.cols);
                   convert(v.f32(r), narrow.data() + k.cols, k.cols);
                   write_position(reinterpret_cast<uint16_t*>(page), lane, kv.kv_heads, kv.head_dim,
                                  narrow.data(), narrow.data() + k.cols);
                 });
}

std::vector<AttentionTask> CpuBackend::attention_tasks(std::span<const StepSequence> sequences,
                                                       const AttentionParams& params) const {
  const int32_t group = params.heads / params.kv_heads;
  // Few sequences: split the query heads of a KV head too, so that every thread has work.
  int32_t heads = std::min<int32_t>(group, kMaxAttentionPairs / 2);
  int64_t rows = 0;
  for (const StepSequence& sequence : sequences) rows += sequence.rows;
  while (heads > 1 && rows * params.kv_heads * (group / heads) < 2 * pool_->threads())
    heads = (heads + 1) / 2;
  const int32_t rows_a_task = std::max<int32_t>(1, kMaxAttentionPairs / heads);
  std::vector<AttentionTask> tasks;
  for (const StepSequence& sequence : sequences) {
    // the last rows see the most keys: they come first, so that no thread ends on a long task
    for (int32_t end = sequence.rows; end > 0; end -= rows_a_task) {
      const int32_t row = std::max(0, end - rows_a_task);
      for (int32_t kv_head = 0; kv_head < params.kv_heads; ++kv_head)
        for (int32_t first = 0; first < group; first += heads)
          tasks.push_back(
              {&sequence, row, end - row, kv_head, kv_head * group + first, std::min(heads, group - first)});
    }
  }
  return tasks;
}

void CpuBackend::attention(Tensor q, KvView kv, std::span<const StepSequence> sequences,
                           const AttentionParams& params, Tensor out) {
  check_same_shape(q, out);
  TESSERA_CHECK(params.kv_heads > 0 && params.heads % params.kv_heads == 0);
  TESSERA_CHECK(kv.kv_heads == params.kv_heads && kv.head_dim == params.head_dim);
  TESSERA_CHECK(q.cols == int64_t{params.heads} * params.head_dim);
  for (const StepSequence& sequence : sequences)
    TESSERA_CHECK(static_cast<int64_t>(sequence.pages.size()) * kKvBlockTokens >=
                      int64_t{sequence.start} + sequence.rows,
                  "position past the page table");
  std::vector<AttentionTask> tasks = attention_tasks(sequences, params);
  const auto count = static_cast<int>(tasks.size());
  recorder_.phase(count, [this, q, kv, params, out, tasks = std::move(tasks)](int index, int worker) {
    const AttentionTask& task = tasks[static_cast<size_t>(index)];
    const StepSequence& sequence = *task.sequence;
    auto& scratch = attention_scratch_[static_cast<size_t>(worker)];
    scratch.resize(static_cast<size_t>(attention_scratch_floats(params.head_dim)) + 16);
    const int64_t row = sequence.first_row + task.row;
    const int64_t head_bytes = int64_t{kv.head_dim} * kKvBlockTokens * kv_bytes(kv.dtype);
    AttentionCall call;
    call.q = q.f32(row) + int64_t{task.head} * params.head_dim;
    call.q_stride = q.stride;
    call.out = out.f32(row) + int64_t{task.head} * params.head_dim;
    call.out_stride = out.stride;
    call.rows = task.rows;
    call.heads = task.heads;
    call.head_dim = params.head_dim;
    call.position = int64_t{sequence.start} + task.row;
    call.pages = sequence.pages.data();
    call.kv = static_cast<const uint8_t*>(kv.data);
    call.page_stride = kv.page_stride_bytes;
    call.k_offset = task.kv_head * head_bytes;
    call.v_offset = (kv.kv_heads + task.kv_head) * head_bytes;
    call.kind = kv.dtype == DType::kF32   ? KvKind::kF32
                : kv.dtype == DType::kF16 ? KvKind::kF16
                                          : KvKind::kBF16;
    call.scale = params.scale;
    call.softcap = params.softcap;
    call.window = params.window;
    call.scratch =
        scratch.data() + (64 - reinterpret_cast<uintptr_t>(scratch.data()) % 64) % 64 / sizeof(float);
    kernels_.attention(call);
  });
}

void CpuBackend::gated_activation(Tensor gate_up, Activation activation, Tensor out) {
  check_matrix(gate_up);
  check_matrix(out);
  TESSERA_CHECK(gate_up.rows == out.rows && gate_up.cols == 2 * out.cols);
  recorder_.rows(out.rows, {row_access(gate_up), row_access(out)},
                 [this, gate_up, activation, out](int64_t r, int) {
                   kernels_.gated_activation(gate_up.f32(r), gate_up.f32(r) + out.cols,
                                             static_cast<int>(activation), out.cols, out.f32(r));
                 });
}

void CpuBackend::moe(Tensor x, const MoeParams& params, Tensor out) {
  check_same_shape(x, out);
  if (x.rows == 0) return;
  moe_.record(recorder_, kernels_, pool_->threads(), x, params, out,
              [this](Tensor in, const PackedMatrix& w, Tensor result) { matmul(in, w, {}, result); });
}

void CpuBackend::add(Tensor x, Tensor y) {
  check_same_shape(x, y);
  recorder_.rows(x.rows, {row_access(x), row_access(y)},
                 [this, x, y](int64_t r, int) { kernels_.add(x.f32(r), y.f32(r), x.cols); });
}

void CpuBackend::softcap(Tensor x, float cap) {
  check_matrix(x);
  recorder_.rows(x.rows, {row_access(x)},
                 [this, x, cap](int64_t r, int) { kernels_.softcap(x.f32(r), cap, x.cols); });
}

void CpuBackend::round_to(Tensor x, DType dtype) {
  check_matrix(x);
  if (dtype == DType::kF32) return;
  TESSERA_CHECK(dtype == DType::kF16 || dtype == DType::kBF16);
  const auto round = dtype == DType::kF16 ? kernels_.round_f16 : kernels_.round_bf16;
  recorder_.rows(x.rows, {row_access(x)}, [x, round](int64_t r, int) { round(x.f32(r), x.cols); });
}

void CpuBackend::gather_rows(Tensor x, std::span<const int32_t> rows, Tensor out) {
  check_matrix(x);
  check_matrix(out);
  TESSERA_CHECK(out.rows == static_cast<int64_t>(rows.size()) && out.cols == x.cols);
  for (const int32_t row : rows) TESSERA_CHECK(row >= 0 && row < x.rows);
  RowAccess anywhere = row_access(x);
  anywhere.any_row = true;
  recorder_.rows(out.rows, {anywhere, row_access(out)}, [x, rows, out](int64_t r, int) {
    std::memcpy(out.f32(r), x.f32(rows[static_cast<size_t>(r)]), sizeof(float) * static_cast<size_t>(x.cols));
  });
}

void CpuBackend::copy(Tensor x, Tensor out) {
  check_same_shape(x, out);
  recorder_.rows(x.rows, {row_access(x), row_access(out)}, [x, out](int64_t r, int) {
    std::memcpy(out.f32(r), x.f32(r), sizeof(float) * static_cast<size_t>(x.cols));
  });
}

void CpuBackend::sample(Tensor logits, std::span<const SampleRequest> requests, std::span<SampledToken> out) {
  check_matrix(logits);
  TESSERA_CHECK(logits.rows == static_cast<int64_t>(requests.size()) && requests.size() == out.size());
  for (const SampleRequest& request : requests) TESSERA_CHECK(request.params != nullptr);
  recorder_.phase(static_cast<int>(logits.rows), [this, logits, requests, out](int i, int worker) {
    const VocabKernels vocab{kernels_.all_finite, kernels_.max, kernels_.exp_shifted, kernels_.sum_exp};
    const auto index = static_cast<size_t>(i);
    out[index] = sample_token({logits.f32(i), static_cast<size_t>(logits.cols)}, requests[index], vocab,
                              sample_scratch_[static_cast<size_t>(worker)]);
  });
}

std::unique_ptr<Backend> make_cpu_backend(std::shared_ptr<ThreadPool> pool, CpuOptions options) {
  return std::make_unique<CpuBackend>(std::move(pool), options);
}

}  // namespace tessera::tensor
