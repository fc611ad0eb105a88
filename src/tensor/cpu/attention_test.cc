// KV pages, attention and rotary tables: right values, and the same bits whatever the instruction set, the
// threads, the batch and the chunks in which a prompt was fed.
#include <algorithm>
#include <limits>

#include "tensor/cpu/op_test_util.h"

namespace tessera::tensor {
namespace {

struct Shape {
  int heads;
  int kv_heads;
  int head_dim;
  DType dtype;
  int window;
  float softcap;
};

// One sequence of `length` positions with q, k, v of every position.
struct Sequence {
  Sequence(const Shape& shape, int64_t length, uint32_t seed)
      : length(length),
        q(random_floats(static_cast<size_t>(length * shape.heads * shape.head_dim), seed)),
        k(random_floats(static_cast<size_t>(length * shape.kv_heads * shape.head_dim), seed + 1)),
        v(random_floats(static_cast<size_t>(length * shape.kv_heads * shape.head_dim), seed + 2)) {}
  int64_t length;
  std::vector<float> q, k, v;
  std::vector<int32_t> pages;
};

// Pages full of NaN, so that reading a position that nobody wrote shows.
class Memory {
 public:
  Memory(Backend& backend, const Shape& shape, int pages)
      : stride_(backend.kv_page_bytes(shape.kv_heads, shape.head_dim, shape.dtype) + 64),
        data_(static_cast<size_t>(stride_ * pages), 0xff),
        view_{data_.data(), stride_, shape.dtype, shape.kv_heads, shape.head_dim} {}
  KvView view() const { return view_; }

