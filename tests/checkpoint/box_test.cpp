#include "checkpoint/box.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <limits>
#include <numeric>

#include "runtime/rng.h"

namespace caravan {
namespace {

TEST(Box, LiesInsideRefusesWhatOverflows) {
  constexpr int64_t kMax = std::numeric_limits<int64_t>::max();
  EXPECT_TRUE(lies_inside({{2, 0}, {3, 4}}, {5, 4}));
  EXPECT_TRUE(lies_inside({{}, {}}, {}));
  EXPECT_FALSE(lies_inside({{3, 0}, {3, 4}}, {5, 4}));
  EXPECT_FALSE(lies_inside({{0}, {5}}, {5, 4}));
  EXPECT_FALSE(lies_inside({{0}, {0}}, {5}));
  EXPECT_FALSE(lies_inside({{-1}, {2}}, {5}));
  EXPECT_FALSE(lies_inside({{kMax}, {kMax}}, {5}));
  EXPECT_FALSE(lies_inside({{kMax}, {1}}, {kMax}));
}

TEST(Box, Intersect) {
  EXPECT_EQ(intersect({{0, 2}, {4, 4}}, {{3, 0}, {4, 3}}), (Box{{3, 2}, {1, 1}}));
  EXPECT_EQ(intersect({{0}, {4}}, {{4}, {4}}), std::nullopt);
  EXPECT_EQ(intersect({{}, {}}, {{}, {}}), (Box{{}, {}}));
}

// Global element of element `i` of a box.
int64_t global_element(const Box& box, const Shape& shape, int64_t i) {
  int64_t global = 0, stride = 1;
  for (size_t d = shape.size(); d-- > 0;) {
    global += (box.offset[d] + i % box.extent[d]) * stride;
    i /= box.extent[d];
    stride *= shape[d];
  }
  return global;
}

std::vector<int32_t> global_elements(const Box& box, const Shape& shape) {
  std::vector<int32_t> elements(static_cast<size_t>(num_elements(box.extent)));
  for (size_t i = 0; i < elements.size(); ++i) {
    elements[i] = static_cast<int32_t>(global_element(box, shape, static_cast<int64_t>(i)));
  }
  return elements;
}

class Draw {
 public:
  int64_t below(int64_t limit) {
    return static_cast<int64_t>(stream_.bits(next_++) % static_cast<uint64_t>(limit));
  }
  Box box(const Shape& shape) {
    Box result;
    for (const int64_t size : shape) {
      const int64_t begin = below(size);
      result.offset.push_back(begin);
      result.extent.push_back(1 + below(size - begin));
    }
    return result;
  }

 private:
  RandomStream stream_{11, RandomPurpose::test, 0};
  uint64_t next_ = 0;
};

// Random pairs of boxes in 0 to 4 dims, the source handed over in pieces of random sizes.
TEST(Box, SharedRunsCopyExactlyTheIntersection) {
  Draw draw;
  int num_shared = 0, num_placed = 0;
  for (int round = 0; round < 3000; ++round) {
    Shape shape(static_cast<size_t>(draw.below(5)));
    for (int64_t& size : shape) size = 1 + draw.below(6);
    const Box source = draw.box(shape), target = draw.box(shape);
    const std::optional<Box> common = intersect(source, target);
    if (!common) continue;
    ++num_shared;
    const std::vector<int32_t> from = global_elements(source, shape);
    std::vector<int32_t> to(static_cast<size_t>(num_elements(target.extent)), -1);
    SharedRuns runs(source, target, *common);
    const bool all = draw.below(2) == 0;  // from the start, or only what is needed
    int64_t begin = all ? 0 : runs.source_begin();
    const int64_t end = all ? static_cast<int64_t>(from.size()) : runs.source_end();
    ASSERT_LE(end, static_cast<int64_t>(from.size()));
    while (begin < end) {
      const int64_t count = 1 + draw.below(end - begin);
      if (const std::optional<int64_t> place = runs.place(begin, count)) {
        std::copy_n(from.data() + begin, count, to.data() + *place);
        ++num_placed;
      } else {
        runs.copy(begin, count, reinterpret_cast<const char*>(from.data() + begin), 4,
                  reinterpret_cast<char*>(to.data()));
      }
      begin += count;
    }
    const std::vector<int32_t> expected = global_elements(target, shape);
    for (size_t i = 0; i < to.size(); ++i) {
      const Box element{Shape(shape.size(), 0), Shape(shape.size(), 1)};
      Box at = element;
      int64_t rest = expected[i];
      for (size_t d = shape.size(); d-- > 0; rest /= shape[d]) at.offset[d] = rest % shape[d];
      ASSERT_EQ(to[i], intersect(at, source) ? expected[i] : -1) << to_string(source);
    }
  }
  EXPECT_GT(num_shared, 500);
  EXPECT_GT(num_placed, 100);
}

}  // namespace
}  // namespace caravan
