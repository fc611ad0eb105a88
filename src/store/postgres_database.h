// store::Database on a PostgreSQL server (15 or newer), for several gateways that share their state.
#pragma once

#include <chrono>
#include <memory>
#include <string>

#include "store/database.h"

namespace tessera::store {

struct PostgresOptions {
  std::chrono::milliseconds connect_timeout{5000};     // whole seconds, at least 2
  std::chrono::milliseconds lock_timeout{5000};        // how long a transaction waits for its turn
  std::chrono::milliseconds statement_timeout{30000};  // then the server counts as gone
  std::chrono::milliseconds retry_after{500};          // until then a failed connection is not tried again
};

// `url`: "postgresql://USER:PASSWORD@HOST:PORT/NAME?sslmode=…", as libpq reads it. One connection, made at
// once and again, by the next call, after it was lost: what was under way then is kUnavailable (whether it
// committed is not known), never repeated by itself. kInvalidArgument: no such url; kUnavailable: no
// connection; kUnsupported: an older server, or one that does not store UTF-8.
Result<std::unique_ptr<Database>> open_postgres(const std::string& url, PostgresOptions options = {});

}  // namespace tessera::store
