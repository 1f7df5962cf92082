#include "data/batch.h"

#include <set>

#include "support.h"

namespace caravan {
namespace {

using Ints = std::vector<int32_t>;

Batch one_row(const Ints& window, int64_t length, bool attend_across = false) {
  Batch batch;
  batch.resize(1, length);
  fill_row(batch, 0, window, {.eos_id = kTestEos, .attend_across = attend_across});
  return batch;
}

TEST(Batch, DocumentsAreApart) {
  // The end of one document, a whole one, the beginning of a third.
  const Batch batch = one_row({7, 8, 2, 1, 9, 2, 1, 10, 11}, 8);
  EXPECT_EQ(batch.ids, (Ints{7, 8, 2, 1, 9, 2, 1, 10}));
  EXPECT_EQ(batch.targets, (Ints{8, 2, -1, 9, 2, -1, 10, 11}));
  EXPECT_EQ(batch.positions, (Ints{0, 1, 2, 0, 1, 2, 0, 1}));
  EXPECT_EQ(batch.document_start, (Ints{0, 0, 0, 3, 3, 3, 6, 6}));
  EXPECT_EQ(batch.num_targets(), 6);
}

TEST(Batch, OrAreOneStream) {
  const Batch batch = one_row({7, 8, 2, 1, 9}, 4, true);
  EXPECT_EQ(batch.ids, (Ints{7, 8, 2, 1}));
  EXPECT_EQ(batch.targets, (Ints{8, 2, 1, 9}));
  EXPECT_EQ(batch.positions, (Ints{0, 1, 2, 3}));
  EXPECT_EQ(batch.document_start, (Ints{0, 0, 0, 0}));
}

TEST(Batch, ShortWindowsArePadded) {
  const Batch batch = one_row({7, 8, 9}, 5);
  EXPECT_EQ(batch.ids, (Ints{7, 8, 9, 2, 2}));
  EXPECT_EQ(batch.targets, (Ints{8, 9, -1, -1, -1}));
  EXPECT_EQ(one_row({}, 3).num_targets(), 0);
  EXPECT_EQ(one_row({7, 2, 1}, 4, true).targets, (Ints{2, 1, -1, -1}));
}

// What the attention op relies on, on windows of every kind.
TEST(Batch, StartsAndPositionsAgree) {
  for (int seed = 0; seed < 50; ++seed) {
    Ints window;
    for (int i = 0; i < 33 - seed % 7; ++i) window.push_back(i * 7 % (seed + 2) == 0 ? 2 : 5);
    for (const bool across : {false, true}) {
      const Batch batch = one_row(window, 32, across);
      for (int32_t i = 0; i < 32; ++i) {
        const auto at = static_cast<size_t>(i);
        const int32_t start = batch.document_start[at];
        ASSERT_TRUE(start >= 0 && start <= i);
        ASSERT_EQ(batch.positions[at], i - start);
        ASSERT_TRUE(start == 0 || batch.ids[static_cast<size_t>(start - 1)] == kTestEos);
      }
    }
  }
}

TEST(Batch, AWindowTooLongIsABug) {
  message_of(ExitCode::internal, [] { one_row({1, 2, 3, 4}, 2); });
}

std::set<int64_t> samples_of_step(int64_t global, int64_t micro, int64_t ranks, int64_t step) {
  std::set<int64_t> samples;
  for (int64_t rank = 0; rank < ranks; ++rank) {
    const BatchLayout layout{global, micro, ranks, rank};
    for (int64_t m = 0; m < layout.num_micro_steps(); ++m) {
      const SampleRange range = rank_samples(layout, step, m);
      for (int64_t i = 0; i < range.count; ++i) {
        EXPECT_TRUE(samples.insert(range.first + i).second) << "read twice";
      }
    }
  }
  return samples;
}

TEST(RankSamples, EverySplitReadsTheSameSamples) {
  constexpr int64_t kGlobal = 48;
  for (int64_t ranks = 1; ranks <= kGlobal; ++ranks) {
    for (int64_t micro = 1; ranks * micro <= kGlobal; ++micro) {
      if (kGlobal % (ranks * micro) != 0) continue;
      const std::set<int64_t> samples = samples_of_step(kGlobal, micro, ranks, 5);
      ASSERT_EQ(std::ssize(samples), kGlobal);
      ASSERT_EQ(*samples.begin(), 5 * kGlobal);
      ASSERT_EQ(*samples.rbegin(), 6 * kGlobal - 1);
    }
  }
}

// The rows of a micro-batch are in the global order, whatever the number of ranks.
TEST(RankSamples, MicroBatchesAreConsecutive) {
  EXPECT_EQ(rank_samples({32, 4, 2, 0}, 1, 2), (SampleRange{48, 4}));
  EXPECT_EQ(rank_samples({32, 4, 2, 1}, 1, 2), (SampleRange{52, 4}));
  EXPECT_EQ(rank_samples({32, 8, 1, 0}, 1, 2), (SampleRange{48, 8}));
}

TEST(RankSamples, NamesAllNumbers) {
  const BatchLayout layout{.global_batch_size = 30, .micro_batch_size = 4, .num_ranks = 2};
  expect_contains(message_of(ExitCode::config, [&] { rank_samples(layout, 0, 0); }),
                  {"global_batch_size", "30", "micro_batch_size 4", "2 data-parallel", "8"});
  message_of(ExitCode::config, [] { (void)BatchLayout{.global_batch_size = 8}.num_micro_steps(); });
  message_of(ExitCode::internal, [] { rank_samples({8, 4, 2, 0}, 0, 1); });
  message_of(ExitCode::internal, [] { rank_samples({8, 4, 2, 2}, 0, 0); });
}

}  // namespace
}  // namespace caravan
