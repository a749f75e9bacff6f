#pragma once
// What a save or a restore moved, and how long each part of it took.

#include <cstdint>

namespace stepstone {

// Times are of a clock on the wall.
struct SaveStatistics {
  std::uint64_t step = 0;
  std::uint64_t leaf_count = 0;
  std::uint64_t size_bytes = 0;    // Of all leaves.
  std::uint64_t staged_bytes = 0;  // Of these, the bytes that were copied before save() returned.
  // Of the files or entries that were written, records included.
  std::uint64_t stored_bytes = 0;
  // Of the leaves, found to be stored already: by an earlier step, or as another leaf.
  std::uint64_t shared_bytes = 0;
  // What the manager's staging pool holds: memory that stays for the next save.
  std::uint64_t staging_capacity_bytes = 0;
  unsigned thread_count = 0;  // That wrote.
  bool is_async = false;

  double wait_s = 0;    // For earlier saves, until this one fitted into the queue; 0: it did.
  double stage_s = 0;   // Copying what is borrowed.
  double stall_s = 0;   // How long the trainer waited: wait, staging, and the planning before them.
  double queue_s = 0;   // Between save() and the beginning of the write.
  double write_s = 0;   // Hashing and writing, until all is on disk.
  double commit_s = 0;  // Making it visible, and older steps invisible.
  double total_s = 0;   // From the call of save() until the step was durable.

  bool operator==(const SaveStatistics&) const = default;
};

struct RestoreStatistics {
  std::uint64_t step = 0;
  std::uint64_t leaf_count = 0;
  std::uint64_t size_bytes = 0;  // Of all leaves, as they are stored.
  unsigned thread_count = 0;

  double read_s = 0;   // Reading and checking.
  double cast_s = 0;   // Comparing with the target and casting to it.
  double total_s = 0;  // Of the whole call, with any wait for saves before it.

  bool operator==(const RestoreStatistics&) const = default;
};

}  // namespace stepstone
