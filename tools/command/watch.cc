// Follows a store that a trainer writes to: a store that is open read-only shows what there was
// when it was opened, so it is opened anew when it is no longer current.
#include <fmt/format.h>
#include <poll.h>
#include <unistd.h>

#include <nlohmann/json.hpp>
#include <set>

#include "tools/command/command.h"
#include "tools/command/verb.h"
#include "tools/command/verbs.h"

namespace stepstone::tool {
namespace {

struct WatchArguments {
  std::filesystem::path store;
  std::optional<std::uint64_t> from;
  std::uint64_t count = 0;  // 0: without end.
  std::uint64_t interval_ms = 1000;
  bool once = false;
};

std::string to_line(const StepRecord& record) {
  std::uint64_t leaf_count = 0;
  for (const ItemSummary& item : record.items) leaf_count += item.leaf_count;
  std::string line =
      fmt::format("{:>10}  {}  {:>12}  {:>10}  {}", record.save.step,
                  format_time(record.committed_unix_ns), format_count(leaf_count, "leaf", "leaves"),
                  format_size(record.size_bytes), metrics_in_line(record));
  line.erase(line.find_last_not_of(' ') + 1);
  return line + "\n";
}

std::string to_json_line(const StepRecord& record) {
  nlohmann::ordered_json items = nlohmann::ordered_json::array();
  std::uint64_t leaf_count = 0;
  for (const ItemSummary& item : record.items) {
    items.push_back(printable(item.name));
    leaf_count += item.leaf_count;
  }
  const nlohmann::ordered_json json = {
      {"step", record.save.step},  {"committed_unix_ns", record.committed_unix_ns},
      {"leaf_count", leaf_count},  {"size_bytes", record.size_bytes},
      {"items", std::move(items)}, {"metrics", text_or_null(record.metrics)}};
  return json.dump() + "\n";
}

// False: whoever read standard output has gone.
bool wait_while_read(std::uint64_t interval_ms) {
  struct pollfd output = {.fd = STDOUT_FILENO, .events = 0, .revents = 0};
  const int ready = ::poll(&output, 1, static_cast<int>(interval_ms));
  return ready <= 0 || (output.revents & POLLERR) == 0;
}

class Watch {
 public:
  Watch(const WatchArguments& arguments, Console& console)
      : arguments_(arguments), console_(console) {}

  Result<void> run() {
    auto store = STEPSTONE_TRY(open_for_reading(arguments_.store));
    STEPSTONE_TRY(begin(*store));
    while (!is_done() && !arguments_.once && wait_while_read(arguments_.interval_ms)) {
      if (store->is_current()) continue;
      store = STEPSTONE_TRY(open_for_reading(arguments_.store));
      STEPSTONE_TRY(tell_new(*store));
    }
    return {};
  }

 private:
  using Seen = std::set<std::pair<std::uint64_t, std::uint64_t>>;

  // The newest step there is, or those that were asked for, are new.
  Result<void> begin(const Store& store) {
    const std::vector<SaveId> saves = store.saves();
    for (std::size_t i = 0; i < saves.size(); ++i) {
      const bool is_new =
          arguments_.from ? saves[i].step >= *arguments_.from : i + 1 == saves.size();
      if (!is_new) seen_.emplace(saves[i].step, saves[i].generation);
    }
    return tell_new(store);
  }

  Result<void> tell_new(const Store& store) {
    for (const SaveId& save : store.saves()) {
      if (is_done()) return {};
      if (!seen_.emplace(save.step, save.generation).second) continue;
      const Result<StepRecord> record = store.step_record(save.step);
      if (!record && record.error().code == ErrorCode::kNotFound) continue;
      if (!record) return tl::unexpected<Error>(record.error());
      STEPSTONE_TRY(
          console_.output.write(console_.json ? to_json_line(*record) : to_line(*record)));
      ++told_count_;
    }
    return {};
  }

  bool is_done() const {
    return console_.output.is_closed() ||
           (arguments_.count != 0 && told_count_ >= arguments_.count);
  }

  const WatchArguments& arguments_;
  Console& console_;
  Seen seen_;
  std::uint64_t told_count_ = 0;
};

}  // namespace

void add_watch(CommandLine& line) {
  Verb verb(line, "watch", "Follow a live run: a line for each step as it is committed",
            "Begins with the newest step there is. Takes no lock and does not disturb the trainer; "
            "ends when\n"
            "nobody reads its output any more. With --json, every line is an object.\n\n"
            "Examples:\n"
            "  stepstone watch run\n"
            "  stepstone watch run --from 0 --once              all steps there are\n"
            "  stepstone watch run --json | jq -r .metrics");
  const auto arguments = std::make_shared<WatchArguments>();
  verb.add_store(arguments->store);
  verb.add_step({.names = "--from",
                 .description = "Begin with the steps there are from this one on",
                 .type_name = "STEP"},
                arguments->from);
  verb.add_number({.names = "--count", .description = "End after so many lines", .type_name = "N"},
                  arguments->count, 1);
  verb.add_flag("--once", "Do not wait for steps to come", arguments->once);
  verb.add_number({.names = "--interval-ms",
                   .description = "How often to look",
                   .type_name = "N",
                   .default_text = "1000"},
                  arguments->interval_ms, 1, 3'600'000);
  verb.add_json();
  verb.on_run([arguments](Console& console) -> Result<int> {
    STEPSTONE_TRY(Watch(*arguments, console).run());
    return kExitOk;
  });
}

}  // namespace stepstone::tool
