// A job as clients and webhooks read it.
#pragma once

#include <nlohmann/json.hpp>

#include "base/json.h"
#include "control/jobs.h"

namespace tessera::gateway {

// Without what was asked (it may be long) and without secrets.
Json job_json(const control::Job& job);

}  // namespace tessera::gateway
