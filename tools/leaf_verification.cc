// Goes through the steps, their items and the leaves of each in batches of pieces, which several
// threads read. Between batches all before a place is verified, and that place is what the state
// file notes.
#include "tools/leaf_verification.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <fstream>
#include <map>
#include <mutex>
#include <nlohmann/json.hpp>
#include <sstream>
#include <unordered_set>

#include "engine/throttle.h"
#include "format/hash.h"
#include "tools/leaf_pieces.h"

namespace stepstone::tool {
namespace {

using nlohmann::ordered_json;

// Where the next batch begins. Everything before it is verified.
struct Place {
  SaveId save;
  std::size_t item = 0;   // Of the step, in its record's order.
  std::size_t piece = 0;  // Of the item's selected leaves.
};

std::string text_of(const std::filesystem::path& path) { return printable(path.native()); }

// What must be the same for a state to be gone on from.
ordered_json identity_of(const Store& store, const LeafPatterns& patterns,
                         const VerificationOptions& options) {
  std::error_code ignored;
  ordered_json identity = {
      {"store", text_of(std::filesystem::weakly_canonical(store.directory(), ignored))},
      {"step", nullptr},
      {"leaves", ordered_json::array()},
      {"exclude", ordered_json::array()},
      {"regex", patterns.is_regex}};
  if (options.step) identity["step"] = *options.step;
  for (const std::string& text : patterns.include) identity["leaves"].push_back(printable(text));
  for (const std::string& text : patterns.exclude) identity["exclude"].push_back(printable(text));
  return identity;
}

class StateFile {
 public:
  StateFile(std::filesystem::path path, ordered_json identity)
      : path_(std::move(path)), identity_(std::move(identity)) {}

  // False: there is none.
  Result<bool> read(Place& place, VerifyReport& report) const {
    std::error_code ignored;
    if (path_.empty() || !std::filesystem::exists(path_, ignored)) return false;
    std::ifstream file(path_, std::ios::binary);
    std::ostringstream text;
    text << file.rdbuf();
    if (!file) return fail(ErrorCode::kIo, text_of(path_) + ": cannot be read");
    const ordered_json state = ordered_json::parse(text.str(), nullptr, /*allow_exceptions=*/false);
    const auto number = [&](const char* name) -> std::optional<std::uint64_t> {
      const auto found = state.find(name);
      if (found == state.end() || !found->is_number_unsigned()) return std::nullopt;
      return found->get<std::uint64_t>();
    };
    if (!state.is_object() || !state.contains("verification")) return not_ours("no such file");
    if (state["verification"] != identity_) {
      return not_ours("of another store, step or selection of leaves");
    }
    const auto step = number("step");
    const auto generation = number("generation");
    const auto item = number("item");
    const auto piece = number("piece");
    const auto step_count = number("step_count");
    const auto leaf_count = number("leaf_count");
    const auto size_bytes = number("size_bytes");
    const auto damages = state.find("damages");
    if (!step || !generation || !item || !piece || !step_count || !leaf_count || !size_bytes ||
        damages == state.end() || !damages->is_array()) {
      return not_ours("damaged");
    }
    for (const ordered_json& damage : *damages) {
      if (!add_damage(damage, report)) return not_ours("damaged");
    }
    place = {.save = {*step, static_cast<std::uint32_t>(*generation)},
             .item = static_cast<std::size_t>(*item),
             .piece = static_cast<std::size_t>(*piece)};
    report.step_count = *step_count;
    report.leaf_count = *leaf_count;
    report.size_bytes = *size_bytes;
    return true;
  }

