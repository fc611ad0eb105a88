#include "wire/fuzz_wire.h"

namespace {

using namespace tessera;  // NOLINT

struct Engine {
  using Ours = EngineMessage;
  static std::string encoded(const Ours& m) { return wire::encode(m, wire::kProtocol.highest); }
  static const std::vector<Ours>& samples() {
    static const std::vector<Ours> all = wire::samples::engine_messages();
    return all;
  }
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  return wire::fuzz_family<Engine>(data, size);
}
