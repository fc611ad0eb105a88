// The `loop` variable: reads its items as late as the template lets it.
#include "text/jinja_macro.h"

namespace tessera::text::jinja {

bool LoopObject::pull(Value& item) {
  if (is_drained_) {
    if (drained_position_ >= drained_.size()) return false;
    item = drained_[drained_position_++];
    return true;
  }
  while (reader_.next(item))
    if (!accepts_ || accepts_(item)) return true;
  return false;
}

const std::optional<Value>& LoopObject::peek() {
  if (!peeked_) {
    Value item;
    after_.reset();
    if (pull(item)) after_ = std::move(item);
    peeked_ = true;
  }
  return after_;
}

bool LoopObject::advance() {
  Value item;
  if (peeked_) {
    if (!after_.has_value()) return false;
    item = std::move(*after_);
    after_.reset();
    peeked_ = false;
  } else if (!pull(item)) {
    return false;
  }
  index0_ = started_ ? index0_ + 1 : 0;
  started_ = true;
  before_ = std::move(current_);
  current_ = std::move(item);
  return true;
}

size_t LoopObject::length() {
  size_t length = 0;
  if (!accepts_ && !is_drained_ && length_of(reader_.source(), length)) return length;
  if (!is_drained_) {
    std::vector<Value> rest;
    for (Value item; pull(item);) rest.push_back(std::move(item));
    drained_ = std::move(rest);
    drained_position_ = 0;
    is_drained_ = true;
  }
  const size_t read = started_ ? index0_ + 1 : 0;
  return read + (after_.has_value() ? 1 : 0) + (drained_.size() - drained_position_);
}

}  // namespace tessera::text::jinja
