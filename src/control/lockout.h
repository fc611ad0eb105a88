// Guessing ends soon: after a few failures an identity is refused from that address for a while, right or
// wrong. Others, and the same from elsewhere, are not.
#pragma once

#include <chrono>
#include <string>
#include <string_view>

#include "base/status.h"
#include "store/state.h"

namespace tessera::control {

// Thread-safe; calls wait for the State. The State outlives it. A State that is away locks nobody out.
class Lockout {
 public:
  static constexpr int kMostFailures = 5;
  static constexpr std::chrono::milliseconds kLocked{15 * 60 * 1000};

  explicit Lockout(store::State& state) : state_(state) {}

  bool locked(std::string_view identity, std::string_view address);
  // The wrong secret was shown. True: with this one it is locked.
  bool failed(std::string_view identity, std::string_view address);
  void succeeded(std::string_view identity, std::string_view address);

 private:
  store::State& state_;
};

}  // namespace tessera::control
