// A transaction that answers with a value.
#pragma once

#include <optional>
#include <utility>

#include "store/database.h"

namespace tessera::store {

// Runs `body` in a transaction and hands out its value.
template <typename T, typename Body>
Result<T> transact(Database& database, Body&& body) {
  std::optional<T> value;
  TESSERA_RETURN_IF_ERROR(database.transaction([&](Statements& sql) -> Status {
    Result<T> result = body(sql);
    if (!result.ok()) return result.status();
    value = std::move(*result);
    return {};
  }));
  return std::move(*value);
}

}  // namespace tessera::store
