// Trains a small network on the UCI digits, with a checkpoint every few steps of which the newest
// three are kept, and resumes from the newest when it is started again.
//
// A run that is killed at any moment and started again ends with the very bits of one that was not.
// For that, a checkpoint holds everything the next step depends on: parameters, Adam's moments, the
// step, and the shuffling (its generator, the order of the samples, the place in it); and the
// history of the loss besides. The training itself is in network.cc. Here, to_tree() and
// from_tree() say what is saved, and run() when.

#include <stepstone/stepstone.h>

#include <charconv>
#include <fstream>
#include <iostream>
#include <map>
#include <optional>
#include <span>
#include <sstream>
#include <string>
#include <vector>

#include "network.h"

namespace {

using digits::Parameter;
using digits::Samples;
using digits::Training;
using stepstone::Array;
using stepstone::CheckpointManager;
using stepstone::ErrorCode;
using stepstone::Result;
using stepstone::Tree;
using stepstone::args::StandardSave;

struct Options {
  std::string data, store;
  std::string loss_log = "/dev/null", weights_out = "/dev/null";
  std::uint64_t steps = 600;
  std::uint64_t save_interval = 20;
  std::uint64_t hidden = 32;
};

// The whole state as a tree. The arrays are borrowed: save() copies what it needs before it
// returns.
Result<Tree> to_tree(const Training& training) {
  const auto arrays = [&](std::vector<float> Parameter::*values) -> Result<Tree> {
    std::vector<std::pair<std::string, Tree>> children;
    for (const Parameter& parameter : training.parameters) {
      children.emplace_back(
          parameter.name, STEPSTONE_TRY(Array::borrow<float>(parameter.*values, parameter.shape)));
    }
    return Tree::dict(std::move(children));
  };
  std::ostringstream generator;
  generator << training.generator;
  return Tree::dict({
      {"params", STEPSTONE_TRY(arrays(&Parameter::value))},
      {"adam", Tree::dict({{"mean", STEPSTONE_TRY(arrays(&Parameter::mean))},
                           {"variance", STEPSTONE_TRY(arrays(&Parameter::variance))}})},
      {"shuffle", Tree::dict({{"generator", generator.str()},
                              {"order", STEPSTONE_TRY(Array::borrow<std::int32_t>(
                                            training.order, {training.order.size()}))},
                              {"position", training.position}})},
      {"losses", STEPSTONE_TRY(Array::borrow<float>(training.losses, {training.losses.size()}))},
  });
}

template <typename T>
Result<const T*> leaf(const Tree& tree, const std::string& path) {
  const Tree* found = tree.find(path);
  const T* value = found == nullptr ? nullptr : found->get_if<T>();
  if (value == nullptr)
    return stepstone::fail(ErrorCode::kMismatch, path + ": not as this program saves it");
  return value;
}

template <typename T>
Result<void> copy_array(const Tree& tree, const std::string& path, std::vector<T>& destination) {
  const std::span<const T> values =
      STEPSTONE_TRY(STEPSTONE_TRY(leaf<Array>(tree, path))->values<T>());
  if (values.size() != destination.size()) {
    return stepstone::fail(ErrorCode::kMismatch,
                           path + ": saved by a run with other options or data");
  }
  std::ranges::copy(values, destination.begin());
  return {};
}

Result<void> from_tree(const Tree& tree, std::uint64_t step, Training& training) {
  for (Parameter& parameter : training.parameters) {
    STEPSTONE_TRY(copy_array(tree, "params/" + parameter.name, parameter.value));
    STEPSTONE_TRY(copy_array(tree, "adam/mean/" + parameter.name, parameter.mean));
    STEPSTONE_TRY(copy_array(tree, "adam/variance/" + parameter.name, parameter.variance));
  }
  training.losses.resize(step);
  STEPSTONE_TRY(copy_array(tree, "losses", training.losses));
  STEPSTONE_TRY(copy_array(tree, "shuffle/order", training.order));
  training.position = *STEPSTONE_TRY(leaf<std::int64_t>(tree, "shuffle/position"));
  std::istringstream(*STEPSTONE_TRY(leaf<std::string>(tree, "shuffle/generator"))) >>
      training.generator;
  training.step = step;
  return {};
}

// A line for each step; the hexadecimal form keeps every bit.
void log_losses(std::ofstream& log, std::span<const float> losses) {
  for (const float loss : losses) log << std::hexfloat << loss << '\n';
  log.flush();
}

Result<void> run(const Options& options) {
  const Samples samples = digits::load_samples(options.data);
  if (samples.labels.empty()) {
    return stepstone::fail(ErrorCode::kInvalidArgument, options.data + ": not the UCI digits");
  }
  Training training = digits::new_training(samples, options.hidden);
  const auto manager = STEPSTONE_TRY(CheckpointManager::open(
      options.store, {.save_interval_steps = options.save_interval, .max_to_keep = 3}));
  if (const auto step = manager->latest_step()) {
    STEPSTONE_TRY(from_tree(STEPSTONE_TRY(manager->restore(step)), *step, training));
    std::cout << "resumed at step " << *step << std::endl;
  }
  // Written anew on resumption: the killed run had logged steps that are now done again.
  std::ofstream loss_log(options.loss_log);
  log_losses(loss_log, training.losses);

  std::optional<std::uint64_t> saving;
  const auto report_saved = [&] {
    std::cout << "saved step " << *saving << std::endl;
    saving.reset();
  };
  while (training.step < options.steps) {
    digits::train_step(training, samples);
    log_losses(loss_log, std::span(training.losses).last(1));
    if (training.step % 10 == 0) {
      std::cout << "step " << training.step << ": loss " << training.losses.back() << std::endl;
    }
    if (saving && !manager->is_saving_in_progress()) {
      STEPSTONE_TRY(manager->check_for_errors());
      report_saved();
    }
    if (manager->should_save(training.step) || training.step == options.steps) {
      if (saving) {
        STEPSTONE_TRY(manager->wait_until_finished());
        report_saved();
      }
      std::cout << "saving step " << training.step << std::endl;
      STEPSTONE_TRY(manager->save(
          training.step, StandardSave(STEPSTONE_TRY(to_tree(training))),
          {.force = true,
           .metrics = Tree::dict({{"loss", static_cast<double>(training.losses.back())}})}));
      saving = training.step;  // It goes on in the background, while the next steps are trained.
    }
  }
  STEPSTONE_TRY(manager->close());
  if (saving) report_saved();
  std::ofstream weights(options.weights_out, std::ios::binary);
  for (const Parameter& parameter : training.parameters) {
    const std::span<const std::byte> bytes = std::as_bytes(std::span(parameter.value));
    weights.write(reinterpret_cast<const char*>(bytes.data()),
                  static_cast<std::streamsize>(bytes.size()));
  }
  if (!loss_log.flush() || !weights.flush()) {
    return stepstone::fail(ErrorCode::kIo, "cannot write the loss log or the weights");
  }
  std::cout << "done: " << training.step << " steps, "
            << 100 * digits::test_accuracy(training, samples) << " % of the test digits right"
            << std::endl;
  return {};
}

bool parse(std::span<char* const> arguments, Options& options) {
  const std::map<std::string, std::string*> texts = {{"--data", &options.data},
                                                     {"--store", &options.store},
                                                     {"--loss-log", &options.loss_log},
                                                     {"--weights-out", &options.weights_out}};
  const std::map<std::string, std::uint64_t*> numbers = {
      {"--steps", &options.steps},
      {"--save-interval", &options.save_interval},
      {"--hidden", &options.hidden}};
  for (std::size_t i = 1; i + 1 < arguments.size(); i += 2) {
    const std::string value = arguments[i + 1];
    if (const auto text = texts.find(arguments[i]); text != texts.end()) {
      *text->second = value;
    } else if (const auto number = numbers.find(arguments[i]); number != numbers.end()) {
      const char* end = value.data() + value.size();
      if (std::from_chars(value.data(), end, *number->second).ptr != end) return false;
    } else {
      return false;
    }
  }
  return arguments.size() % 2 == 1 && !options.data.empty() && !options.store.empty() &&
         options.save_interval > 0 && options.hidden > 0 && options.hidden <= 65536;
}

}  // namespace

int main(int argument_count, char** arguments) {
  Options options;
  if (!parse(std::span(arguments, static_cast<std::size_t>(argument_count)), options)) {
    std::cerr << "usage: digits_mlp --data FILE --store DIR [--steps N] [--save-interval N]\n"
                 "                  [--hidden N] [--loss-log FILE] [--weights-out FILE]\n";
    return 2;
  }
  if (const Result<void> result = run(options); !result) {
    std::cerr << "digits_mlp: " << result.error().message << '\n';
    return 1;
  }
  return 0;
}
