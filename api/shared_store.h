#pragma once
// One open store per directory in this process. A trainer's manager, an evaluator's, and a
// checkpointer that looks back at the same run each hold a SharedStore, and behind them is one
// Store, since RocksDB lets a directory be opened for writing only once.
//
// The table of open stores is the one thing in Stepstone that belongs to the whole process: who may
// write to a directory is decided per process, by its lock, and the parts of a program that open
// the same directory do not know of each other. A directory is known by its device and inode,
// whatever path leads to it. Opening and closing take turns; the use of what is open does not.

#include <filesystem>
#include <memory>

#include "engine/store.h"

namespace stepstone {

// A share in an open store. The store is closed with the last of its shares, also when that is one
// that was opened read-only. The object itself is for one thread at a time; the Store is not.
class SharedStore {
 public:
  // With options.read_only: the store that this process has open for writing, if there is one (the
  // holder must not write); else one opened read-only, which shows what was committed by now.
  // Without: one open for writing. A store on a file system of its own (options.file_system) is
  // never shared. Errors as of Store::open. kBusy: another process, or a Store that was not opened
  // through here, writes there.
  static Result<SharedStore> open(const std::filesystem::path& directory,
                                  const OpenOptions& options);

  SharedStore(SharedStore&& other) noexcept;
  SharedStore& operator=(SharedStore&& other) noexcept;
  ~SharedStore();

  // Another share in the same store.
  SharedStore share() const;

  // Until close() or reload().
  Store& operator*() const;
  Store* operator->() const;

  // Makes a store that was opened read-only show what has been committed since: it is opened again
  // if need be, or replaced by the one that this process has opened for writing meanwhile. Readers
  // of its steps stay as they are. Errors as of Store::open; the store stays as it was.
  Result<void> reload();

  // kBusy: this is the last share, and a StepReader or StepWriter of the store is still there;
  // nothing was done. Otherwise the share is gone, whatever becomes of the store.
  Result<void> close();
  bool is_open() const { return entry_ != nullptr; }

 private:
  struct Entry;
  struct Table;

  SharedStore(std::shared_ptr<Entry> entry, std::filesystem::path directory, OpenOptions options);
  static Table& table();
  // With the table locked.
  static Result<std::shared_ptr<Entry>> find_or_open(const std::filesystem::path& directory,
                                                     const OpenOptions& options);

  std::shared_ptr<Entry> entry_;
  std::filesystem::path directory_;
  OpenOptions options_;
};

}  // namespace stepstone
