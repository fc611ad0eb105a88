// Headers that an answer carries whoever gives it.
#pragma once

#include <memory>

#include "net/http.h"

namespace tessera::gateway {

// A writer that adds `extra` to the head of the answer and passes everything on.
std::shared_ptr<net::ResponseWriter> with_headers(std::shared_ptr<net::ResponseWriter> inner,
                                                  net::Headers extra);

}  // namespace tessera::gateway
