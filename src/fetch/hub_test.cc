#include "fetch/hub.h"

#include <gtest/gtest.h>

#include "fetch/fake_hub.h"

namespace tessera::fetch {
namespace {

const HubName kName{"org/name", "main", ""};

std::vector<std::string> paths(const Result<std::vector<RemoteFile>>& files) {
  std::vector<std::string> result;
  if (!files.ok()) return {files.status().to_string()};
  for (const RemoteFile& file : *files) result.push_back(file.path);
  std::sort(result.begin(), result.end());
  return result;
}

std::vector<RemoteFile> remote(const std::vector<std::string>& names) {
  std::vector<RemoteFile> files;
  for (const std::string& name : names) files.push_back({name, 1, std::string(64, 'a')});
  return files;
}

using Names = std::vector<std::string>;

TEST(Hub, ListsFilesWithTheirSums) {
  FakeHub hub;
  hub.add_file("config.json", "{}", false);
  hub.add_file("sub/model.gguf", "weights", true);
  hub.tree().push_back({{"type", "directory"}, {"path", "sub"}, {"oid", std::string(40, 'a')}});
  hub.tree().push_back(
      {{"type", "file"}, {"path", ".gitattributes"}, {"size", 3}, {"oid", std::string(40, 'a')}});
  hub.tree().push_back(
      {{"type", "file"}, {"path", "a/.cache/x"}, {"size", 3}, {"oid", std::string(40, 'a')}});
  hub.update_tree();
  auto files = list_hub_files(hub.access("secret"), kName);
  EXPECT_EQ(paths(files), (Names{"config.json", "sub/model.gguf"}));
  EXPECT_EQ((*files)[0].sum, git_blob_id(as_bytes("{}")));
  EXPECT_EQ((*files)[0].bytes, 2u);
  EXPECT_EQ((*files)[1].sum, to_hex(sha256(as_bytes("weights"))));
  EXPECT_EQ(hub.requests[0].header("authorization"), "Bearer secret");
}

TEST(Hub, ReadsAllPages) {
  FakeHub hub;
  const char* page = R"([{"type":"file","path":"%","size":1,"oid":""}])";
  auto named = [&](const std::string& name) {
    return std::string(page).replace(std::string(page).find('%'), 1, name);
  };
  hub.serve(FakeHub::kTree, {.headers = {{"link", "</api/2?a=1,2>; rel=\"next\""}}, .body = named("a")});
  hub.serve(
      "/api/2?a=1,2",
      {.headers = {{"Link", "<http://hub.test/api/1>; rel=\"prev\", <http://hub.test/api/3>; rel=\"next\""}},
       .body = named("b")});
  hub.serve("/api/3", {.body = named("c")});
  EXPECT_EQ(paths(list_hub_files(hub.access(), kName)), (Names{"a", "b", "c"}));
  hub.serve("/api/3", {.headers = {{"Link", "<http://evil.test/>; rel=\"next\""}}, .body = named("c")});
  EXPECT_EQ(list_hub_files(hub.access(), kName).status().code(), Code::kCorrupt);
  hub.serve("/api/3", {.headers = {{"Link", "</api/3>; rel=\"next\""}}, .body = named("c")});
  EXPECT_EQ(list_hub_files(hub.access(), kName).status().code(), Code::kCorrupt);  // a circle
}

TEST(Hub, FallsBackToTheRevisionsSiblings) {
  FakeHub hub;
  hub.serve("/api/models/org/name/revision/refs%2Fpr%2F1?blobs=true",
            {.body = R"({"siblings":[{"rfilename":"config.json","blobId":")" + std::string(40, 'b') +
                     R"("},{"rfilename":"m.gguf","size":9,"lfs":{"sha256":")" + std::string(64, 'c') +
                     R"(","size":9}},{"rfilename":"bare"}]})"});
  auto files = list_hub_files(hub.access(), {"org/name", "refs/pr/1", ""});
  EXPECT_EQ(paths(files), (Names{"bare", "config.json", "m.gguf"}));
  EXPECT_EQ((*files)[0].sum, std::string(40, 'b'));
  EXPECT_EQ((*files)[1].sum, std::string(64, 'c'));
  EXPECT_EQ((*files)[2].sum, "");
  EXPECT_FALSE((*files)[2].bytes);
}

