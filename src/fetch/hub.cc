#include "fetch/hub.h"

#include <nlohmann/json.hpp>

#include "base/json.h"
#include "net/url.h"

namespace tessera::fetch {
namespace {

constexpr size_t kMaxReplyBytes = 64 << 20;
constexpr size_t kMaxFiles = 100'000;
constexpr int kMaxPages = 200;

bool is_hex_of(std::string_view text, size_t size) {
  return text.size() == size && text.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

struct JsonReply {
  Json body;
  std::string next;  // the next page's URL, or empty
};

// The target of rel="next" in a Link header.
std::string next_page(std::string_view link) {
  while (!link.empty()) {
    const size_t open = link.find('<');
    const size_t close = link.find('>', open == std::string_view::npos ? 0 : open);
    if (open == std::string_view::npos || close == std::string_view::npos) return {};
    const size_t end = std::min(link.find(',', close), link.size());
    const std::string_view parameters = link.substr(close, end - close);
    if (parameters.find("rel=\"next\"") != std::string_view::npos ||
        parameters.find("rel=next") != std::string_view::npos)
      return std::string(link.substr(open + 1, close - open - 1));
    link.remove_prefix(end == link.size() ? end : end + 1);
  }
  return {};
}

Result<JsonReply> get_json(const HubAccess& hub, const std::string& url, const std::string& what) {
  std::string body;
  HttpTrail trail;
  auto collect = [&](const HttpHead&, std::string_view piece) -> Status {
    if (body.size() + piece.size() > kMaxReplyBytes) return corrupt(what + ": the listing is too long");
    body += piece;
    return {};
  };
  TESSERA_RETURN_IF_ERROR(with_retries(hub.retry, [&](bool&) -> Status {
    body.clear();
    TESSERA_RETURN_IF_ERROR(
        get_following(hub.http, {url, {{"Accept", "application/json"}}}, hub.token, collect, trail));
    return status_of_reply(trail.back().status, what);
  }));
  auto json = parse_json(body);
  if (!json.ok()) return corrupt(what + ": the hub's listing is " + json.status().message());
  JsonReply result{std::move(*json), next_page(trail.back().header("Link"))};
  if (result.next.empty()) return result;
  TESSERA_ASSIGN_OR_RETURN(const net::Url here, net::parse_url(url));
  auto next = net::resolve_url(here, result.next);
  if (!next.ok() || !next->same_origin(here))
    return corrupt(what + ": the listing continues on another host");
  result.next = next->to_string();
  return result;
}

Status add_file(std::vector<RemoteFile>& files, RemoteFile file) {
  if (files.size() >= kMaxFiles) return corrupt("the listing has too many files");
  files.push_back(std::move(file));
  return {};
}

// Hidden files and folders (.gitattributes, .cache/…) are nothing to us; any other odd path is an attack or a
// bug.
Result<bool> wanted_path(const std::string& path) {
  if (is_safe_path(path)) return true;
  std::string shown = path;
  for (size_t i = 0; i + 1 < shown.size(); ++i) {
    if (shown[i] == '.' && (i == 0 || shown[i - 1] == '/') && shown[i + 1] != '.' && shown[i + 1] != '/')
      shown[i] = '_';
  }
  if (is_safe_path(shown)) return false;
  return corrupt("the hub lists '" + path.substr(0, 200) + "', a path that leaves the model's folder");
}

void read_lfs(const Json& entry, RemoteFile& file) {
  if (!entry.contains("lfs") || !entry["lfs"].is_object()) return;
  const Json& lfs = entry["lfs"];
  file.sum.clear();
  for (const char* key : {"oid", "sha256"}) {
    if (lfs.contains(key) && lfs[key].is_string() && is_hex_of(lfs[key].get_ref<const std::string&>(), 64))
      file.sum = lfs[key].get<std::string>();
  }
  if (lfs.contains("size") && lfs["size"].is_number_unsigned()) file.bytes = lfs["size"].get<uint64_t>();
}

// An entry of the tree listing ("path", "oid") or of the revision's siblings ("rfilename", "blobId").
Status read_entry(const Json& entry, const char* path_key, const char* sum_key,
                  std::vector<RemoteFile>& files) {
  if (!entry.is_object() || !entry.contains(path_key) || !entry[path_key].is_string())
    return corrupt("the hub's listing has an entry without a path");
  if (entry.contains("type") && entry["type"] != "file") return {};
  RemoteFile file;
  file.path = entry[path_key].get<std::string>();
  TESSERA_ASSIGN_OR_RETURN(bool wanted, wanted_path(file.path));
  if (!wanted) return {};
  if (entry.contains("size") && entry["size"].is_number_unsigned())
    file.bytes = entry["size"].get<uint64_t>();
  if (entry.contains(sum_key) && entry[sum_key].is_string() &&
      is_hex_of(entry[sum_key].get_ref<const std::string&>(), 40))
    file.sum = entry[sum_key].get<std::string>();
  read_lfs(entry, file);
  return add_file(files, std::move(file));
}

std::string api_url(const HubAccess& hub, const HubName& name, const std::string& what) {
  return hub.endpoint + "/api/models/" + name.repository + "/" + what + "/" +
         net::percent_encode(name.revision);
}

Result<std::vector<RemoteFile>> list_tree(const HubAccess& hub, const HubName& name) {
  std::vector<RemoteFile> files;
  std::string url = api_url(hub, name, "tree") + "?recursive=true";
  for (int page = 0; page < kMaxPages; ++page) {
    TESSERA_ASSIGN_OR_RETURN(JsonReply reply, get_json(hub, url, name.repository));
    if (!reply.body.is_array()) return corrupt(name.repository + ": the hub's tree is not a list");
    for (const Json& entry : reply.body) TESSERA_RETURN_IF_ERROR(read_entry(entry, "path", "oid", files));
    if (reply.next.empty()) return files;
    url = reply.next;
  }
  return corrupt(name.repository + ": the listing has no end");
}

Result<std::vector<RemoteFile>> list_revision(const HubAccess& hub, const HubName& name) {
  const std::string url = api_url(hub, name, "revision") + "?blobs=true";
  TESSERA_ASSIGN_OR_RETURN(JsonReply reply, get_json(hub, url, name.repository));
  if (!reply.body.is_object() || !reply.body.contains("siblings") || !reply.body["siblings"].is_array())
    return corrupt(name.repository + ": the hub's answer has no siblings");
  std::vector<RemoteFile> files;
  for (const Json& entry : reply.body["siblings"])
    TESSERA_RETURN_IF_ERROR(read_entry(entry, "rfilename", "blobId", files));
  return files;
}

}  // namespace

Result<std::vector<RemoteFile>> list_hub_files(const HubAccess& hub, const HubName& name) {
  auto files = list_tree(hub, name);
  if (!files.ok() && files.status().code() == Code::kNotFound) return list_revision(hub, name);
  return files;
}

std::string hub_file_url(const HubAccess& hub, const HubName& name, const std::string& path) {
  return hub.endpoint + "/" + name.repository + "/resolve/" + net::percent_encode(name.revision) + "/" +
         net::percent_encode(path, true);
}

Result<std::string> probe_hub_sum(const HubAccess& hub, const HubName& name, const std::string& path) {
  HttpTrail trail;
  auto stop = [](const HttpHead&, std::string_view) { return cancelled("only the head is wanted"); };
  TESSERA_RETURN_IF_ERROR(with_retries(hub.retry, [&](bool&) -> Status {
    Status status = get_following(hub.http, {.url = hub_file_url(hub, name, path)}, hub.token, stop, trail);
    if (!status.ok() && status.code() != Code::kCancelled) return status;
    return status_of_reply(trail.back().status, path);
  }));
  for (const char* header : {"X-Linked-ETag", "ETag"}) {
    for (const HttpHead& head : trail) {
      std::string_view tag = head.header(header);
      if (tag.starts_with("W/")) tag.remove_prefix(2);
      if (tag.size() >= 2 && tag.front() == '"' && tag.back() == '"') tag = tag.substr(1, tag.size() - 2);
      if (is_hex_of(tag, 64) || is_hex_of(tag, 40)) return std::string(tag);
    }
  }
  return corrupt(path + ": the hub states no checksum, so the file could not be checked");
}

}  // namespace tessera::fetch
