#include "api/item_reader.h"

#include <fmt/format.h>

#include "api/tree_reader.h"
#include "engine/store.h"

namespace stepstone {

std::uint64_t ItemReader::step() const { return reader_.record().save.step; }

std::string ItemReader::where() const {
  return fmt::format("step {} item '{}'", step(), printable(name_));
}

Result<Tree> ItemReader::read(const args::PyTreeRestore& args) const {
  return read_tree(reader_, name_, args, statistics_);
}

Result<ItemMetadata> ItemReader::metadata() const { return read_metadata(reader_, name_); }

}  // namespace stepstone
