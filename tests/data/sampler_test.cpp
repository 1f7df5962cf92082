#include "data/sampler.h"

#include <map>
#include <set>

#include "support.h"

namespace caravan {
namespace {

class SamplerTest : public testing::Test {
 protected:
  // Opens a file of documents of the given lengths.
  const TokenFile& tokens(const std::string& name, const std::vector<int>& lengths,
                          const TokenVocabulary& vocabulary = test_vocabulary()) {
    write_test_tokens(folder_.file(name), lengths, vocabulary);
    files_.push_back(std::make_unique<Hdf5TokenFile>(folder_.file(name)));
    return *files_.back();
  }

  DataFolder folder_;
  std::vector<std::unique_ptr<TokenFile>> files_;
};

TEST_F(SamplerTest, EachWindowOncePerEpoch) {
  for (const int num_tokens : {10, 11, 97, 1000, 4099}) {
    const TokenFile& file = tokens(std::to_string(num_tokens) + ".h5", {num_tokens - 2});
    const Sampler sampler({{&file, 1}}, {.sequence_len = 3, .seed = 5});
    const int64_t windows = sampler.num_windows(0);
    EXPECT_EQ(windows, (num_tokens - 1) / 3);
    std::vector<std::vector<int64_t>> orders;
    for (int64_t epoch = 0; epoch < 3; ++epoch) {
      std::set<int64_t> seen;
      orders.emplace_back();
      for (int64_t i = 0; i < windows; ++i) {
        const SampleLocation location = sampler.locate(epoch * windows + i);
        EXPECT_EQ(location.epoch, epoch);
        EXPECT_EQ(location.source, 0);
        seen.insert(location.window);
        orders.back().push_back(location.window);
      }
      EXPECT_EQ(std::ssize(seen), windows);
      EXPECT_EQ(*seen.rbegin(), windows - 1);
    }
    if (windows > 20) {
      EXPECT_NE(orders[0], orders[1]);
      EXPECT_NE(orders[1], orders[2]);
    }
  }
}

// Every token but the first, and those of the incomplete last window, is predicted once an epoch.
TEST_F(SamplerTest, EachTokenIsPredictedOnce) {
  const TokenFile& file = tokens("a.h5", {500}, test_vocabulary(2000));
  const Sampler sampler({{&file, 1}},
                        {.sequence_len = 16, .seed = 1, .attend_across_documents = true});
  std::map<int32_t, int> predicted;
  Batch batch;
  batch.resize(sampler.num_windows(0), 16);
  sampler.fill({0, sampler.num_windows(0)}, batch);
  for (const int32_t target : batch.targets) ++predicted[target];
  EXPECT_EQ(std::ssize(predicted), 31 * 16);  // 502 tokens: 31 windows
  for (const auto& [token, count] : predicted) EXPECT_EQ(count, 1) << token;
}

TEST_F(SamplerTest, RowsAreTheTokensOfTheFile) {
  const TokenFile& file = tokens("a.h5", {30, 1, 0, 25, 60});
  const SamplerOptions options{.sequence_len = 8, .seed = 3};
  const Sampler sampler({{&file, 1}}, options);
  Batch batch;
  batch.resize(4, 8);
  sampler.fill({2, 3}, batch, 1);
  std::vector<int32_t> window(9);
  for (int64_t row = 1; row < 4; ++row) {
    file.read(sampler.locate(1 + row).window * 8, window);
    Batch expected;
    expected.resize(1, 8);
    fill_row(expected, 0, window, {kTestEos, false});
    for (size_t i = 0; i < 8; ++i) {
      const auto at = static_cast<size_t>(row) * 8 + i;
      EXPECT_EQ(batch.ids[at], expected.ids[i]);
      EXPECT_EQ(batch.targets[at], expected.targets[i]);
      EXPECT_EQ(batch.positions[at], expected.positions[i]);
      EXPECT_EQ(batch.document_start[at], expected.document_start[i]);
    }
  }
}

TEST_F(SamplerTest, AnyStepIsReachedAtOnce) {
  const TokenFile& a = tokens("a.h5", {997});
  const TokenFile& b = tokens("b.h5", {5003});
  const std::vector<SampleSource> sources = {{&a, 1}, {&b, 3}};
  const Sampler walked(sources, {.sequence_len = 4, .seed = 11});
  std::vector<SampleLocation> order;
  for (int64_t i = 0; i < 20000; ++i) order.push_back(walked.locate(i));
  const Sampler resumed(sources, {.sequence_len = 4, .seed = 11});
  for (int64_t i = 19999; i >= 0; i -= 37) {
    EXPECT_EQ(resumed.locate(i), order[static_cast<size_t>(i)]);
  }
  const SampleLocation far = resumed.locate(int64_t{1} << 50);  // a walk would not end
  EXPECT_GT(far.epoch, int64_t{1} << 38);
}

TEST_F(SamplerTest, SourcesCountTheirOwnEpochs) {
  const TokenFile& small = tokens("a.h5", {402});  // 100 windows
  const TokenFile& large = tokens("b.h5", {39998});
  const Sampler sampler({{&small, 1}, {&large, 1}}, {.sequence_len = 4, .seed = 2});
  std::map<int64_t, std::set<int64_t>> small_windows;  // by epoch
  std::map<int64_t, int> num_small;
  for (int64_t i = 0; i < 2 * Mixture::kBlock; ++i) {
    const SampleLocation location = sampler.locate(i);
    if (location.source == 0) {
      small_windows[location.epoch].insert(location.window);
      ++num_small[location.epoch];
    } else {
      EXPECT_EQ(location.epoch, 0);
    }
  }
  ASSERT_EQ(sampler.num_windows(0), 100);
  EXPECT_EQ(small_windows.size(), 41u);  // 4096 samples of 100 windows
  for (int64_t epoch = 0; epoch < 40; ++epoch) {
    EXPECT_EQ(small_windows[epoch].size(), 100u);
    EXPECT_EQ(num_small[epoch], 100);
  }
  EXPECT_NEAR(sampler.epoch(0, 2 * Mixture::kBlock), 40.96, 1e-9);
}

TEST_F(SamplerTest, RefusesWhatDoesNotFit) {
  const TokenFile& file = tokens("a.h5", {30});
  expect_contains(message_of(ExitCode::data,
                             [&] {
                               Sampler({{&file, 1}}, {.sequence_len = 64, .seed = 1});
                             }),
                  {"a.h5", "32 tokens", "sequence_len 64"});
  TokenVocabulary other = test_vocabulary();
  other.tokenizer_hash = "another";
  const TokenFile& foreign = tokens("b.h5", {30}, other);
  expect_contains(message_of(ExitCode::data,
                             [&] {
                               Sampler({{&file, 1}, {&foreign, 1}}, {.sequence_len = 8, .seed = 1});
                             }),
                  {"a.h5", "b.h5", "--tokenizer"});
}

// Evaluation: every token that can be predicted is, once, in order; the rest is padding.
TEST_F(SamplerTest, EvaluationCoversEveryToken) {
  for (const int length : {1, 5, 6, 7, 14, 15, 40}) {
    const TokenFile& file = tokens("v" + std::to_string(length) + ".h5", {length, 3, length});
    for (const bool across : {false, true}) {
      const SamplerOptions options{.sequence_len = 8, .seed = 0, .attend_across_documents = across};
      const int64_t windows = num_sequential_windows(file, 8);
      EXPECT_EQ(windows, (file.num_tokens() - 1 + 7) / 8);  // none without a target
      std::vector<int32_t> predicted;
      Batch batch;
      for (int64_t first = 0; first < windows + 3; first += 2) {  // goes beyond the end
        fill_sequential(file, options, {first, 2}, batch);
        EXPECT_EQ(batch.num_samples, 2);
        EXPECT_TRUE(first + 1 >= windows || batch.num_targets() > 0);
        for (const int32_t target : batch.targets) {
          if (target != kIgnore) predicted.push_back(target);
        }
      }
      std::vector<int32_t> expected(static_cast<size_t>(file.num_tokens()));
      file.read(0, expected);
      expected.erase(expected.begin());
      if (!across) std::erase(expected, kTestBos);  // nothing predicts the first of a document
      EXPECT_EQ(predicted, expected);
    }
  }
}

TEST_F(SamplerTest, EvaluationOfNothing) {
  const TokenFile& file = tokens("a.h5", {});
  EXPECT_EQ(num_sequential_windows(file, 8), 0);
  Batch batch;
  fill_sequential(file, {.sequence_len = 8, .seed = 0}, {0, 2}, batch);
  EXPECT_EQ(batch.num_targets(), 0);
}

}  // namespace
}  // namespace caravan