TEST(Hub, RefusesHostileListings) {
  for (const char* path :
       {"../x", "/etc/passwd", "a/../../x", "..", "a\\\\b", "a//b", "a/..", "", "a\\u0000b"}) {
    FakeHub hub;
    hub.serve(FakeHub::kTree,
              {.body = std::string(R"([{"type":"file","path":")") + path + R"(","oid":""}])"});
    EXPECT_EQ(list_hub_files(hub.access(), kName).status().code(), Code::kCorrupt) << path;
  }
  for (const char* body : {"", "{", "{}", "[1]", "[{}]", R"([{"path":7}])"}) {
    FakeHub hub;
    hub.serve(FakeHub::kTree, {.body = body});
    EXPECT_EQ(list_hub_files(hub.access(), kName).status().code(), Code::kCorrupt) << body;
  }
}

TEST(Hub, SaysWhatAStatusMeans) {
  FakeHub hub;
  EXPECT_EQ(list_hub_files(hub.access(), kName).status().code(), Code::kNotFound);
  hub.serve(FakeHub::kTree, {.status = 401});
  Status status = list_hub_files(hub.access(), kName).status();
  EXPECT_EQ(status.code(), Code::kPermissionDenied);
  EXPECT_NE(status.message().find("HF_TOKEN"), std::string::npos);
  hub.serve(FakeHub::kTree, {.status = 503});
  hub.requests.clear();
  EXPECT_EQ(list_hub_files(hub.access(), kName).status().code(), Code::kUnavailable);
  EXPECT_EQ(hub.requests.size(), 3u);  // the policy's attempts
}

TEST(Hub, ProbesForASum) {
  FakeHub hub;
  const std::string url = "/org/name/resolve/main/f";
  const std::string sha(64, 'd');
  hub.serve("http://cdn.test/x", {.headers = {{"ETag", "\"" + std::string(40, 'f') + "\""}}, .body = "abc"});
  hub.serve(url, {.status = 302,
                  .headers = {{"Location", "http://cdn.test/x"}, {"x-linked-etag", "\"" + sha + "\""}}});
  auto sum = probe_hub_sum(hub.access("secret"), kName, "f");
  ASSERT_TRUE(sum.ok()) << sum.status().to_string();
  EXPECT_EQ(*sum, sha);
  ASSERT_EQ(hub.requests.size(), 2u);
  EXPECT_EQ(hub.requests[0].header("Authorization"), "Bearer secret");
  EXPECT_EQ(hub.requests[1].header("Authorization"), "");  // never to another host
  hub.serve(url, {.headers = {{"ETag", "W/\"" + std::string(40, 'e') + "\""}}, .body = "abc"});
  EXPECT_EQ(*probe_hub_sum(hub.access(), kName, "f"), std::string(40, 'e'));
  hub.serve(url, {.headers = {{"ETag", "\"v1\""}}, .body = "abc"});
  EXPECT_EQ(probe_hub_sum(hub.access(), kName, "f").status().code(), Code::kCorrupt);
}

TEST(Hub, BoundsRedirects) {
  FakeHub hub;
  hub.serve("/a", {.status = 302, .headers = {{"Location", "/a"}}});
  HttpTrail trail;
  auto ignore = [](const HttpHead&, std::string_view) { return Status(); };
  EXPECT_EQ(get_following(hub, {.url = "http://hub.test/a"}, "", ignore, trail).code(), Code::kCorrupt);
  EXPECT_EQ(hub.requests.size(), 11u);
  hub.serve("https://safe.test/", {.status = 302, .headers = {{"Location", "http://unsafe.test/"}}});
  EXPECT_EQ(get_following(hub, {.url = "https://safe.test/"}, "", ignore, trail).code(), Code::kCorrupt);
  EXPECT_EQ(get_following(hub, {.url = "file:///etc/passwd"}, "", ignore, trail).code(),
            Code::kInvalidArgument);
}

TEST(Hub, ChoosesWhatAModelNeeds) {
  EXPECT_EQ(
      paths(choose_files(remote({"README.md", "config.json", "generation_config.json", "model.safetensors",
                                 "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
                                 "chat_template.jinja", "pytorch_model.bin", "model.fp16.safetensors",
                                 "onnx/config.json", "original/consolidated.safetensors"}),
                         kName)),
      (Names{"chat_template.jinja", "config.json", "generation_config.json", "model.safetensors",
             "special_tokens_map.json", "tokenizer.json", "tokenizer_config.json"}));
  EXPECT_EQ(paths(choose_files(
                remote({"config.json", "consolidated.safetensors", "model-00001-of-00002.safetensors",
                        "model-00002-of-00002.safetensors", "model.safetensors.index.json"}),
                kName)),
            (Names{"config.json", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors",
                   "model.safetensors.index.json"}));
}

TEST(Hub, ChoosesGgufFiles) {
  const auto files = remote({"README.md", "a.gguf", "b/c-00001-of-00002.gguf", "b/c-00002-of-00002.gguf"});
  EXPECT_EQ(paths(choose_files(files, {"org/name", "main", "a.gguf"})), (Names{"a.gguf"}));
  EXPECT_EQ(paths(choose_files(files, {"org/name", "main", "b/c-00002-of-00002.gguf"})),
            (Names{"b/c-00001-of-00002.gguf", "b/c-00002-of-00002.gguf"}));
  EXPECT_EQ(choose_files(files, {"org/name", "main", "config.json"}).status().code(), Code::kInvalidArgument);
  EXPECT_EQ(choose_files(files, {"org/name", "main", "z.gguf"}).status().code(), Code::kNotFound);
  EXPECT_EQ(choose_files(files, kName).status().code(), Code::kInvalidArgument);  // which one?
  EXPECT_EQ(paths(choose_files(remote({"config.json", "a.gguf"}), kName)), (Names{"a.gguf"}));
  EXPECT_EQ(choose_files(remote({"c-00001-of-00002.gguf"}), kName).status().code(), Code::kNotFound);
  EXPECT_EQ(choose_files(remote({"config.json", "pytorch_model.bin"}), kName).status().code(),
            Code::kUnsupported);
}

}  // namespace
}  // namespace tessera::fetch
