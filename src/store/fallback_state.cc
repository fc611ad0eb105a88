#include <type_traits>

#include "store/state.h"

namespace tessera::store {
namespace {

class FallbackState final : public State {
 public:
  FallbackState(State& shared, const Clock& clock) : shared_(shared), own_(make_memory_state(clock)) {}

  Result<std::optional<std::string>> get(std::string_view key) override {
    return either([&](State& s) { return s.get(key); });
  }
  Status set(std::string_view key, std::string_view value, Ttl ttl) override {
    return either([&](State& s) { return s.set(key, value, ttl); });
  }
  Result<bool> compare_and_set(std::string_view key, std::optional<std::string_view> expected,
                               std::string_view value, Ttl ttl) override {
    return either([&](State& s) { return s.compare_and_set(key, expected, value, ttl); });
  }
  Result<bool> compare_and_erase(std::string_view key, std::string_view expected) override {
    return either([&](State& s) { return s.compare_and_erase(key, expected); });
  }
  Result<int64_t> increment(std::string_view key, int64_t by, Ttl ttl_if_new) override {
    return either([&](State& s) { return s.increment(key, by, ttl_if_new); });
  }
  Result<bool> expire(std::string_view key, Ttl ttl) override {
    return either([&](State& s) { return s.expire(key, ttl); });
  }
  Status erase(std::string_view key) override {
    return either([&](State& s) { return s.erase(key); });
  }

 private:
  static Code code_of(const Status& status) { return status.code(); }
  template <typename T>
  static Code code_of(const Result<T>& result) {
    return result.status().code();
  }
  template <typename Call>
  std::invoke_result_t<Call, State&> either(Call call) {
    auto answer = call(shared_);
    const Code code = code_of(answer);
    return code == Code::kUnavailable || code == Code::kResourceExhausted ? call(*own_) : answer;
  }

  State& shared_;
  const std::unique_ptr<State> own_;
};

}  // namespace

std::unique_ptr<State> make_fallback_state(State& shared, const Clock& clock) {
  return std::make_unique<FallbackState>(shared, clock);
}

}  // namespace tessera::store
