// compare_tensor and the slices that it reads.
#include "checkpoint/diff.h"

#include <gtest/gtest.h>

#include <bit>
#include <cstring>
#include <limits>

#include "tests/checkpoint/support.h"

namespace caravan::test {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

// Saves one tensor in equal parts along dim 0; returns the checkpoint.
std::string save_parts(const std::string& folder, DType dtype, const Shape& shape,
                       const void* elements, int num_parts) {
  SaveRequest request{.folder = folder, .header = header_of_step(1)};
  Shape extent = shape, offset(shape.size(), 0);
  extent[0] = shape[0] / num_parts;
  std::vector<std::string> reports;
  for (int part = 0; part < num_parts; ++part) {
    offset[0] = part * extent[0];
    const auto* bytes = static_cast<const char*>(elements);
    const int64_t part_bytes = num_elements(extent) * size_bytes(dtype);
    request.shards = {{"x", dtype, shape, offset, extent, bytes + part * part_bytes}};
    reports.push_back(write_rank(request, part, num_parts));
  }
  return commit_save(request, reports).path;
}

template <typename T>
TensorDifference compare(DType dtype, const std::vector<T>& a, const std::vector<T>& b) {
  const TemporaryFolder left, right;
  const Shape shape = {static_cast<int64_t>(a.size())};
  CheckpointReader first(save_parts(left.path(), dtype, shape, a.data(), 1));
  CheckpointReader second(save_parts(right.path(), dtype, shape, b.data(), 2));
  return compare_tensor(first, second, "x");
}

TEST(Diff, CountsAndMeasures) {
  const TensorDifference difference = compare<float>(DType::f32, {1, 2, 3, 4}, {1, 2.5, 3, -4});
  EXPECT_EQ(difference.num_elements, 4);
  EXPECT_EQ(difference.num_different, 2);
  EXPECT_EQ(difference.num_nan, 0);
  EXPECT_EQ(difference.largest, 8);
}

TEST(Diff, EqualBitsAreEqual) {
  EXPECT_TRUE(compare<float>(DType::f32, {kNan, kInfinity}, {kNan, kInfinity}).is_same());
  const float other_nan = std::bit_cast<float>(std::bit_cast<uint32_t>(kNan) ^ 1u);
  const TensorDifference difference =
      compare<float>(DType::f32, {kNan, 0.0f, kInfinity, 1}, {other_nan, -0.0f, 1, kNan});
  EXPECT_EQ(difference.num_different, 4);
  EXPECT_EQ(difference.num_nan, 2);
  EXPECT_EQ(difference.largest, kInfinity);
}

TEST(Diff, OtherTypes) {
  const int32_t low = std::numeric_limits<int32_t>::min();
  const int32_t high = std::numeric_limits<int32_t>::max();
  EXPECT_EQ(compare<int32_t>(DType::i32, {low, 5}, {high, 5}).largest, 4294967295.0);
  const TensorDifference difference = compare<uint16_t>(DType::bf16, {0x3F80, 0}, {0x4000, 0});
  EXPECT_EQ(difference.largest, 1);  // 1.0 and 2.0
  EXPECT_EQ(difference.num_different, 1);
}

// 9 MiB: three slices, over the borders of shards.
TEST(Diff, LargeTensorsInSlicesOfAnyLayout) {
  std::vector<float> elements(3 * 786432);
  for (size_t i = 0; i < elements.size(); ++i) elements[i] = static_cast<float>(i % 1000);
  const TemporaryFolder left, right;
  const Shape shape = {6, 2, 196608};
  CheckpointReader first(save_parts(left.path(), DType::f32, shape, elements.data(), 2));
  for (const size_t at : {size_t{0}, elements.size() / 2, elements.size() - 1}) elements[at] += 3;
  CheckpointReader second(save_parts(right.path(), DType::f32, shape, elements.data(), 3));
  const TensorDifference difference = compare_tensor(first, second, "x");
  EXPECT_EQ(difference.num_elements, static_cast<int64_t>(elements.size()));
  EXPECT_EQ(difference.num_different, 3);
  EXPECT_EQ(difference.largest, 3);
}

// Each element once, in order, in no slice more than was asked for.
TEST(Diff, SlicesCoverTheShapeInOrder) {
  for (const Shape& shape : {Shape{}, Shape{1}, Shape{7}, Shape{3, 4, 5}, Shape{1, 1, 9},
                             Shape{5, 1, 2, 3}, Shape{2, 2, 2, 2}}) {
    for (const int64_t limit : {1, 2, 3, 5, 7, 20, 1000}) {
      int64_t next = 0;
      for_each_slice(shape, limit, [&](const Box& box) {
        ASSERT_TRUE(lies_inside(box, shape)) << to_string(box);
        int64_t first = 0;
        for (size_t d = 0; d < shape.size(); ++d) first = first * shape[d] + box.offset[d];
        EXPECT_EQ(first, next) << to_string(box) << " of " << to_string(shape);
        EXPECT_LE(num_elements(box.extent), limit);
        next += num_elements(box.extent);
      });
      EXPECT_EQ(next, num_elements(shape)) << to_string(shape) << " by " << limit;
    }
  }
}

}  // namespace
}  // namespace caravan::test
