#include "engine/save_registry.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace stepstone {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

VisibleStep visible(SaveId save, Placement placement = Placement::kSegments) {
  VisibleStep step;
  step.record.save = save;
  step.record.placement = placement;
  return step;
}

class SaveRegistryTest : public ::testing::Test {
 protected:
  SaveRegistryTest() { registry_->load({}, 1); }

  // A step that is there.
  SaveId publish(std::uint64_t step, std::vector<std::uint64_t> retired = {}) {
    const SaveId save = *registry_->begin_save(step);
    registry_->end_save(save, visible(save), retired);
    return save;
  }
  // What the collector would take now, without waiting for more.
  std::vector<SaveId> garbage() {
    registry_->stop();
    return registry_->take_garbage().dead;
  }

  std::shared_ptr<SaveRegistry> registry_ = std::make_shared<SaveRegistry>();
};

TEST_F(SaveRegistryTest, ASaveIsAliveWhileItIsWritten) {
  const SaveId save = *registry_->begin_save(3);
  EXPECT_FALSE(registry_->is_dead(save));
  EXPECT_THAT(registry_->steps(), IsEmpty());
  registry_->end_save(save, std::nullopt, {});
  EXPECT_TRUE(registry_->is_dead(save));
  EXPECT_THAT(garbage(), ElementsAre(save));
}

// RocksDB may begin to compact while it opens, before the visible steps are known: a filter that
// took all steps for dead then would drop every small one.
TEST(SaveRegistryBeforeLoading, NothingIsDeadBecauseNothingIsKnown) {
  const auto registry = std::make_shared<SaveRegistry>();
  EXPECT_FALSE(registry->is_dead({3, 1}));
  registry->load({}, 1);
  EXPECT_TRUE(registry->is_dead({3, 1}));
}

TEST_F(SaveRegistryTest, TwoSavesOfOneStepNeverShareAGeneration) {
  EXPECT_NE(registry_->begin_save(3)->generation, registry_->begin_save(3)->generation);
  registry_->raise_next_generation(100);
  EXPECT_EQ(registry_->begin_save(4)->generation, 100);
}

TEST_F(SaveRegistryTest, AnOverwrittenSaveDiesAndTheNewOneLives) {
  const SaveId old = publish(3);
  const SaveId replacement = publish(3);
  EXPECT_TRUE(registry_->is_dead(old));
  EXPECT_FALSE(registry_->is_dead(replacement));
  EXPECT_THAT(registry_->steps(), ElementsAre(3));
  EXPECT_THAT(garbage(), ElementsAre(old));
}

TEST_F(SaveRegistryTest, ALeaseKeepsARetiredSaveUntilItGoes) {
  const SaveId save = publish(3);
  auto leased = registry_->lease(3);
  ASSERT_TRUE(leased);
  const std::uint64_t step = 3;
  registry_->retire({&step, 1});
  EXPECT_THAT(registry_->steps(), IsEmpty());
  EXPECT_FALSE(registry_->lease(3).has_value());
  EXPECT_FALSE(registry_->is_dead(save));
  leased->lease.reset();
  EXPECT_TRUE(registry_->is_dead(save));
  EXPECT_THAT(garbage(), ElementsAre(save));
}

TEST_F(SaveRegistryTest, TheCollectorIsNotGivenWhatALeaseHolds) {
  publish(3);
  const auto leased = registry_->lease(3);
  const std::uint64_t step = 3;
  registry_->retire({&step, 1});
  EXPECT_THAT(garbage(), IsEmpty());
}

TEST_F(SaveRegistryTest, SmallStepsAreLookedAtWhenEnoughOfThemHaveDied) {
  std::vector<std::uint64_t> steps;
  for (std::uint64_t step = 0; step < 5; ++step) {
    const SaveId save = *registry_->begin_save(step);
    VisibleStep small = visible(save, Placement::kSmall);
    small.record.size_bytes = 1 << 20;
    registry_->end_save(save, small, {});
    steps.push_back(step);
  }
  EXPECT_EQ(registry_->small_saves().size(), 5);
  registry_->retire(std::span(steps).first(1));
  EXPECT_EQ(registry_->small_saves().size(), 4);
  registry_->wait_until_collected();  // One is not enough to wait for.
  registry_->retire(steps);
  const SaveRegistry::Garbage garbage = registry_->take_garbage();
  EXPECT_TRUE(garbage.is_small_due);
  EXPECT_THAT(garbage.dead, IsEmpty());
  registry_->collected();
  registry_->wait_until_collected();
}

