#include "fetch/hub_reader.h"

#include <algorithm>

namespace tessera::fetch {
namespace {

class HubReader final : public RangeReader {
 public:
  HubReader(HubAccess access, HubName model) : access_(std::move(access)), model_(std::move(model)) {}
  const std::string& name() const override { return name_; }

  Status read(const std::string& path, uint64_t offset, uint64_t bytes,
              const std::function<Status(std::span<const uint8_t>)>& sink) override {
    HttpGet get;
    get.url = hub_file_url(access_, model_, path);
    get.range_from = offset;
    uint64_t left = bytes;
    uint64_t skip = offset;  // of a reply that begins at 0
    bool begun = false;
    HttpTrail trail;
    const Status status = get_following(
        access_.http, get, access_.token,
        [&](const HttpHead& head, std::string_view piece) -> Status {
          TESSERA_RETURN_IF_ERROR(status_of_reply(head.status, path));
          if (!begun && head.status == 206) skip = 0;
          begun = true;
          const uint64_t skipped = std::min<uint64_t>(skip, piece.size());
          skip -= skipped;
          piece.remove_prefix(skipped);
          piece = piece.substr(0, left);
          left -= piece.size();
          if (!piece.empty()) TESSERA_RETURN_IF_ERROR(sink(as_bytes(piece)));
          return left > 0 ? Status() : cancelled("all bytes are here");
        },
        trail);
    if (left == 0) return {};
    if (!status.ok()) return status;
    if (!trail.empty()) TESSERA_RETURN_IF_ERROR(status_of_reply(trail.back().status, path));
    return corrupt(path + " is shorter on the hub");
  }

 private:
  const HubAccess access_;
  const HubName model_;
  const std::string name_ = "hub";
};

}  // namespace

std::unique_ptr<RangeReader> make_hub_reader(HubAccess access, HubName model) {
  return std::make_unique<HubReader>(std::move(access), std::move(model));
}

}  // namespace tessera::fetch
