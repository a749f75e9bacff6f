#include "api/step_names.h"

#include <gtest/gtest.h>

#include "format/limits.h"
#include "tests/api/support.h"

namespace stepstone {
namespace {

using testing::fails;
using testing::is_ok;
using Found = StepNameFormat::Found;

std::shared_ptr<const StepNameFormat> format_of(const StandardNameOptions& options) {
  return standard_name_format(options).value();
}

TEST(StepNames, TheStandardFormatsBuildAndRead) {
  const std::vector<std::pair<StandardNameOptions, std::string>> cases = {
      {{}, "23"},
      {{.step_prefix = "", .step_format_fixed_length = 4}, "0023"},
      {{.step_prefix = "step", .step_format_fixed_length = 0}, "step_23"},
      {{.step_prefix = "step", .step_format_fixed_length = 4}, "step_0023"}};
  for (const auto& [options, name] : cases) {
    const auto format = format_of(options);
    EXPECT_EQ(format->build_name(23), name);
    EXPECT_EQ(format->step_of(name), 23U);
    for (const auto& [other_options, other_name] : cases) {
      const std::optional<std::uint64_t> step = format->step_of(other_name);
      EXPECT_EQ(step.has_value(), other_name == name) << other_name;
    }
    for (const std::uint64_t step : {std::uint64_t{0}, std::uint64_t{12345}, limits::kStepMax}) {
      EXPECT_EQ(format->step_of(format->build_name(step)), step);
    }
  }
}

TEST(StepNames, WhatIsNoStepIsNotFound) {
  const auto format = format_of({});
  for (const char* name : {"", "-1", "+1", " 1", "1 ", "1.0", "0x1", "01", "one", "step_1",
                           "9223372036854775808", "99999999999999999999999"}) {
    EXPECT_EQ(format->step_of(name), std::nullopt) << name;
  }
}

TEST(StepNames, FindsTheStepsAmongNames) {
  const auto format = format_of({.step_prefix = "step", .step_format_fixed_length = 0});
  const std::vector<std::string> names = {"step_10", "HEAD", "step_9", "9", "step_x", "step_2"};
  EXPECT_EQ(format->find_all(names),
            (std::vector<Found>{{2, "step_2"}, {9, "step_9"}, {10, "step_10"}}));
  EXPECT_EQ(*format->find_step(9, names), "step_9");
  EXPECT_TRUE(fails(format->find_step(3, names), ErrorCode::kNotFound, {"step 3", "step_3"}));
}

TEST(StepNames, ACompositeWritesOneFormatAndReadsMany) {
  const auto plain = format_of({});
  const auto padded = format_of({.step_prefix = "step", .step_format_fixed_length = 4});
  const auto both = composite_name_format(padded, {plain, padded});
  ASSERT_TRUE(is_ok(both));
  EXPECT_EQ((*both)->build_name(7), "step_0007");
  const std::vector<std::string> names = {"step_0007", "7", "5"};
  EXPECT_EQ((*both)->find_all(names), (std::vector<Found>{{5, "5"}, {7, "step_0007"}, {7, "7"}}));
  EXPECT_EQ(*(*both)->find_step(7, names), "step_0007") << "the first that matches";

  EXPECT_TRUE(fails(composite_name_format(padded, {plain}), ErrorCode::kInvalidArgument, {"read"}));
  EXPECT_TRUE(fails(composite_name_format(nullptr, {plain}), ErrorCode::kInvalidArgument));
}

TEST(StepNames, FormatsThatCannotBeMeantAreRefused) {
  EXPECT_TRUE(fails(standard_name_format({.step_prefix = "a/b", .step_format_fixed_length = 0}),
                    ErrorCode::kInvalidArgument, {"a/b"}));
  EXPECT_TRUE(fails(standard_name_format({.step_prefix = "", .step_format_fixed_length = 21}),
                    ErrorCode::kInvalidArgument, {"21", "20"}));
}

}  // namespace
}  // namespace stepstone
