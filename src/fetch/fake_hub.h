// A hub in memory for tests: listings and files, and the faults that a real one has.
#pragma once

#include <deque>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/sha256.h"
#include "fetch/hub.h"

namespace tessera::fetch {

class FakeHub final : public HttpGetter {
 public:
  static constexpr const char* kEndpoint = "http://hub.test";

  struct Reply {
    int status = 200;
    HttpHeaders headers = {};
    std::string body = {};
    bool ranges = true;
    size_t break_after = std::string::npos;  // the connection dies after so many bytes
  };
  struct Request {
    std::string url;
    HttpHeaders headers;
    std::optional<uint64_t> range_from;
    std::string header(const std::string& name) const {
      HttpHead head{0, headers};
      return std::string(head.header(name));
    }
  };

  void serve(const std::string& url, Reply reply) { replies_[absolute(url)] = std::move(reply); }
  // The next requests of `url` get these instead, one each.
  void once(const std::string& url, Reply reply) { faults_[absolute(url)].push_back(std::move(reply)); }

  // One file of ORG/NAME at main, in the tree listing and to resolve.
  void add_file(const std::string& path, const std::string& body, bool lfs) {
    nlohmann::json entry = {
        {"type", "file"}, {"path", path}, {"size", body.size()}, {"oid", git_blob_id(as_bytes(body))}};
    if (lfs) {
      entry["oid"] = std::string(40, 'e');  // of the pointer
      entry["lfs"] = {{"oid", to_hex(sha256(as_bytes(body)))}, {"size", body.size()}, {"pointerSize", 130}};
    }
    tree_.push_back(std::move(entry));
    serve(kTree, {.body = tree_.dump()});
    serve("/org/name/resolve/main/" + path, {.body = body});
  }
  nlohmann::json& tree() { return tree_; }
  void update_tree() { serve(kTree, {.body = tree_.dump()}); }
  static constexpr const char* kTree = "/api/models/org/name/tree/main?recursive=true";

  Result<HttpHead> get(const HttpGet& request, const BodySink& sink) override {
    const std::string& url = request.url;
    requests.push_back({url, request.headers, request.range_from});
    Reply reply{.status = 404, .body = "nothing here"};
    if (auto it = replies_.find(url); it != replies_.end()) reply = it->second;
    if (auto& faults = faults_[url]; !faults.empty()) {
      reply = faults.front();
      faults.pop_front();
    }
    HttpHead head{reply.status, reply.headers};
    std::string body = reply.body;
    if (reply.status == 200 && reply.ranges && request.range_from) {
      const size_t start = *request.range_from;
      if (start >= body.size()) {
        head.status = 416;
        body.clear();
      } else {
        head.status = 206;
        head.headers.emplace_back("Content-Range", "bytes " + std::to_string(start) + "-" +
                                                       std::to_string(body.size() - 1) + "/" +
                                                       std::to_string(body.size()));
        body = body.substr(start);
      }
    }
    const bool breaks = reply.break_after < body.size();
    if (breaks) body.resize(reply.break_after);
    for (size_t i = 0; i < body.size(); i += 7)
      TESSERA_RETURN_IF_ERROR(sink(head, std::string_view(body).substr(i, 7)));
    if (breaks) return unavailable("the connection broke");
    return head;
  }

  HubAccess access(const std::string& token = "") { return {*this, kEndpoint, token, quick()}; }
  static RetryPolicy quick() {
    RetryPolicy policy;
    policy.max_stalls = 3;
    policy.first_wait = policy.longest_wait = std::chrono::milliseconds(1);
    return policy;
  }

  std::vector<Request> requests;

 private:
  static std::string absolute(const std::string& url) { return url.starts_with("/") ? kEndpoint + url : url; }
  std::map<std::string, Reply> replies_;
  std::map<std::string, std::deque<Reply>> faults_;
  nlohmann::json tree_ = nlohmann::json::array();
};

}  // namespace tessera::fetch
