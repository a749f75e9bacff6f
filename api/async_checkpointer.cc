#include "api/async_checkpointer.h"

#include <new>
#include <utility>

#include "api/checkpoint_save.h"

namespace stepstone {

Result<void> AsyncCheckpointer::save(const std::filesystem::path& path,
                                     const args::CheckpointArgs& args, const SaveOptions& options) {
  STEPSTONE_TRY(wait_until_finished());
  STEPSTONE_TRY(check_save(path, args));
  try {
    const std::shared_ptr<CheckpointSave> save =
        STEPSTONE_TRY(CheckpointSave::begin(path, args, registry(), options));
    STEPSTONE_TRY(save->stage());
    saving_ = Future<void>::run([save] { return save->finish(); });
    save_ = save;
    has_save_ = true;
  } catch (const std::bad_alloc&) {
    return fail(ErrorCode::kLimit, path.string() + ": out of memory");
  }
  return {};
}

Result<void> AsyncCheckpointer::wait_until_finished(
    std::optional<std::chrono::milliseconds> timeout) {
  if (!has_save_) return {};
  const Result<void> waited = saving_.result(timeout);
  if (!saving_.is_done()) return waited;
  // It may have ended between the two lines above.
  Result<void> finished = saving_.result();
  has_save_ = false;
  // Also what it kept for its work.
  saving_ = Future<void>();
  save_.reset();
  return std::exchange(is_cancelled_, false) ? Result<void>() : finished;
}

bool AsyncCheckpointer::cancel() {
  if (!is_cancelled_) is_cancelled_ = save_ != nullptr && save_->cancel();
  return is_cancelled_;
}

Result<void> AsyncCheckpointer::check_for_errors() {
  return saving_.is_done() ? wait_until_finished() : Result<void>();
}

Result<void> AsyncCheckpointer::close() {
  const Result<void> finished = wait_until_finished();
  Checkpointer::close();
  return finished;
}

}  // namespace stepstone
