#include "store/database.h"

namespace tessera::store {

Status migrate(Database& database, std::string_view component, const std::vector<std::string_view>& steps) {
  const std::string name(component);
  return database.transaction([&](Statements& sql) -> Status {
    TESSERA_RETURN_IF_ERROR(
        sql.script("CREATE TABLE IF NOT EXISTS schema_version ("
                   "component TEXT PRIMARY KEY NOT NULL, version INTEGER NOT NULL) STRICT"));
    TESSERA_ASSIGN_OR_RETURN(const Rows found,
                             sql.execute("SELECT version FROM schema_version WHERE component = $1", {name}));
    const int64_t version = found.rows.empty() ? 0 : integer_at(found.rows[0], 0);
    const auto known = static_cast<int64_t>(steps.size());
    if (version < 0 || version > known)
      return unsupported(database.description() + " was written by a newer tessera (" + name + " version " +
                         std::to_string(version) + ", this program knows " + std::to_string(known) +
                         "): run that program, or restore a backup");
    if (version == known) return {};
    for (int64_t step = version; step < known; ++step)
      if (Status status = sql.script(steps[static_cast<size_t>(step)]); !status.ok())
        return status.with_context("migrating " + name + " to version " + std::to_string(step + 1));
    return sql
        .execute(
            "INSERT INTO schema_version (component, version) VALUES ($1, $2) "
            "ON CONFLICT (component) DO UPDATE SET version = excluded.version",
            {name, known})
        .status();
  });
}

}  // namespace tessera::store
