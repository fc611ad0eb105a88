#include "text/token_model.h"

namespace tessera::text {

Status Vocabulary::add(std::string piece, int32_t id) {
  if (id < 0 || id > kMaxId)
    return corrupt("tokenizer: token id " + std::to_string(id) + " is outside 0 to " +
                   std::to_string(kMaxId));
  if (id >= size()) pieces_.resize(static_cast<size_t>(id) + 1);
  auto& slot = pieces_[static_cast<size_t>(id)];
  if (slot != nullptr)
    return corrupt("tokenizer: token id " + std::to_string(id) + " is given to two pieces");
  slot = std::make_unique<const std::string>(std::move(piece));
  ids_.emplace(*slot, id);
  return {};
}

}  // namespace tessera::text
