#include "base/files.h"
#include "text/tokenizer.h"

namespace tessera::text {

Result<TokenizerPtr> load_tokenizer(const std::filesystem::path& folder) {
  constexpr uint64_t kMaxFile = uint64_t{512} << 20;
  std::error_code error;
  std::string config;
  if (std::filesystem::exists(folder / "tokenizer_config.json", error)) {
    TESSERA_ASSIGN_OR_RETURN(config, read_file(folder / "tokenizer_config.json", kMaxFile));
  }
  const auto load = [&]() -> Result<TokenizerPtr> {
    if (std::filesystem::exists(folder / "tokenizer.json", error)) {
      TESSERA_ASSIGN_OR_RETURN(const std::string json, read_file(folder / "tokenizer.json", kMaxFile));
      return load_tokenizer_json(json, config);
    }
    if (std::filesystem::exists(folder / "tokenizer.model", error)) {
      TESSERA_ASSIGN_OR_RETURN(const std::string model, read_file(folder / "tokenizer.model", kMaxFile));
      return load_sentencepiece({reinterpret_cast<const uint8_t*>(model.data()), model.size()}, config);
    }
    return not_found("neither tokenizer.json nor tokenizer.model is there");
  };
  auto tokenizer = load();
  if (!tokenizer.ok()) return tokenizer.status().with_context(folder.string());
  return tokenizer;
}

}  // namespace tessera::text