  // In one instant: the old one or the new one is there.
  Result<void> write(const Place& place, const VerifyReport& report) const {
    if (path_.empty()) return {};
    ordered_json damages = ordered_json::array();
    for (const Damage& damage : report.damages) {
      ordered_json json = {{"step", damage.step},
                           {"item", printable(damage.item)},
                           {"leaf", nullptr},
                           {"message", printable(damage.message)}};
      if (damage.leaf) json["leaf"] = printable(*damage.leaf);
      damages.push_back(std::move(json));
    }
    const ordered_json state = {{"verification", identity_},
                                {"step", place.save.step},
                                {"generation", place.save.generation},
                                {"item", place.item},
                                {"piece", place.piece},
                                {"step_count", report.step_count},
                                {"leaf_count", report.leaf_count},
                                {"size_bytes", report.size_bytes},
                                {"damages", std::move(damages)}};
    std::filesystem::path temporary = path_;
    temporary += fmt::format(".partial-{}", ::getpid());
    std::ofstream file(temporary, std::ios::binary | std::ios::trunc);
    file << state.dump() << '\n';
    file.close();
    std::error_code error;
    if (file) std::filesystem::rename(temporary, path_, error);
    if (file && !error) return {};
    std::filesystem::remove(temporary, error);
    return fail(ErrorCode::kIo, text_of(path_) + ": cannot be written");
  }

  void remove() const {
    std::error_code ignored;
    if (!path_.empty()) std::filesystem::remove(path_, ignored);
  }

 private:
  tl::unexpected<Error> not_ours(std::string_view why) const {
    return fail(ErrorCode::kInvalidArgument,
                fmt::format("{}: not the state of this verification, but {}; name another file, or "
                            "remove it to begin anew",
                            text_of(path_), why));
  }

  static bool add_damage(const ordered_json& json, VerifyReport& report) {
    if (!json.is_object()) return false;
    const auto text = [&](const char* name) -> std::optional<std::string> {
      const auto found = json.find(name);
      if (found == json.end() || !found->is_string()) return std::nullopt;
      return found->get<std::string>();
    };
    const auto step = json.find("step");
    if (step == json.end() || !step->is_number_unsigned() || !text("item") || !text("message")) {
      return false;
    }
    report.damages.push_back({.step = step->get<std::uint64_t>(),
                              .item = *text("item"),
                              .leaf = text("leaf"),
                              .message = *text("message")});
    return true;
  }

  std::filesystem::path path_;
  ordered_json identity_;
};

// The chunks that were found whole.
class VerifiedChunks {
 public:
  // By where it stands and what it must hash to. nullopt: the chunk differs from another one, so
  // that more than its own place matters.
  static std::optional<Hash128> name(SaveId save, std::string_view item, const StoredLeaf& leaf,
                                     std::uint32_t chunk) {
    if (leaf.record.base_of(chunk) != nullptr) return std::nullopt;
    std::string_view path = leaf.encoded_path;
    if (const ChunkOrigin* const origin = leaf.record.origin_of(chunk)) {
      save = origin->save;
      if (origin->source != 0) {
        item = leaf.record.sources[origin->source - 1].item;
        path = leaf.record.sources[origin->source - 1].encoded_path;
      }
    }
    const std::string key =
        chunk_key(save, item, path, chunk) + to_string(leaf.record.hashes[chunk]);
    return hash128(std::as_bytes(std::span(key)));
  }

  bool contains(const Hash128& name) const { return names_.contains(name); }
  void add(const Hash128& name) { names_.insert(name); }

 private:
  struct HashOfHash {
    std::size_t operator()(const Hash128& hash) const { return hash.low; }
  };

  std::unordered_set<Hash128, HashOfHash> names_;
};

class LeafVerifier {
 public:
  LeafVerifier(const Store& store, const VerificationOptions& options, StateFile& state)
      : store_(store), options_(options), state_(state), throttle_(options.bytes_per_second) {}

  Result<Verification> run() {
    if (options_.step) STEPSTONE_TRY(store_.step_record(*options_.step));
    const bool goes_on = STEPSTONE_TRY(state_.read(place_, report_));
    // A file that cannot be written is better known now than at an interruption.
    STEPSTONE_TRY(state_.write(place_, report_));
    std::vector<SaveId> saves = store_.saves();
    if (options_.step) {
      std::erase_if(saves, [&](const SaveId& save) { return save.step != *options_.step; });
    }
    for (const SaveId& save : saves) {
      if (const auto record = store_.step_record(save.step)) total_bytes_ += record->size_bytes;
    }
    for (const SaveId& save : saves) {
      if (goes_on && save.step < place_.save.step) {
        skip(save);
        continue;
      }
      // One that was saved anew since is begun anew.
      if (save != place_.save) place_ = {.save = save};
      if (!STEPSTONE_TRY(verify_step())) return stop();
    }
    if (report_.leaf_count == 0 && report_.damages.empty() && !options_.selection.selects_all()) {
      state_.remove();
      return fail(ErrorCode::kNotFound, "no leaf is selected");
    }
    state_.remove();
    return Verification{.report = std::move(report_), .is_complete = true};
  }

