// GGUF files of families and types for which no other tool's file is at hand: tools/make_gguf_variants.py
// makes them, with logits from its own plain forward pass. A few are committed; TESSERA_GGUF_VARIANTS names a
// folder with all of them.
#include <cstdlib>

#include "model/testing.h"

namespace tessera::model::testing {
namespace {

int check_folder(const std::filesystem::path& folder) {
  int files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (entry.path().extension() != ".gguf") continue;
    SCOPED_TRACE(entry.path().filename().string());
    const Reference reference(std::filesystem::path(entry.path()).replace_extension(".golden.safetensors"));
    const auto tokens = reference.tokens("input_ids");
    Runner runner(entry.path(), {});
    const auto logits = runner.step(tokens, 0, runner.spec().rope_variant(static_cast<int>(tokens.size())));
    EXPECT_LE(max_difference(logits, reference.floats("logits")), 1e-4f);
    ++files;
  }
  return files;
}

TEST(GgufVariants, Committed) {
  EXPECT_EQ(check_folder(parity_models() / "gguf-variants"), 3);
}

TEST(GgufVariants, EveryFamilyAndType) {
  const char* folder = std::getenv("TESSERA_GGUF_VARIANTS");
  if (folder == nullptr)
    GTEST_SKIP() << "TESSERA_GGUF_VARIANTS is not set: families x GGUF types are NOT tested "
                    "(tools/make_gguf_variants.py makes the folder)";
  EXPECT_EQ(check_folder(folder), 12 * 8);
}

}  // namespace
}  // namespace tessera::model::testing