 private:
  int64_t stride_;
  std::vector<uint8_t> data_;
  KvView view_;
};

AttentionParams params_of(const Shape& s) {
  return {s.heads,   s.kv_heads, s.head_dim, 1.0f / std::sqrt(static_cast<float>(s.head_dim)),
          s.softcap, s.window};
}

// Feeds rows [begin, end) of one sequence; out [end - begin, heads * head_dim].
std::vector<float> feed(Backend& backend, const Shape& shape, Memory& memory, Sequence& s, int64_t begin,
                        int64_t end) {
  const int64_t q_cols = int64_t{shape.heads} * shape.head_dim;
  const int64_t kv_cols = int64_t{shape.kv_heads} * shape.head_dim;
  const int64_t rows = end - begin;
  std::vector<float> out(static_cast<size_t>(rows * q_cols), -7.0f);
  StepSequence step;
  step.rows = static_cast<int32_t>(rows);
  step.start = static_cast<int32_t>(begin);
  step.pages = s.pages;
  const std::vector<StepSequence> steps = {step};
  Tensor q = tensor_of(s.q, s.length, q_cols).slice_rows(begin, rows);
  Tensor k = tensor_of(s.k, s.length, kv_cols).slice_rows(begin, rows);
  Tensor v = tensor_of(s.v, s.length, kv_cols).slice_rows(begin, rows);
  backend.kv_write(k, v, steps, memory.view());
  backend.attention(q, memory.view(), steps, params_of(shape), tensor_of(out, rows, q_cols));
  run(backend);
  return out;
}

float rounded(float x, DType dtype) {
  if (dtype == DType::kF16) return f16_to_f32(f32_to_f16(x));
  if (dtype == DType::kBF16) return bf16_to_f32(f32_to_bf16(x));
  return x;
}

std::vector<double> reference(const Shape& s, const Sequence& seq) {
  const AttentionParams p = params_of(s);
  std::vector<double> out(seq.q.size(), 0.0);
  const auto at = [&](const std::vector<float>& kv, int64_t pos, int head, int d) {
    return static_cast<double>(
        rounded(kv[static_cast<size_t>((pos * s.kv_heads + head) * s.head_dim + d)], s.dtype));
  };
  for (int64_t row = 0; row < seq.length; ++row) {
    for (int h = 0; h < s.heads; ++h) {
      const int kv_head = h / (s.heads / s.kv_heads);
      const int64_t first = s.window > 0 ? std::max<int64_t>(0, row - s.window + 1) : 0;
      std::vector<double> score;
      for (int64_t pos = first; pos <= row; ++pos) {
        double dot = 0;
        for (int d = 0; d < s.head_dim; ++d)
          dot += static_cast<double>(seq.q[static_cast<size_t>((row * s.heads + h) * s.head_dim + d)]) *
                 at(seq.k, pos, kv_head, d);
        dot *= static_cast<double>(p.scale);
        if (s.softcap > 0)
          dot = static_cast<double>(s.softcap) * std::tanh(dot / static_cast<double>(s.softcap));
        score.push_back(dot);
      }
      const double best = *std::max_element(score.begin(), score.end());
      double total = 0;
      for (double& x : score) total += x = std::exp(x - best);
      for (size_t j = 0; j < score.size(); ++j)
        for (int d = 0; d < s.head_dim; ++d)
          out[static_cast<size_t>((row * s.heads + h) * s.head_dim + d)] +=
              score[j] / total * at(seq.v, first + static_cast<int64_t>(j), kv_head, d);
    }
  }
  return out;
}

std::vector<Shape> shapes() {
  return {{4, 4, 64, DType::kF32, 0, 0.0f},  {9, 3, 64, DType::kF16, 0, 0.0f},
          {8, 2, 40, DType::kBF16, 0, 0.0f}, {2, 1, 16, DType::kF16, 24, 0.0f},
          {4, 2, 72, DType::kF32, 5, 20.0f}, {6, 1, 128, DType::kF16, 0, 30.0f},
          {40, 1, 8, DType::kF32, 17, 0.0f}};
}

class AttentionTest : public OpTest {};

TEST_P(AttentionTest, MatchesReferenceAndPortableBitsInAnyChunks) {
  for (const Shape& shape : shapes()) {
    SCOPED_TRACE(std::to_string(shape.heads) + " heads of " + std::to_string(shape.head_dim));
    constexpr int64_t kLength = 77;
    Sequence s(shape, kLength, 5);
    s.pages = {3, 0, 5, 1, 4};
    const auto portable = reference_backend();
    Memory memory(*portable, shape, 6);
    const std::vector<float> whole = feed(*portable, shape, memory, s, 0, kLength);
    EXPECT_TRUE(close_to(whole, reference(shape, s), 2e-5));
    for (const int threads : {1, 2, 3, 4}) {
      const auto backend = make(threads);
      for (const int64_t chunk : {kLength, int64_t{1}, int64_t{7}, int64_t{16}, int64_t{33}}) {
        Memory fresh(*backend, shape, 6);
        std::vector<float> out;
        for (int64_t begin = 0; begin < kLength; begin += chunk) {
          const auto part = feed(*backend, shape, fresh, s, begin, std::min(kLength, begin + chunk));
          out.insert(out.end(), part.begin(), part.end());
        }
        EXPECT_TRUE(same_bits(out, whole)) << threads << " threads, chunks of " << chunk;
      }
    }
  }
}

TEST_P(AttentionTest, SequencesOfABatchDoNotTouchEachOther) {
  const Shape shape{6, 2, 32, DType::kF16, 0, 0.0f};
  const auto backend = make(2);
  const int64_t q_cols = 6 * 32, kv_cols = 2 * 32;
  std::vector<Sequence> sequences;
  std::vector<std::vector<float>> alone;
  const int64_t lengths[] = {40, 1, 17, 33};
  int32_t page = 0;
  for (uint32_t i = 0; i < 4; ++i) {
    sequences.emplace_back(shape, lengths[i], 50 + i);
    for (int64_t p = 0; p < lengths[i]; p += 16) sequences.back().pages.push_back(page++);
    Memory memory(*backend, shape, 16);
    alone.push_back(feed(*backend, shape, memory, sequences.back(), 0, lengths[i]));
  }
  // one batch: all rows of each sequence behind one another
  std::vector<float> q, k, v;
  std::vector<StepSequence> steps;
  for (const Sequence& s : sequences) {
    StepSequence step;
    step.first_row = static_cast<int32_t>(q.size() / q_cols);
    step.rows = static_cast<int32_t>(s.length);
    step.pages = s.pages;
    steps.push_back(step);
    q.insert(q.end(), s.q.begin(), s.q.end());
    k.insert(k.end(), s.k.begin(), s.k.end());
    v.insert(v.end(), s.v.begin(), s.v.end());
  }
  const auto rows = static_cast<int64_t>(q.size()) / q_cols;
  std::vector<float> out(q.size());
  Memory memory(*backend, shape, 16);
  backend->kv_write(tensor_of(k, rows, kv_cols), tensor_of(v, rows, kv_cols), steps, memory.view());
  backend->attention(tensor_of(q, rows, q_cols), memory.view(), steps, params_of(shape),
                     tensor_of(out, rows, q_cols));
  run(*backend);
  std::vector<float> expected;
  for (const auto& part : alone) expected.insert(expected.end(), part.begin(), part.end());
  EXPECT_TRUE(same_bits(out, expected));
}

TEST_P(AttentionTest, RopeTableAndRotation) {
  const auto backend = make();
  const int rotary = 24, head_dim = 40, heads = 3;
  std::vector<float> inv_freq;
  for (int variant = 0; variant < 2; ++variant)
    for (int i = 0; i < rotary / 2; ++i)
      inv_freq.push_back(std::pow(10000.0f, -2.0f * static_cast<float>(i) / rotary) /
                         static_cast<float>(variant + 1));
  const std::vector<float> factor = {1.0f, 1.25f};
  const std::vector<int32_t> pages(70000);
  std::vector<StepSequence> steps(2);
  steps[0].rows = 5;
  steps[0].start = 3;
  steps[0].pages = pages;
  steps[1].first_row = 5;
  steps[1].rows = 4;
  steps[1].start = 999990;
  steps[1].rope_variant = 1;
  steps[1].pages = pages;
  std::vector<float> table(9 * rotary), x = random_floats(9 * head_dim * heads, 3);
  const std::vector<float> before = x;
  backend->rope_table(steps, {inv_freq, factor, rotary}, tensor_of(table, 9, rotary));
  backend->rope(tensor_of(x, 9, head_dim * heads), head_dim, rotary, tensor_of(table, 9, rotary));
  run(*backend);
  for (int r = 0; r < 9; ++r) {
    const int variant = r < 5 ? 0 : 1;
    const float position = static_cast<float>(r < 5 ? 3 + r : 999990 + r - 5);
    for (int i = 0; i < rotary / 2; ++i) {
      const float angle = position * inv_freq[static_cast<size_t>(variant * rotary / 2 + i)];
      const double f = static_cast<double>(factor[static_cast<size_t>(variant)]);
      const double c = std::cos(static_cast<double>(angle)) * f, s = std::sin(static_cast<double>(angle)) * f;
      EXPECT_NEAR(static_cast<double>(table[static_cast<size_t>(r * rotary + i)]), c, 1.3e-7);
      EXPECT_NEAR(static_cast<double>(table[static_cast<size_t>(r * rotary + rotary / 2 + i)]), s, 1.3e-7);
      for (int h = 0; h < heads; ++h) {
        const size_t at = static_cast<size_t>((r * heads + h) * head_dim + i);
        const double a = static_cast<double>(before[at]), b = static_cast<double>(before[at + rotary / 2]);
        EXPECT_NEAR(static_cast<double>(x[at]), a * c - b * s, 2e-6);
        EXPECT_NEAR(static_cast<double>(x[at + rotary / 2]), b * c + a * s, 2e-6);
      }
    }
    for (int i = rotary; i < head_dim; ++i)
      EXPECT_EQ(x[static_cast<size_t>(r * heads * head_dim + i)],
                before[static_cast<size_t>(r * heads * head_dim + i)]);
  }
}

TESSERA_FOR_EVERY_ISA(AttentionTest);

}  // namespace
}  // namespace tessera::tensor
