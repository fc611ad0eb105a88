// What routes that list things read from the query.
#pragma once

#include <cstdint>

#include "gateway/routes.h"

namespace tessera::gateway {

struct Page {
  int64_t number = 1;  // from 1
  int64_t size = 0;
  int64_t offset() const { return (number - 1) * size; }
};
// ?page=N&page_size=N; what is no number is as if it were not there.
Page page_of(const Call& call, int64_t usual_size, int64_t most);

}  // namespace tessera::gateway
