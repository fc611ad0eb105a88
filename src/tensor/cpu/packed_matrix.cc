#include "tensor/cpu/packed_matrix.h"

#include <algorithm>
#include <cstring>
#include <string>

#include "tensor/cpu/block_formats.h"
#include "tensor/cpu/cpu_backend.h"
#include "tensor/cpu/quantise_weights.h"
#include "tensor/cpu/thread_pool.h"

namespace tessera::tensor {

namespace {

using Segment = PackedMatrix::Segment;

bool has_min(WeightKind kind) {
  return kind == WeightKind::kQ4M || kind == WeightKind::kQ5M || kind == WeightKind::kQ4K ||
         kind == WeightKind::kQ5K;
}
bool has_super_blocks(WeightKind kind) {
  return kind == WeightKind::kQ4K || kind == WeightKind::kQ5K || kind == WeightKind::kQ6K;
}
Result<WeightKind> kind_for(DType dtype, MatrixFormat format) {
  switch (dtype) {
    case DType::kF32:
    case DType::kF16:
    case DType::kBF16:
      break;
    case DType::kQ8_0:
    case DType::kQ4_0:
    case DType::kQ4_1:
    case DType::kQ5_0:
    case DType::kQ5_1:
    case DType::kQ4_K:
    case DType::kQ5_K:
    case DType::kQ6_K:
      break;
    default:
      return unsupported("weights of type " + std::string(dtype_info(dtype).name) + " are not supported");
  }
  if (format == MatrixFormat::kF32) return WeightKind::kF32;
  const bool four_bits = dtype == DType::kQ4_0 || dtype == DType::kQ4_1 || dtype == DType::kQ4_K;
  if (format == MatrixFormat::kInt4 && !four_bits) return WeightKind::kQ4M;
  if (format == MatrixFormat::kInt8 && !is_quantised(dtype)) return WeightKind::kQ8;
  switch (dtype) {
    case DType::kF16:
      return WeightKind::kF16;
    case DType::kBF16:
      return WeightKind::kBF16;
    case DType::kQ8_0:
      return WeightKind::kQ8;
    case DType::kQ5_0:
      return WeightKind::kQ5;
    case DType::kQ5_1:
      return WeightKind::kQ5M;
    case DType::kQ4_0:
      return WeightKind::kQ4;
    case DType::kQ4_1:
      return WeightKind::kQ4M;
    case DType::kQ4_K:
      return WeightKind::kQ4K;
    case DType::kQ5_K:
      return WeightKind::kQ5K;
    case DType::kQ6_K:
      return WeightKind::kQ6K;
    default:
      return WeightKind::kF32;
  }
}

// Whether this kind holds this type's codes as they are.
bool keeps_codes(DType dtype, WeightKind kind) {
  return is_quantised(dtype) && kind_for(dtype, MatrixFormat::kAuto).value() == kind &&
         !(kind == WeightKind::kQ4M && dtype != DType::kQ4_1);
}

void put_u16(uint8_t* panel, int64_t offset, int64_t slot, int lane, uint16_t v) {
  std::memcpy(panel + offset + (slot * kPanelRows + lane) * 2, &v, 2);
}
uint16_t get_u16(const uint8_t* panel, int64_t offset, int64_t slot, int lane) {
  uint16_t v;
  std::memcpy(&v, panel + offset + (slot * kPanelRows + lane) * 2, 2);
  return v;
}

// Code i of a group: its byte in the plane of low bits (8-bit codes: of the whole code), and how its upper
// bits lie in the plane behind, if there is one.
struct CodePlace {
  int64_t byte;
  int shift;        // of the low 4 bits in their byte
  int64_t upper;    // byte of the upper bits
  int upper_shift;  // of the upper bits in their byte
};
CodePlace code_place(WeightKind kind, int i, int lane) {
  const int quad = i / 4;
  const int slot = lane * 4 + i % 4;
  if (code_bits(kind) == 8) return {quad * 64 + slot, 0, 0, 0};
  CodePlace place{quad % 4 * 64 + slot, quad / 4 * 4, 256 + slot, quad};
  if (code_bits(kind) == 6) {
    place.upper += quad / 4 * 64;
    place.upper_shift = quad % 4 * 2;
  }
  return place;
}

void put_group(const Segment& s, uint8_t* panel, int64_t g, int lane, const GroupCodes& group) {
  uint8_t* codes = panel + g * code_group_bytes(s.kind);
  const int bits = code_bits(s.kind);
  const int low_mask = bits == 8 ? 255 : 15;
  const auto put = [&](int64_t at, int v) { codes[at] = static_cast<uint8_t>(codes[at] | v); };
  for (int i = 0; i < kGroup; ++i) {
    const CodePlace place = code_place(s.kind, i, lane);
    put(place.byte, (group.code[i] & low_mask) << place.shift);
    if (bits == 5 || bits == 6) put(place.upper, group.code[i] >> 4 << place.upper_shift);
  }
  const int64_t slot = has_super_blocks(s.kind) ? g / kSuperGroups : g;
  put_u16(panel, s.layout.scale, slot, lane, group.scale);
  if (has_min(s.kind)) put_u16(panel, s.layout.min, slot, lane, group.min);
  if (s.kind == WeightKind::kQ6K) {
    for (int part = 0; part < 2; ++part)
      panel[s.layout.sub_scale + (2 * g + part) * kPanelRows + lane] = group.sub_scale[part];
  } else if (has_super_blocks(s.kind)) {
    panel[s.layout.sub_scale + g * kPanelRows + lane] = group.sub_scale[0];
    panel[s.layout.sub_min + g * kPanelRows + lane] = group.sub_min;
  }
}

void get_group(const Segment& s, const uint8_t* panel, int64_t g, int lane, GroupCodes& group) {
  const uint8_t* codes = panel + g * code_group_bytes(s.kind);
  const int bits = code_bits(s.kind);
  for (int i = 0; i < kGroup; ++i) {
    const CodePlace place = code_place(s.kind, i, lane);
    int code = codes[place.byte];
    if (bits < 8) code = code >> place.shift & 15;
    if (bits == 5) code |= (codes[place.upper] >> place.upper_shift & 1) << 4;
    if (bits == 6) code |= (codes[place.upper] >> place.upper_shift & 3) << 4;
    group.code[i] = static_cast<uint8_t>(code);
  }
  const int64_t slot = has_super_blocks(s.kind) ? g / kSuperGroups : g;
  group.scale = get_u16(panel, s.layout.scale, slot, lane);
  if (has_min(s.kind)) group.min = get_u16(panel, s.layout.min, slot, lane);
  if (s.kind == WeightKind::kQ6K) {
    for (int part = 0; part < 2; ++part)
      group.sub_scale[part] = panel[s.layout.sub_scale + (2 * g + part) * kPanelRows + lane];
  } else if (has_super_blocks(s.kind)) {
    group.sub_scale[0] = panel[s.layout.sub_scale + g * kPanelRows + lane];
    group.sub_min = panel[s.layout.sub_min + g * kPanelRows + lane];
  }
}

// The GGUF type whose codes and formula a quantised kind has.
DType codes_of(WeightKind kind) {
  switch (kind) {
    case WeightKind::kQ8:
      return DType::kQ8_0;
    case WeightKind::kQ5:
      return DType::kQ5_0;
    case WeightKind::kQ5M:
      return DType::kQ5_1;
    case WeightKind::kQ4:
      return DType::kQ4_0;
    case WeightKind::kQ4M:
      return DType::kQ4_1;
    case WeightKind::kQ4K:
      return DType::kQ4_K;
    case WeightKind::kQ5K:
      return DType::kQ5_K;
    case WeightKind::kQ6K:
      return DType::kQ6_K;
    default:
      return DType::kF32;
  }
}

// One stored row of a piece into lane `lane` of a panel.
void pack_row(const Segment& s, DType dtype, const uint8_t* row, uint8_t* panel, int lane, float* scratch) {
  const int64_t k = s.layout.k;
  if (s.kind == WeightKind::kF16 || s.kind == WeightKind::kBF16) {
    for (int64_t i = 0; i < k; ++i) std::memcpy(panel + (i * kPanelRows + lane) * 2, row + i * 2, 2);
    return;
  }
  GroupCodes group;
  if (keeps_codes(dtype, s.kind)) {
    for (int64_t g = 0; g < s.layout.groups; ++g) {
      read_group(dtype, row, g, group);
      put_group(s, panel, g, lane, group);
    }
    return;
  }
  const size_t row_bytes = dtype_bytes(dtype, static_cast<uint64_t>(k)).value();
  const Status status = dequantise(dtype, {row, row_bytes}, {scratch, static_cast<size_t>(k)});
  TESSERA_CHECK(status.ok(), status.message());
  if (s.kind == WeightKind::kF32) {
    for (int64_t i = 0; i < k; ++i) std::memcpy(panel + (i * kPanelRows + lane) * 4, scratch + i, 4);
    return;
  }
  std::fill(scratch + k, scratch + s.layout.groups * kGroup, 0.0f);
  for (int64_t g = 0; g < s.layout.groups; ++g) {
    if (s.kind == WeightKind::kQ8) {
      quantise_int8_group(scratch + g * kGroup, group);
    } else {
      quantise_int4_group(scratch + g * kGroup, static_cast<int>(std::min<int64_t>(kGroup, k - g * kGroup)),
                          group);
    }
    put_group(s, panel, g, lane, group);
  }
}

// A segment row's place in the source.
struct RowSource {
  DType dtype;
  const uint8_t* data;
};

}  // namespace

std::string_view weight_kind_name(WeightKind kind) {
  static constexpr std::string_view kNames[] = {"f32", "f16", "bf16", "q8",  "q5", "q5m",
                                                "q4",  "q4m", "q4k",  "q5k", "q6k"};
  return kNames[static_cast<size_t>(kind)];
}

PanelLayout panel_layout(WeightKind kind, int64_t k) {
  PanelLayout layout;
  layout.k = k;
  if (is_float_kind(kind)) {
    layout.stride = k * kPanelRows * (kind == WeightKind::kF32 ? 4 : 2);
    return layout;
  }
  layout.groups = (k + kGroup - 1) / kGroup;
  const bool super = has_super_blocks(kind);
  const int64_t slots = super ? (layout.groups + kSuperGroups - 1) / kSuperGroups : layout.groups;
  int64_t end = layout.groups * code_group_bytes(kind);
  const auto place = [&](int64_t bytes) {
    const int64_t at = end;
    end += bytes;
    return at;
  };
  layout.scale = place(slots * kPanelRows * 2);
  if (has_min(kind)) layout.min = place(slots * kPanelRows * 2);
  if (super) layout.sub_scale = place(layout.groups * kPanelRows * (kind == WeightKind::kQ6K ? 2 : 1));
  if (super && has_min(kind)) layout.sub_min = place(layout.groups * kPanelRows);
  layout.stride = (end + 63) / 64 * 64;
  return layout;
}

Result<std::unique_ptr<PackedMatrix>> PackedMatrix::pack(const MatrixSource& source, MatrixFormat format,
                                                         ThreadPool& pool) {
  auto matrix = std::make_unique<PackedMatrix>();
  matrix->k_ = source.k;
  if (source.k <= 0) return invalid_argument("a matrix of no columns");
  std::vector<RowSource> rows;
  for (const MatrixPiece& piece : source.pieces) {
    TESSERA_ASSIGN_OR_RETURN(const WeightKind kind, kind_for(piece.dtype, format));
    TESSERA_ASSIGN_OR_RETURN(const uint64_t row_bytes,
                             dtype_bytes(piece.dtype, static_cast<uint64_t>(source.k)));
    TESSERA_CHECK(piece.row_order.empty() || static_cast<int64_t>(piece.row_order.size()) == piece.rows);
    if (piece.rows == 0) continue;
    if (matrix->segments_.empty() || matrix->segments_.back().kind != kind) {
      Segment segment;
      segment.kind = kind;
      segment.layout = panel_layout(kind, source.k);
      segment.first_row = matrix->n_;
      matrix->segments_.push_back(std::move(segment));
    }
    matrix->segments_.back().rows += piece.rows;
    matrix->n_ += piece.rows;
    (is_float_kind(kind) ? matrix->needs_float_ : matrix->needs_quant_) = true;
    for (int64_t i = 0; i < piece.rows; ++i) {
      const int64_t from = piece.row_order.empty() ? i : piece.row_order[static_cast<size_t>(i)];
      TESSERA_CHECK(from >= 0 && from < piece.rows);
      rows.push_back({piece.dtype, piece.data + static_cast<uint64_t>(from) * row_bytes});
    }
  }
  if (matrix->n_ == 0) return invalid_argument("a matrix of no rows");

  std::vector<Phase> phases;
  for (Segment& segment : matrix->segments_) {
    const uint64_t bytes =
        static_cast<uint64_t>(segment.panels()) * static_cast<uint64_t>(segment.layout.stride);
    TESSERA_ASSIGN_OR_RETURN(segment.memory, AlignedMemory::allocate(bytes));
    if (!matrix->format_.empty()) matrix->format_ += "+";
    matrix->format_ += weight_kind_name(segment.kind);
    phases.push_back({static_cast<int>(segment.panels()), [&segment, &rows](int p, int) {
                        std::vector<float> scratch(
                            static_cast<size_t>((segment.layout.k + kGroup - 1) / kGroup * kGroup));
                        uint8_t* panel = segment.memory.data() + p * segment.layout.stride;
                        for (int lane = 0; lane < kPanelRows; ++lane) {
                          const int64_t row = static_cast<int64_t>(p) * kPanelRows + lane;
                          if (row >= segment.rows) break;
                          const RowSource& from = rows[static_cast<size_t>(segment.first_row + row)];
                          pack_row(segment, from.dtype, from.data, panel, lane, scratch.data());
                        }
                      }});
  }
  pool.run(std::move(phases));
  return matrix;
}

Result<std::unique_ptr<PackedMatrix>> PackedMatrix::widened(ThreadPool& pool) const {
  std::vector<float> values(static_cast<size_t>(n_ * k_));
  for (int64_t row = 0; row < n_; ++row) read_row(row, values.data() + row * k_);
  MatrixSource source;
  source.k = k_;
  source.pieces.push_back({DType::kF32, reinterpret_cast<const uint8_t*>(values.data()), n_, {}});
  return pack(source, MatrixFormat::kF32, pool);
}

uint64_t PackedMatrix::bytes() const {
  uint64_t bytes = 0;
  for (const Segment& segment : segments_) bytes += segment.memory.bytes();
  return bytes;
}

void PackedMatrix::read_row(int64_t n, float* out) const {
  TESSERA_CHECK(n >= 0 && n < n_);
  const Segment* s = &segments_.front();
  while (n >= s->first_row + s->rows) ++s;
  const int64_t row = n - s->first_row;
  const int lane = static_cast<int>(row % kPanelRows);
  const uint8_t* panel = s->memory.data() + row / kPanelRows * s->layout.stride;
  if (s->kind == WeightKind::kF32) {
    for (int64_t i = 0; i < k_; ++i) std::memcpy(out + i, panel + (i * kPanelRows + lane) * 4, 4);
    return;
  }
  if (is_float_kind(s->kind)) {
    for (int64_t i = 0; i < k_; ++i) {
      const uint16_t v = get_u16(panel, 0, i, lane);
      out[i] = s->kind == WeightKind::kF16 ? f16_to_f32(v) : bf16_to_f32(v);
    }
    return;
  }
  GroupCodes group;
  float values[kGroup];
  for (int64_t g = 0; g < s->layout.groups; ++g) {
    get_group(*s, panel, g, lane, group);
    group_values(codes_of(s->kind), group, values);
    std::copy(values, values + std::min<int64_t>(kGroup, k_ - g * kGroup), out + g * kGroup);
  }
}

}  // namespace tessera::tensor
