#pragma once
// Which saves exist, and why: visible, being written, or held by a reader. Whatever is none of
// these is dead, for ever, because generations are never used twice. The collector and the
// compaction filter ask here before they drop anything.

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

  // For the collector. Files of these saves, found at open, are to be dropped.
  void add_garbage(const std::vector<SaveId>& saves);
  // Waits for dead saves, and takes them; empty: stop() was called and nothing is left.
  std::vector<SaveId> take_garbage();
  // What take_garbage() gave has been dealt with.
  void collected();
  void stop();
  // Until everything that is dead now has been collected.
  void wait_until_collected();

 private:
  // All with mutex_ held.
  bool is_dead_locked(SaveId save) const;
  void hide(std::uint64_t step);
  std::vector<SaveId> dead_garbage() const;

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::map<std::uint64_t, VisibleStep> visible_;
  std::map<SaveId, unsigned> leases_;
  std::set<SaveId> writing_;
  std::set<SaveId> garbage_;  // Hidden or abandoned; collected once dead.
  std::uint32_t next_generation_ = 1;
  bool is_loaded_ = false;
  bool is_stopping_ = false;
  bool is_collecting_ = false;
};

}  // namespace stepstone
