// Between the program's messages and protobuf's: included by the codec's own files only.
#pragma once

#include <tessera/v1/frame.pb.h>

#include <cmath>
#include <string>
#include <string_view>

#include "wire/codec.h"

namespace tessera::wire::convert {

namespace pb = tessera::v1;

// The first thing that was wrong with a message; later checks do not overwrite it. All return what may be
// used (a value in range), so that a reader needs one look at status() at its end.
class Checker {
 public:
  explicit Checker(std::string_view message) : message_(message) {}

  void require(bool condition, std::string_view what) {
    if (!condition && status_.ok()) status_ = corrupt(std::string(message_) + ": " + std::string(what));
  }
  // A number in [low, high].
  int in_range(uint64_t value, int64_t low, int64_t high, std::string_view field) {
    const bool good = value <= static_cast<uint64_t>(high) && static_cast<int64_t>(value) >= low;
    require_range(good, field, low, high);
    return good ? static_cast<int>(value) : static_cast<int>(low);
  }
  int signed_in_range(int64_t value, int64_t low, int64_t high, std::string_view field) {
    const bool good = value >= low && value <= high;
    require_range(good, field, low, high);
    return good ? static_cast<int>(value) : static_cast<int>(low);
  }
  int64_t non_negative(uint64_t value, std::string_view field) {
    const bool good = value <= uint64_t{1} << 62;
    require_range(good, field, 0, int64_t{1} << 62);
    return good ? static_cast<int64_t>(value) : 0;
  }
  template <typename T>
  T finite(T value, std::string_view field) {
    require_text(std::isfinite(value), field, " is not a finite number");
    return value;
  }
  double measure(double value, std::string_view field) {  // a time, a rate
    require_text(std::isfinite(value) && value >= 0, field, " is no measure");
    return value;
  }
  std::string text(const std::string& value, size_t longest, std::string_view field) {
    const bool good = value.size() <= longest;
    require_text(good, field, " is too long");
    return good ? value : std::string();
  }
  std::string name(const std::string& value, std::string_view field) {
    require_text(!value.empty(), field, " is empty");
    return text(value, kMaxName, field);
  }
  bool count(int size, int most, std::string_view field) {
    require_text(size <= most, field, " has too many entries");
    return size <= most;
  }
  template <typename E>
  E enumeration(int value, E last, std::string_view field) {
    const bool good = value >= 0 && value <= static_cast<int>(last);
    require_text(good, field, " is no value of its kind");
    return good ? static_cast<E>(value) : E{};
  }
  const Status& status() const { return status_; }
  void fail(Status status) {
    if (status_.ok()) status_ = std::move(status);
  }

 private:
  void require_range(bool good, std::string_view field, int64_t low, int64_t high) {
    if (!good)
      require(false,
              std::string(field) + " is not in [" + std::to_string(low) + ", " + std::to_string(high) + "]");
  }
  void require_text(bool good, std::string_view field, std::string_view problem) {
    if (!good) require(false, std::string(field) + std::string(problem));
  }
  std::string_view message_;
  Status status_;
};

// Writers fill the frame's body; Rows leave their payload to encode().
void write(const Message& message, pb::Frame& frame);
void write(const ControlMessage& message, pb::Frame& frame);
void write(const EngineMessage& message, pb::Frame& frame);

// Readers; the body case of the frame must be of their family.
Result<Message> read_session(const pb::Frame& frame, std::span<const uint8_t> payload);
Result<ControlMessage> read_control(const pb::Frame& frame);
Result<EngineMessage> read_engine(const pb::Frame& frame);

void write_engine_report(const EngineReport& in, pb::EngineReport& out);
EngineReport read_engine_report(const pb::EngineReport& in, Checker& check);
void write_params(const SamplingParams& in, pb::SamplingParams& out);
SamplingParams read_params(const pb::SamplingParams& in, Checker& check);

BlockRange read_blocks(const pb::BlockRange& blocks, Checker& check);
void write_blocks(BlockRange blocks, pb::BlockRange& out);

}  // namespace tessera::wire::convert
