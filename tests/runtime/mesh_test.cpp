// Coordinates of ranks, and which part of a tensor each holds.
#include "runtime/mesh.h"

#include <gtest/gtest.h>

namespace caravan {
namespace {

TEST(Mesh, DpIsOutermostAndTpInnermost) {
  const Mesh mesh{{2, 3, 4}};
  EXPECT_EQ(mesh.num_ranks(), 24);
  int rank = 0;
  for (int dp = 0; dp < 2; ++dp) {
    for (int ep = 0; ep < 3; ++ep) {
      for (int tp = 0; tp < 4; ++tp, ++rank) {
        const Mesh here = mesh.with_rank(rank);
        EXPECT_EQ(here.coordinate(Axis::dp), dp);
        EXPECT_EQ(here.coordinate(Axis::ep), ep);
        EXPECT_EQ(here.coordinate(Axis::tp), tp);
      }
    }
  }
}

TEST(Mesh, SaysItsSizes) {
  EXPECT_EQ(to_string(Mesh{}), "1 process");
  EXPECT_EQ(to_string(Mesh{{2, 1, 4}}), "dp 2 x tp 4");
}

Placement sharded(std::initializer_list<std::pair<Axis, int>> dims) {
  Placement placement;
  for (const auto& [axis, dim] : dims) placement[axis] = shard(dim);
  return placement;
}

TEST(LocalBox, UnevenPartsAreRoundedUpAndTheLastIsSmaller) {
  const Placement rows = sharded({{Axis::dp, 0}});
  const Mesh mesh{{3, 1, 1}};
  EXPECT_EQ(local_shape({50, 4}, rows, mesh), (Shape{17, 4}));
  const auto box = [&](int rank) { return local_box({50, 4}, rows, mesh.with_rank(rank)); };
  EXPECT_EQ(box(0).extent, (Shape{17, 4}));
  EXPECT_EQ(box(1).offset, (Shape{17, 0}));
  EXPECT_EQ(box(2).offset, (Shape{34, 0}));
  EXPECT_EQ(box(2).extent, (Shape{16, 4}));
}

TEST(LocalBox, RanksMayHoldNothing) {
  const Mesh mesh{{4, 1, 1}, 3};
  const Box box = local_box({2}, sharded({{Axis::dp, 0}}), mesh);
  EXPECT_EQ(box.extent, Shape{0});
  EXPECT_EQ(box.offset, Shape{2});
}

// One dim that both axes split: tp takes halves, dp takes parts of a half.
TEST(LocalBox, TpSplitsFirst) {
  const Placement both = sharded({{Axis::dp, 0}, {Axis::tp, 0}});
  const auto offset = [&](int dp, int tp) {
    return local_box({8}, both, Mesh{{2, 1, 2}, 2 * dp + tp}).offset[0];
  };
  EXPECT_EQ(offset(0, 0), 0);
  EXPECT_EQ(offset(1, 0), 2);
  EXPECT_EQ(offset(0, 1), 4);
  EXPECT_EQ(offset(1, 1), 6);
}

int64_t count_of(const Box& box, int64_t row, int64_t column) {
  const bool inside = row >= box.offset[0] && row < box.offset[0] + box.extent[0] &&
                      column >= box.offset[1] && column < box.offset[1] + box.extent[1];
  return inside ? 1 : 0;
}

// Every element is on as many ranks as hold copies: no hole, no overlap.
void expect_tiles(const Shape& global, const Placement& placement, const Mesh& mesh) {
  SCOPED_TRACE(to_string(global) + " " + to_string(placement) + " on " + to_string(mesh));
  int64_t copies = mesh.num_ranks();
  for (const Axis axis : kAxes) {
    if (placement[axis].kind == AxisPlacement::Kind::shard) copies /= mesh.size(axis);
  }
  for (int64_t row = 0; row < global[0]; ++row) {
    for (int64_t column = 0; column < global[1]; ++column) {
      int64_t found = 0;
      for (int rank = 0; rank < mesh.num_ranks(); ++rank) {
        found += count_of(local_box(global, placement, mesh.with_rank(rank)), row, column);
      }
      ASSERT_EQ(found, copies) << row << "," << column;
    }
  }
}

// Tokens: dp takes halves, tp takes parts of a half.
TEST(LocalBox, TpSplitsLastWhereThePlacementSaysSo) {
  Placement both = sharded({{Axis::dp, 0}, {Axis::ep, 0}, {Axis::tp, 0}});
  both.tp_is_last = true;
  const auto offset = [&](int dp, int ep, int tp) {
    return local_box({16}, both, Mesh{{2, 2, 2}, (dp * 2 + ep) * 2 + tp}).offset[0];
  };
  EXPECT_EQ(offset(0, 0, 1), 2);
  EXPECT_EQ(offset(1, 0, 0), 4);
  EXPECT_EQ(offset(0, 1, 0), 8);
  EXPECT_EQ(offset(1, 1, 1), 14);
  expect_tiles({16, 3}, both, Mesh{{2, 2, 2}});
  EXPECT_EQ(to_string(both), "S(0)@dp S(0)@ep S(0)@tp(last)");
  EXPECT_TRUE(both.is_nested());
  EXPECT_FALSE(sharded({{Axis::dp, 0}, {Axis::tp, 1}}).is_nested());
  EXPECT_FALSE(sharded({{Axis::dp, 0}}).is_nested());
}

TEST(LocalBox, BoxesOfAllRanksTileTheTensor) {
  for (const Shape& global : {Shape{8, 12}, Shape{7, 5}, Shape{1, 9}, Shape{13, 2}}) {
    for (const Mesh& mesh : {Mesh{{3, 1, 1}}, Mesh{{2, 1, 2}}, Mesh{{2, 2, 3}}, Mesh{{4, 1, 2}}}) {
      expect_tiles(global, {}, mesh);
      expect_tiles(global, sharded({{Axis::dp, 0}}), mesh);
      expect_tiles(global, sharded({{Axis::dp, 0}, {Axis::tp, 1}}), mesh);
      expect_tiles(global, sharded({{Axis::dp, 0}, {Axis::tp, 0}}), mesh);
      expect_tiles(global, sharded({{Axis::dp, 1}, {Axis::ep, 1}, {Axis::tp, 1}}), mesh);
    }
  }
}

// The planned shape has room for what any rank really holds.
TEST(LocalShape, CoversEveryBox) {
  const Placement both = sharded({{Axis::dp, 0}, {Axis::tp, 0}});
  for (int64_t rows = 1; rows < 30; ++rows) {
    const Mesh mesh{{3, 1, 2}};
    for (int rank = 0; rank < mesh.num_ranks(); ++rank) {
      EXPECT_LE(local_box({rows}, both, mesh.with_rank(rank)).extent[0],
                local_shape({rows}, both, mesh)[0]);
    }
  }
}

}  // namespace
}  // namespace caravan
