// Bugs put in on purpose, outside the code under test: what the checks cannot find they do not check.
#pragma once

#include <string>
#include <vector>

#include "sim/world.h"

namespace tessera::sim {

struct NamedMutation {
  std::string name;
  std::string scenario;  // in which it shows
  // Fresh state for each run.
  std::function<Mutation()> make;
};

const std::vector<NamedMutation>& mutations();

}  // namespace tessera::sim