 private:
  using Clock = std::chrono::steady_clock;

  void skip(const SaveId& save) {
    if (const auto record = store_.step_record(save.step)) tell(record->size_bytes);
  }

  void tell(std::uint64_t size_bytes) {
    done_bytes_ += size_bytes;
    if (options_.progress) options_.progress(done_bytes_, total_bytes_);
  }

  bool is_to_stop() const { return options_.should_stop && options_.should_stop(); }

  Result<Verification> stop() {
    STEPSTONE_TRY(state_.write(place_, report_));
    return Verification{.report = std::move(report_), .is_complete = false};
  }

  // False: it was stopped.
  Result<bool> verify_step() {
    const auto reader = store_.read_step(place_.save.step);
    // Retired meanwhile.
    if (!reader && reader.error().code == ErrorCode::kNotFound && !options_.step) return true;
    if (!reader) return tl::unexpected<Error>(reader.error());
    const std::vector<ItemSummary>& items = (*reader)->record().items;
    for (; place_.item < items.size(); ++place_.item, place_.piece = 0) {
      if (!STEPSTONE_TRY(verify_item(**reader, items[place_.item].name))) return false;
    }
    ++report_.step_count;
    return true;
  }

  Result<bool> verify_item(const StepReader& step, const std::string& item) {
    const auto leaves = list_leaves(step, item, options_.selection);
    if (!leaves) {
      report_.damages.push_back(
          {.step = place_.save.step, .item = item, .leaf = {}, .message = leaves.error().message});
      return true;
    }
    std::vector<const StoredLeaf*> stored;
    stored.reserve(leaves->size());
    for (const ItemLeaf& leaf : *leaves) stored.push_back(&leaf.stored);
    const std::vector<LeafPiece> pieces = pieces_of(stored);
    while (place_.piece < pieces.size()) {
      if (is_to_stop()) return false;
      const auto batch = next_batch(pieces);
      if (!STEPSTONE_TRY(verify_batch(step, item, *leaves, stored, batch))) return false;
      place_.piece += batch.size();
      if (Clock::now() - noted_ < std::chrono::seconds(1)) continue;
      STEPSTONE_TRY(state_.write(place_, report_));
      noted_ = Clock::now();
    }
    report_.leaf_count += leaves->size();
    for (const StoredLeaf* const leaf : stored) report_.size_bytes += leaf->record.size_bytes;
    return true;
  }

  // As many pieces as the threads need to be kept busy for a while, but not for long.
  std::span<const LeafPiece> next_batch(std::span<const LeafPiece> pieces) const {
    constexpr std::uint64_t kBatchSizeBytes = std::uint64_t{64} << 20;
    constexpr std::size_t kBatchSizeMax = 4096;
    const auto rest = pieces.subspan(place_.piece);
    std::uint64_t size_bytes = 0;
    std::size_t count = 0;
    while (count < rest.size() && count < kBatchSizeMax && size_bytes < kBatchSizeBytes) {
      size_bytes += rest[count++].size;
    }
    return rest.first(count);
  }

  // The names of a piece's chunks; empty where one has none.
  std::vector<Hash128> names_of(const std::string& item, const StoredLeaf& leaf,
                                const LeafPiece& piece) const {
    std::vector<Hash128> names;
    const std::uint64_t chunk_size = leaf.record.chunk_size_bytes;
    const auto end =
        static_cast<std::uint32_t>((piece.offset + piece.size + chunk_size - 1) / chunk_size);
    for (auto chunk = static_cast<std::uint32_t>(piece.offset / chunk_size); chunk < end; ++chunk) {
      const auto name = VerifiedChunks::name(place_.save, item, leaf, chunk);
      if (!name) return {};
      names.push_back(*name);
    }
    return names;
  }