VisibleStep sharing(SaveId save, std::vector<SaveId> origins) {
  VisibleStep step = visible(save);
  step.record.origin_saves = std::move(origins);
  return step;
}

TEST_F(SaveRegistryTest, ASaveThatOthersReferToIsHollowUntilTheLastOfThemGoes) {
  const SaveId origin = publish(1);
  const SaveId second = *registry_->begin_save(2);
  registry_->end_save(second, sharing(second, {origin}), {});
  const SaveId third = *registry_->begin_save(3);
  // Its origin goes in the same instant.
  const std::vector<std::uint64_t> first = {1};
  registry_->end_save(third, sharing(third, {origin}), first);
  EXPECT_FALSE(registry_->is_in_use(origin));
  EXPECT_FALSE(registry_->is_dead(origin));
  EXPECT_THAT(registry_->hollow_saves(), ElementsAre(origin));
  EXPECT_EQ(registry_->lease_referrers(origin).size(), 2);
  SaveRegistry::Garbage garbage = registry_->take_garbage();
  EXPECT_THAT(garbage.dead, IsEmpty());
  EXPECT_THAT(garbage.hollow, ElementsAre(origin));
  registry_->collected();

  const std::vector<std::uint64_t> steps = {2};
  registry_->retire(steps);
  garbage = registry_->take_garbage();
  EXPECT_THAT(garbage.dead, ElementsAre(second));
  EXPECT_THAT(garbage.hollow, ElementsAre(origin));
  registry_->collected();

  auto leased = registry_->lease(3);
  const std::vector<std::uint64_t> last = {3};
  registry_->retire(last);
  EXPECT_FALSE(registry_->is_dead(origin));  // A reader of step 3 needs it.
  leased->lease.reset();
  EXPECT_TRUE(registry_->is_dead(origin));
  EXPECT_TRUE(registry_->lease_referrers(origin).empty());
  garbage = registry_->take_garbage();
  EXPECT_THAT(garbage.dead, ElementsAre(origin, third));
  EXPECT_THAT(garbage.hollow, IsEmpty());
}

TEST_F(SaveRegistryTest, AStepThatIsStillThereIsNotHollow) {
  const SaveId origin = publish(1);
  const SaveId second = *registry_->begin_save(2);
  registry_->end_save(second, sharing(second, {origin}), {});
  EXPECT_THAT(registry_->hollow_saves(), IsEmpty());
  EXPECT_TRUE(registry_->lease_referrers(origin).empty());
  const std::vector<std::uint64_t> steps = {2};
  registry_->retire(steps);
  EXPECT_FALSE(registry_->is_dead(origin));
  EXPECT_THAT(garbage(), ElementsAre(second));
}

// A save that overwrites the step which it shares with.
TEST_F(SaveRegistryTest, WhatIsReplacedBySomethingThatRefersToItIsHollow) {
  const SaveId old = publish(1);
  const SaveId replacement = *registry_->begin_save(1);
  registry_->end_save(replacement, sharing(replacement, {old}), {});
  EXPECT_THAT(registry_->hollow_saves(), ElementsAre(old));
  EXPECT_THAT(registry_->take_garbage().hollow, ElementsAre(old));
}

TEST_F(SaveRegistryTest, WhatIsReferredToIsKnownAfterLoading) {
  const auto registry = std::make_shared<SaveRegistry>();
  std::map<std::uint64_t, VisibleStep> steps;
  steps.emplace(4, sharing({4, 9}, {{1, 2}, {2, 3}}));
  registry->load(std::move(steps), 10);
  EXPECT_THAT(registry->hollow_saves(), ElementsAre(SaveId{1, 2}, SaveId{2, 3}));
  EXPECT_FALSE(registry->is_dead({1, 2}));
  EXPECT_TRUE(registry->is_dead({1, 1}));
  registry->add_garbage({{1, 1}, {1, 2}});
  const SaveRegistry::Garbage garbage = registry->take_garbage();
  EXPECT_THAT(garbage.dead, ElementsAre(SaveId{1, 1}));
  EXPECT_THAT(garbage.hollow, ElementsAre(SaveId{1, 2}));
}

}  // namespace
}  // namespace stepstone
