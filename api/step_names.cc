#include "api/step_names.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "format/limits.h"

namespace stepstone {
namespace {

constexpr unsigned kDigitCountMax = 20;

class StandardNameFormat : public StepNameFormat {
 public:
  explicit StandardNameFormat(const StandardNameOptions& options)
      : prefix_(options.step_prefix.empty() ? "" : options.step_prefix + "_"),
        digit_count_(options.step_format_fixed_length) {}

  std::string build_name(std::uint64_t step) const override {
    return fmt::format("{}{:0{}}", prefix_, step, digit_count_);
  }

  std::optional<std::uint64_t> step_of(std::string_view name) const override {
    if (!name.starts_with(prefix_)) return std::nullopt;
    const std::string_view digits = name.substr(prefix_.size());
    std::uint64_t step = 0;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), step);
    if (error != std::errc() || step > limits::kStepMax || build_name(step) != name) {
      return std::nullopt;
    }
    return step;
  }

 private:
  std::string prefix_;
  unsigned digit_count_;
};

class CompositeNameFormat : public StepNameFormat {
 public:
  CompositeNameFormat(std::shared_ptr<const StepNameFormat> write,
                      std::vector<std::shared_ptr<const StepNameFormat>> reads)
      : write_(std::move(write)), reads_(std::move(reads)) {}

  std::string build_name(std::uint64_t step) const override { return write_->build_name(step); }

  std::optional<std::uint64_t> step_of(std::string_view name) const override {
    for (const auto& format : reads_) {
      if (const std::optional<std::uint64_t> step = format->step_of(name)) return step;
    }
    return std::nullopt;
  }

 private:
  std::shared_ptr<const StepNameFormat> write_;
  std::vector<std::shared_ptr<const StepNameFormat>> reads_;
};

}  // namespace

std::vector<StepNameFormat::Found> StepNameFormat::find_all(
    std::span<const std::string> names) const {
  std::vector<Found> found;
  for (const std::string& name : names) {
    if (const std::optional<std::uint64_t> step = step_of(name)) found.push_back({*step, name});
  }
  std::stable_sort(found.begin(), found.end(),
                   [](const Found& a, const Found& b) { return a.step < b.step; });
  return found;
}

Result<std::string> StepNameFormat::find_step(std::uint64_t step,
                                              std::span<const std::string> names) const {
  for (const std::string& name : names) {
    if (step_of(name) == step) return name;
  }
  return fail(ErrorCode::kNotFound, fmt::format("step {}: none of {} names is its name ('{}')",
                                                step, names.size(), build_name(step)));
}

Result<std::shared_ptr<const StepNameFormat>> standard_name_format(
    const StandardNameOptions& options) {
  if (options.step_prefix.find('/') != std::string::npos) {
    return fail(ErrorCode::kInvalidArgument,
                fmt::format("step_prefix '{}': it must not have a '/'", options.step_prefix));
  }
  if (options.step_format_fixed_length > kDigitCountMax) {
    return fail(ErrorCode::kInvalidArgument,
                fmt::format("step_format_fixed_length is {}: it must be at most {}",
                            options.step_format_fixed_length, kDigitCountMax));
  }
  return std::make_shared<const StandardNameFormat>(options);
}

Result<std::shared_ptr<const StepNameFormat>> composite_name_format(
    std::shared_ptr<const StepNameFormat> write,
    std::vector<std::shared_ptr<const StepNameFormat>> reads) {
  if (write == nullptr || std::find(reads.begin(), reads.end(), nullptr) != reads.end()) {
    return fail(ErrorCode::kInvalidArgument, "composite_name_format: a format is null");
  }
  if (std::find(reads.begin(), reads.end(), write) == reads.end()) {
    return fail(ErrorCode::kInvalidArgument,
                "composite_name_format: the format to write must be among those to read");
  }
  return std::make_shared<const CompositeNameFormat>(std::move(write), std::move(reads));
}

}  // namespace stepstone