  Result<bool> verify_batch(const StepReader& step, const std::string& item,
                            const std::vector<ItemLeaf>& leaves,
                            std::span<const StoredLeaf* const> stored,
                            std::span<const LeafPiece> batch) {
    std::vector<LeafPiece> unread;
    std::vector<std::vector<Hash128>> names;
    std::uint64_t skipped_bytes = 0;
    for (const LeafPiece& piece : batch) {
      std::vector<Hash128> piece_names = names_of(item, *stored[piece.leaf], piece);
      const bool is_verified =
          !piece_names.empty() &&
          std::all_of(piece_names.begin(), piece_names.end(),
                      [&](const Hash128& name) { return verified_.contains(name); });
      if (is_verified) {
        skipped_bytes += piece.size;
        continue;
      }
      unread.push_back(piece);
      names.push_back(std::move(piece_names));
    }
    std::mutex mutex;
    std::atomic<bool> is_stopped = false;
    std::map<std::size_t, std::string> damaged;  // By leaf; the first message of each.
    std::uint64_t read_bytes = skipped_bytes;
    tell(skipped_bytes);
    // The throttle comes after the read, where its size is known to have been read.
    const auto visited = [&](std::size_t i, const std::string* message) -> Result<void> {
      if (!wait_for(unread[i].size)) is_stopped = true;
      const std::scoped_lock lock(mutex);
      if (message != nullptr) {
        damaged.emplace(unread[i].leaf, *message);
      } else {
        for (const Hash128& name : names[i]) verified_.add(name);
      }
      read_bytes += unread[i].size;
      tell(unread[i].size);
      if (is_stopped) return fail(ErrorCode::kClosed, "stopped");
      return {};
    };
    const Result<void> read = read_pieces(
        step, item, stored, unread, options_.thread_count,
        [&](std::size_t i, std::span<const std::byte>) { return visited(i, nullptr); },
        [&](std::size_t i, const Error& error) { return visited(i, &error.message); });
    if (is_stopped) return false;
    STEPSTONE_TRY(read);
    for (auto& [leaf, message] : damaged) add_damage(item, leaves[leaf].text, std::move(message));
    return true;
  }

  // In tenths of a second, so that a limit does not keep an interruption waiting. False: it is to
  // stop.
  bool wait_for(std::uint64_t size_bytes) {
    const std::uint64_t at_once = std::max<std::uint64_t>(options_.bytes_per_second / 10, 1);
    while (options_.bytes_per_second != 0 && size_bytes != 0) {
      const std::uint64_t now_bytes = std::min(size_bytes, at_once);
      if (is_to_stop() || !throttle_.wait(now_bytes)) return false;
      size_bytes -= now_bytes;
    }
    return !is_to_stop();
  }

  // Once for each leaf, however many of its batches are damaged.
  void add_damage(const std::string& item, const std::string& leaf, std::string message) {
    const bool is_known =
        std::any_of(report_.damages.begin(), report_.damages.end(), [&](const Damage& damage) {
          return damage.step == place_.save.step && damage.item == item && damage.leaf == leaf;
        });
    if (is_known) return;
    report_.damages.push_back(
        {.step = place_.save.step, .item = item, .leaf = leaf, .message = std::move(message)});
  }

  const Store& store_;
  const VerificationOptions& options_;
  StateFile& state_;
  Throttle throttle_;
  VerifyReport report_;
  VerifiedChunks verified_;
  Place place_;
  std::uint64_t done_bytes_ = 0;
  std::uint64_t total_bytes_ = 0;
  Clock::time_point noted_ = Clock::now();
};

}  // namespace

Result<Verification> verify_leaves(const Store& store, const LeafPatterns& patterns,
                                   const VerificationOptions& options) {
  StateFile state(options.state_file, identity_of(store, patterns, options));
  return LeafVerifier(store, options, state).run();
}

}  // namespace stepstone::tool
