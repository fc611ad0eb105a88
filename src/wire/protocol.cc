#include "wire/protocol.h"

#include <algorithm>
#include <string>

namespace tessera::wire {
namespace {

std::string range_text(ProtocolRange range) {
  return std::to_string(range.lowest) + " to " + std::to_string(range.highest);
}

}  // namespace

Result<int> agree_on_protocol(ProtocolRange ours, ProtocolRange theirs, std::string_view peer) {
  const int highest = std::min(ours.highest, theirs.highest);
  if (highest >= std::max(ours.lowest, theirs.lowest)) return highest;
  return unsupported(std::string(peer) + " speaks protocol versions " + range_text(theirs) +
                     ", this process speaks " + range_text(ours) + ": update the older of the two");
}

}  // namespace tessera::wire
