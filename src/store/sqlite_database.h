// store::Database in one SQLite file: write-ahead log, every commit synced to the disk.
#pragma once

#include <filesystem>
#include <memory>

#include "store/database.h"

namespace tessera::store {

struct SqliteOptions {
  int busy_timeout_ms = 5000;  // how long a statement waits for another process
};

// Makes the file (readable by its owner only) and its folder if need be. ":memory:" is a database that ends
// with the object. kCorrupt if the file is no database; kIo if it cannot be opened or its file system cannot
// hold a write-ahead log.
Result<std::unique_ptr<Database>> open_sqlite(const std::filesystem::path& file, SqliteOptions options = {});

}  // namespace tessera::store
