#pragma once
// One checkpoint at one path, saved in the background.

#include <chrono>
#include <memory>
#include <optional>

#include "checkpointer.h"
#include "future.h"

namespace stepstone {

class CheckpointSave;

// As Checkpointer, but that save() returns when what the caller may change has been copied. One
// save at a time: the next call waits for it, unless it is is_saving_in_progress(),
// check_for_errors() or cancel(). Not thread-safe. The destructor waits, and tells nobody of an
// error: call close().
class AsyncCheckpointer : public Checkpointer {
 public:
  using Checkpointer::Checkpointer;

  // Waits for the save before it. The error of that one, if nobody has seen it; then nothing was
  // begun. Otherwise as Checkpointer::save, for what can be found out in advance.
  Result<void> save(const std::filesystem::path& path, const args::CheckpointArgs& args,
                    const SaveOptions& options);
  Result<void> save(const std::filesystem::path& path, const args::CheckpointArgs& args) {
    return save(path, args, SaveOptions{});
  }

  // An error of the save stays for wait_until_finished().
  template <typename T = Tree>
  Result<T> restore(const std::filesystem::path& path) const {
    wait();
    return Checkpointer::restore<T>(path);
  }
  template <typename Args>
  Result<typename Args::Restored> restore(const std::filesystem::path& path,
                                          const Args& args) const {
    wait();
    return Checkpointer::restore(path, args);
  }
  Result<StepMetadata> metadata(const std::filesystem::path& path) const {
    wait();
    return Checkpointer::metadata(path);
  }

  bool is_saving_in_progress() const { return !saving_.is_done(); }
  // Waits, for `timeout` at most; the error of the save, once: the path holds what it held before
  // it. kBusy: it goes on.
  Result<void> wait_until_finished(std::optional<std::chrono::milliseconds> timeout = std::nullopt);
  // The same without waiting.
  Result<void> check_for_errors();
  // Gives up the save that is under way, without waiting for anything: what has been written of it
  // is thrown away in the background, as soon as a handler's background part has returned. True:
  // it was in time, the path goes on to hold what it held (nothing, where nothing was there), and
  // no error of that save is told. False: the save had been committed or had failed by itself, or
  // there is none; what became of it is told as ever.
  bool cancel();
  // Waits; the error of a save that nobody has seen. Idempotent.
  Result<void> close();

 private:
  void wait() const {
    if (has_save_) static_cast<void>(saving_.result());
  }

  std::shared_ptr<CheckpointSave> save_;  // What saving_ works on.
  Future<void> saving_;
  bool has_save_ = false;  // Whose outcome nobody has seen.
  bool is_cancelled_ = false;
};

}  // namespace stepstone
