// What placement must know of a model, from its files' headers.
#pragma once

#include "app/open_model.h"
#include "control/placement.h"

namespace tessera::app {

// `context`: tokens that every hop of a session must have room for.
Result<control::ModelShape> model_shape(const OpenedModel& opened, int context);

}  // namespace tessera::app
