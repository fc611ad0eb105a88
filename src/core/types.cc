#include "core/types.h"

#include <charconv>

namespace tessera {
namespace {

Result<int> parse_int(std::string_view text) {
  int value = 0;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value < 0)
    return invalid_argument("'" + std::string(text) + "' is no block number");
  return value;
}

}  // namespace

Result<std::vector<BlockRange>> parse_block_ranges(std::string_view text, int num_blocks) {
  std::vector<BlockRange> ranges;
  int next = 0;
  while (!text.empty()) {
    const size_t comma = text.find(',');
    std::string_view part = text.substr(0, comma);
    const size_t colon = part.find(':');
    if (colon == std::string_view::npos)
      return invalid_argument("a block range is FIRST:LAST, got '" + std::string(part) + "'");
    TESSERA_ASSIGN_OR_RETURN(int first, parse_int(part.substr(0, colon)));
    TESSERA_ASSIGN_OR_RETURN(int last, parse_int(part.substr(colon + 1)));
    if (first != next || last <= first)
      return invalid_argument("block ranges must cover 0:" + std::to_string(num_blocks) +
                              " once and in order; '" + std::string(part) + "' does not start at " +
                              std::to_string(next) + " or is empty");
    ranges.push_back({first, last});
    next = last;
    if (comma == std::string_view::npos) break;
    text.remove_prefix(comma + 1);
    if (text.empty()) return invalid_argument("block ranges end in a comma");
  }
  if (ranges.empty() || next != num_blocks)
    return invalid_argument("block ranges must cover 0:" + std::to_string(num_blocks) + ", they end at " +
                            std::to_string(next));
  return ranges;
}

std::string NumericsClass::to_string() const {
  auto name = [](DType d) { return std::string(dtype_info(d).name); };
  return backend + "/" + kernels + "/" + name(compute) + "-" + name(residual) + "-" + name(kv);
}

}  // namespace tessera
