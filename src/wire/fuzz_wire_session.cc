#include "wire/fuzz_wire.h"

namespace {

using namespace tessera;  // NOLINT

struct Session {
  using Ours = wire::Envelope;
  static std::string encoded(const Ours& m) { return wire::encode(m.to, m.message, wire::kProtocol.highest); }
  static const std::vector<Ours>& samples() {
    static const std::vector<Ours> all = [] {
      std::vector<Ours> envelopes;
      for (const Message& message : wire::samples::session_messages())
        envelopes.push_back({"alpha/1", message});
      return envelopes;
    }();
    return all;
  }
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  return wire::fuzz_family<Session>(data, size);
}
