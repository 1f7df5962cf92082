#include <cmath>

#include "tests/runtime/kernels/op_check.h"

namespace caravan {
namespace {

TEST(Rope, RepeatedAndFarPositions) {
  for (const int64_t head_dim : {2, 8, 64, 128}) {
    const Tensor x = normal({90, 3 * head_dim}, 1);
    for (const int32_t last : {1, 30, 90, 8000}) {
      const Tensor positions = random_integers(90, 0, last, 2);
      check_op(Rope{head_dim, 500000.0, {}, false}, {{x, positions}, {x.shape}, {}, 1e-6});
    }
  }
}

TEST(Rope, Llama3Scaling) {
  const Tensor x = normal({50, 128}, 1);
  const Tensor positions = random_integers(50, 0, 100000, 2);
  const RopeScaling scaling{8.0, 1.0, 4.0, 8192};
  check_op(Rope{64, 500000.0, scaling, false}, {{x, positions}, {x.shape}, {}, 1e-6});
  const RopeScaling no_band{8.0, 2.0, 2.0, 8192};
  check_op(Rope{64, 500000.0, no_band, false}, {{x, positions}, {x.shape}, {}, 1e-6});
}

TEST(Rope, InverseUndoesIt) {
  const Tensor x = normal({40, 64}, 1);
  const Tensor positions = random_integers(40, 0, 1000, 2);
  for (const bool interleaved : {false, true}) {
    const Rope forth{.head_dim = 32, .theta = 1e4, .scaling = {}, .interleaved = interleaved};
    Rope back = forth;
    back.inverse = true;
    const auto turned = check_op(forth, {{x, positions}, {x.shape}, {}, 1e-6});
    expect_close(check_op(back, {{turned[0], positions}, {x.shape}, {}, 1e-6}), {x}, 1e-6);
  }
}

// The two layouts are one map, up to the order of a head's channels.
TEST(Rope, InterleavedTurnsNeighbours) {
  constexpr int64_t kTokens = 90;
  const Tensor positions = random_integers(kTokens, 0, 8000, 2);
  const RopeScaling scaling{16.0, 1.0, 1.0, 64};
  for (const int64_t head_dim : {2, 8, 64, 130}) {
    Rope op{.head_dim = head_dim, .theta = 5e5, .scaling = scaling, .interleaved = true};
    const Tensor x = normal({kTokens, 3 * head_dim}, 1);
    const auto turned = check_op(op, {{x, positions}, {x.shape}, {}, 1e-6});
    const auto halves = [&](const Tensor& from) {
      Tensor to = empty(from.shape);
      for (int64_t i = 0; i < from.size(); ++i) {
        const int64_t channel = i % head_dim;
        to.at(i - channel + channel / 2 + channel % 2 * head_dim / 2) = from.at(i);
      }
      return to;
    };
    op.interleaved = false;
    const auto expected = check_op(op, {{halves(x), positions}, {x.shape}, {}, 1e-6});
    expect_close({halves(turned[0])}, expected, 1e-6);
  }
}

// More pairs than a launch takes, and more tokens than a block.
TEST(Rope, WideHeadsAndNarrowOnes) {
  for (const int64_t head_dim : {2, 520, 1040}) {
    const Tensor x = normal({1030 / head_dim + 5, 2 * head_dim}, 1);
    const Tensor positions = random_integers(x.shape[0], 0, 200000, 2);
    for (const bool interleaved : {false, true}) {
      const Rope op{.head_dim = head_dim, .theta = 1e4, .scaling = {}, .interleaved = interleaved};
      check_op(op, {{x, positions}, {x.shape}, {}, 1e-6});
    }
  }
}

TEST(TemperatureScale, GrowsWithThePosition) {
  const Tensor x = normal({90, 48}, 1);
  for (const int32_t last : {1, 90, 200000}) {
    const Tensor positions = random_integers(90, 0, last, 2);
    check_op(TemperatureScale{8192, 0.1}, {{x, positions}, {x.shape}, {}, 1e-6});
    check_op(TemperatureScale{3, 0.5}, {{x, positions}, {x.shape}, {}, 1e-6});
  }
  // Nothing changes up to position floor_scale - 2; from the next one on it is 1 + 0.1 ln 2.
  const Tensor ones = filled({2, 1}, 1.0f);
  const auto y =
      check_op(TemperatureScale{4, 0.1}, {{ones, integers({2, 3})}, {ones.shape}, {}, 1e-6});
  EXPECT_EQ(y[0].at(0), 1.0f);
  EXPECT_FLOAT_EQ(y[0].at(1), 1.0f + 0.1f * std::log(2.0f));
}

// Two sequences of 10 tokens; the second has documents from 0 and from 3.
TEST(ChunkStart, CountsChunksFromTheStartOfTheDocument) {
  const Tensor starts = integers({0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3, 3, 3, 3, 3, 3, 3});
  const Tensor expected = integers({0, 0, 0, 0, 4, 4, 4, 4, 8, 8, 0, 0, 0, 3, 3, 3, 3, 7, 7, 7});
  OpCase c{{starts}, {{20}}};
  const auto chunked = check_op(ChunkStart{4, 10}, c);
  for (size_t i = 0; i < 20; ++i) EXPECT_EQ(chunked[0].words[i], expected.words[i]) << i;
  const auto whole = check_op(ChunkStart{10, 10}, c);
  for (size_t i = 0; i < 20; ++i) EXPECT_EQ(whole[0].words[i], starts.words[i]) << i;
}

// A rank that has the second half of a sequence still counts from the sequence's start. (The
// specification knows whole sequences only.)
TEST(ChunkStart, KnowsWhereItsTokensAre) {
  Tensor starts = integers({0, 0, 0, 7, 7});
  starts.offset = {15};
  starts.whole = {20};
  const Tensor chunked = run_kernel(ChunkStart{4, 10}, {{starts}, {{5}}})[0];
  const Tensor expected = integers({4, 4, 4, 7, 7});
  for (size_t i = 0; i < 5; ++i) EXPECT_EQ(chunked.words[i], expected.words[i]) << i;
}

}  // namespace
}  // namespace caravan
