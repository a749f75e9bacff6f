#pragma once
// Which saves exist, and why. A save is in use while it is visible, being written, or held by a
// reader. One that is not, but holds chunks which a save in use refers to, is hollow: those chunks
// stay. Whatever is neither is dead, for ever, because generations are never used twice. The
// collector and the compaction filters ask here before they drop anything.
//
// A new save refers to nothing but chunks of an older save that it leased, and what that one refers
// to; so no save ever refers to a chunk that no save in use referred to a moment before.

#include <condition_variable>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <span>
#include <vector>

#include "format/records.h"

namespace stepstone {

struct VisibleStep {
  StepRecord record;
  Hash128 hash;  // Of the encoded record.
};

// Safe from several threads.
class SaveRegistry : public std::enable_shared_from_this<SaveRegistry> {
 public:
  // Keeps a save from being dropped for as long as it lives. Outlives the store if need be.
  class Lease {
   public:
    Lease(std::shared_ptr<SaveRegistry> registry, SaveId save)
        : registry_(std::move(registry)), save_(save) {}
    ~Lease();
    Lease(const Lease&) = delete;
    Lease& operator=(const Lease&) = delete;

   private:
    std::shared_ptr<SaveRegistry> registry_;
    SaveId save_;
  };

  // Fills an empty registry. Until then nothing is dead: compactions may begin while the database
  // opens, before its steps are known.
  void load(std::map<std::uint64_t, VisibleStep> steps, std::uint32_t next_generation);

  // Generations below this one are taken.
  void raise_next_generation(std::uint32_t next_generation);

  std::vector<std::uint64_t> steps() const;
  std::vector<SaveId> visible_saves() const;  // By step.
  std::optional<VisibleStep> find(std::uint64_t step) const;

  // The step's record, and a lease on it taken in the same instant; nullopt: no such step.
  struct Leased {
    StepRecord record;
    std::unique_ptr<Lease> lease;
  };
  std::optional<Leased> lease(std::uint64_t step);

  // A generation for a new save, which is alive from now on until end_save(). nullopt: none is
  // left.
  std::optional<SaveId> begin_save(std::uint64_t step);
  // Makes `published` visible (if any) and hides `retired`, then ends the life of `save` as one
  // being written. What became dead is handed to the collector.
  void end_save(SaveId save, std::optional<VisibleStep> published,
                std::span<const std::uint64_t> retired);
  void retire(std::span<const std::uint64_t> steps);

  bool is_dead(SaveId save) const;
  bool is_in_use(SaveId save) const;
  // Invisible saves that visible steps refer to.
  std::set<SaveId> hollow_saves() const;

  // Visible steps in the column family `small`, and roughly how many bytes each takes there.
  std::map<SaveId, std::uint64_t> small_saves() const;

  // For the collector. Files of these saves, which are not in use, were found at open; and `small`
  // is to be looked at.
  void add_garbage(const std::vector<SaveId>& saves);
  struct Garbage {
    std::vector<SaveId> dead;    // In the column family `leaves`.
    std::vector<SaveId> hollow;  // Since the last time they or saves that refer to them went.
    bool is_small_due = false;   // Enough steps of `small` have died to look at it.

    bool is_empty() const { return dead.empty() && hollow.empty() && !is_small_due; }
  };
  // Waits for garbage, and takes it; empty: stop() was called and no dead save is left.
  Garbage take_garbage();
  // The saves in use that refer to a hollow one, held; none: it is not hollow (any more).
  struct Referrer {
    SaveId save;
    std::unique_ptr<Lease> lease;
  };
  std::vector<Referrer> lease_referrers(SaveId hollow);
  // What take_garbage() gave has been dealt with.
  void collected();
  void stop();
  // Until everything that is dead now has been collected.
  void wait_until_collected();

 private:
  // Why a save is in use.
  struct Use {
    bool is_visible = false;
    bool is_being_written = false;
    unsigned lease_count = 0;
    std::vector<SaveId> origins;

    bool is_used() const { return is_visible || is_being_written || lease_count != 0; }
  };

  // All with mutex_ held.
  bool is_dead_locked(SaveId save) const;
  void show(VisibleStep step);
  void hide(std::uint64_t step);
  std::optional<VisibleStep> take(std::uint64_t step);  // Out of the visible ones.
  void bury(const VisibleStep& step);                   // One that was taken.
  // To be called when a reason for a save to be in use has gone. True: it was the last one.
  bool forget_if_unused(SaveId save);
  void note_if_hollow(SaveId save);
  Garbage garbage() const;

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::map<std::uint64_t, VisibleStep> visible_;
  std::map<SaveId, Use> uses_;
  std::map<SaveId, std::set<SaveId>> referrers_;  // In use; by what they refer to.
  std::set<SaveId> garbage_;                      // Hidden or abandoned; collected once dead.
  std::set<SaveId> maybe_shrunk_;                 // See Garbage::hollow.
  std::uint64_t dead_small_bytes_ = 0;            // Since the collector looked at `small`.
  std::uint32_t next_generation_ = 1;
  bool is_loaded_ = false;
  bool is_stopping_ = false;
  bool is_collecting_ = false;
};

}  // namespace stepstone
