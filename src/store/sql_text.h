// Reads SQL as text, for databases whose client library does not: where a statement ends, which parameters it
// takes, and how its types are called elsewhere. Strings, quoted names and comments are stepped over.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace tessera::store {

// The statements of a script, without the semicolons between them; empty ones are left out.
std::vector<std::string> split_statements(std::string_view script);

// The N of the highest $N; 0: it takes none.
size_t highest_parameter(std::string_view statement);

// What is written for SQLite as PostgreSQL wants it: INTEGER, REAL and BLOB (in capitals) become BIGINT,
// DOUBLE PRECISION and BYTEA everywhere. In CREATE TABLE and ALTER TABLE moreover INTEGER PRIMARY KEY numbers
// its rows by itself, TEXT is ordered by its bytes, and STRICT goes.
std::string to_postgres(std::string_view statement);

}  // namespace tessera::store
