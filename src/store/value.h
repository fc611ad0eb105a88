// Values that go into and come out of a database, and rows of them.
#pragma once

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

namespace tessera::store {

using Blob = std::vector<uint8_t>;
using Value = std::variant<std::monostate, int64_t, double, std::string, Blob>;  // monostate: NULL
using Row = std::vector<Value>;

// What a statement answered. `changed`: rows that an INSERT, UPDATE or DELETE touched; 0 for others.
struct Rows {
  std::vector<Row> rows;
  int64_t changed = 0;
};

// The column's value, or the default where it is NULL, of another type or not there.
template <typename T>
T column(const Row& row, size_t index, T otherwise = {}) {
  if (index >= row.size()) return otherwise;
  const T* value = std::get_if<T>(&row[index]);
  return value ? *value : otherwise;
}
inline int64_t integer_at(const Row& row, size_t index) {
  return column<int64_t>(row, index);
}
inline double real_at(const Row& row, size_t index) {
  return column<double>(row, index);
}
inline std::string text_at(const Row& row, size_t index) {
  return column<std::string>(row, index);
}
inline Blob blob_at(const Row& row, size_t index) {
  return column<Blob>(row, index);
}

}  // namespace tessera::store
