#pragma once
// Objects that save and load themselves.

#include "tree.h"

namespace stepstone {

// Implemented by the user, for example by a data iterator; saved with args::StatefulSave and
// restored with args::StatefulRestore.
class StatefulCheckpointable {
 public:
  StatefulCheckpointable() = default;
  StatefulCheckpointable(const StatefulCheckpointable&) = default;
  StatefulCheckpointable& operator=(const StatefulCheckpointable&) = default;
  virtual ~StatefulCheckpointable() = default;

  // All that load_state() needs. Called on the thread that saves, which waits for it.
  virtual Result<Tree> save_state() const = 0;
  // On an error the object should be as it was.
  virtual Result<void> load_state(const Tree& state) = 0;
};

}  // namespace stepstone
