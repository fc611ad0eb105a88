#include "app/model_shape.h"

#include <algorithm>

#include "weights/needed.h"

namespace tessera::app {

Result<control::ModelShape> model_shape(const OpenedModel& opened, int context) {
  const model::ModelSpec& spec = opened.spec;
  const tensor::MatrixFormat format = opened.exact_products ? tensor::MatrixFormat::kF32 : opened.format;
  auto bytes_of = [&](int first, int last) {
    return model::estimate_weight_bytes(spec, *opened.source, {first, last}, format);
  };
  control::ModelShape shape;
  shape.name = opened.served_name;
  shape.num_blocks = spec.num_blocks;
  const int last = spec.num_blocks - 1;
  // What the ends hold beside their block is told apart by an inner block, where there is one.
  TESSERA_ASSIGN_OR_RETURN(const uint64_t inner, bytes_of(last / 2, last / 2 + 1));
  for (int block = 0; block <= last; ++block) {
    TESSERA_ASSIGN_OR_RETURN(uint64_t bytes, bytes_of(block, block + 1));
    if (last > 1 && block == 0) {
      shape.head_bytes = bytes - std::min(bytes, inner);
      bytes -= shape.head_bytes;
    }
    if (last > 1 && block == last) {
      shape.tail_bytes = bytes - std::min(bytes, inner);
      bytes -= shape.tail_bytes;
    }
    shape.block_bytes.push_back(bytes);
  }
  shape.tied_embedding = spec.tied_embedding;
  const auto backend = tensor::make_cpu_backend(tensor::make_thread_pool(1));
  shape.kv_bytes_per_token = static_cast<uint64_t>(
      backend->kv_page_bytes(spec.kv_heads, spec.head_dim, opened.kv_dtype) / kKvBlockTokens);
  shape.row_bytes = static_cast<uint64_t>(spec.hidden) * sizeof(float);
  shape.context_length = context;
  shape.min_context = context;
  const BlockRange sample{last / 2, last / 2 + 1};
  TESSERA_ASSIGN_OR_RETURN(std::vector<std::string> names,
                           weights::needed_tensors(spec, *opened.source, sample));
  double parameters = 0;
  for (const std::string& name : names)
    parameters += static_cast<double>(opened.source->find(name)->elements());
  // Of a mixture of experts a token passes only some.
  if (spec.experts > 0 && spec.experts_per_token > 0)
    parameters *= static_cast<double>(spec.experts_per_token) / spec.experts;
  if (parameters > 0) shape.bytes_per_parameter = static_cast<double>(inner) / parameters;
  return shape;
}

}  // namespace tessera::app
