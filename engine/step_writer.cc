#include <fmt/format.h>

#include "engine/database_step_saver.h"
#include "engine/save_plan.h"
#include "engine/store.h"
#include "engine/store_impl.h"
#include "format/limits.h"

namespace stepstone {
namespace {

tl::unexpected<Error> no_generation_left() {
  return fail(ErrorCode::kLimit, "this store has seen 2^32 saves: continue in a new one");
}

}  // namespace

StepWriter::StepWriter(std::unique_ptr<StepSaver> impl) : impl_(std::move(impl)) {}

StepWriter::~StepWriter() = default;

Result<void> StepWriter::put_item(std::string name, std::string handler, TreeStructure structure,
                                  std::string custom_metadata) {
  return impl_->put_item(std::move(name), {.handler = std::move(handler),
                                           .structure = std::move(structure),
                                           .custom_metadata = std::move(custom_metadata)});
}

Result<void> StepWriter::put_leaf(std::string_view item, std::string encoded_path, LeafInfo info,
                                  std::shared_ptr<const LeafSource> source) {
  return impl_->put_leaf(item, std::move(encoded_path), std::move(info), std::move(source));
}

void StepWriter::on_progress(Progress::Callback callback) {
  impl_->on_progress(std::move(callback));
}

Result<StepRecord> StepWriter::commit(std::span<const std::uint64_t> retire) {
  return impl_->commit([&] { return std::vector<std::uint64_t>(retire.begin(), retire.end()); });
}

Result<StepRecord> StepWriter::commit_choosing(const ChooseRetired& choose) {
  return impl_->commit(choose);
}

bool StepWriter::give_up() { return impl_->give_up(); }

const SaveCounters& StepWriter::counters() const { return impl_->counters(); }

Result<std::unique_ptr<StepWriter>> StepWriter::replace(std::shared_ptr<StoreImpl> store,
                                                        const SaveOptions& options,
                                                        Replacement& replacement) {
  STEPSTONE_TRY(store->check_writable());
  const std::optional<SaveId> save = store->registry().begin_save(replacement.replaced().save.step);
  if (!save) return no_generation_left();
  return std::unique_ptr<StepWriter>(new StepWriter(
      std::make_unique<DatabaseStepSaver>(std::move(store), *save, options, &replacement)));
}

Result<std::unique_ptr<StepWriter>> Store::begin_save(std::uint64_t step,
                                                      const SaveOptions& options) {
  std::shared_ptr<StoreImpl> store = STEPSTONE_TRY(writable());
  if (step > limits::kStepMax) {
    return fail(ErrorCode::kLimit,
                fmt::format("step {} is over the limit of {}", step, limits::kStepMax));
  }
  STEPSTONE_TRY_CONTEXT(check_chunk_size(options.chunk_size_bytes), fmt::format("step {}", step));
  if (!options.overwrite && store->registry().find(step)) {
    return fail(ErrorCode::kAlreadyExists,
                fmt::format("step {} exists already in {}: choose another step, or overwrite it",
                            step, store->directory().string()));
  }
  const std::optional<SaveId> save = store->registry().begin_save(step);
  if (!save) return no_generation_left();
  return std::unique_ptr<StepWriter>(
      new StepWriter(std::make_unique<DatabaseStepSaver>(std::move(store), *save, options)));
}

}  // namespace stepstone
