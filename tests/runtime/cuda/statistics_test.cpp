#include <gtest/gtest.h>

#include "runtime/cuda/attention_statistics.h"
#include "tests/runtime/cuda/device_under_test.h"

namespace caravan {
namespace {

void check_transpose(const cuda::StatisticsShape& shape) {
  Backend& backend = device_under_test();
  const auto count = static_cast<size_t>(shape.batches) * shape.rows * shape.columns;
  std::vector<float> values(count), transposed(count);
  for (size_t i = 0; i < count; ++i) values[i] = static_cast<float>(i);
  const auto bytes = static_cast<int64_t>(count * sizeof(float));
  const auto from = backend.reserve(bytes), to = backend.reserve(bytes);
  backend.copy_in(from->data(), values.data(), bytes);
  cuda::transpose_statistics(reinterpret_cast<float*>(to->data()),
                             reinterpret_cast<const float*>(from->data()), shape,
                             static_cast<cudaStream_t>(backend.stream_handle(Stream::compute)));
  backend.copy_out(transposed.data(), to->data(), bytes);
  for (int b = 0; b < shape.batches; ++b) {
    for (int row = 0; row < shape.rows; ++row) {
      for (int column = 0; column < shape.columns; ++column) {
        const int at = (b * shape.columns + column) * shape.rows + row;
        ASSERT_EQ(transposed[static_cast<size_t>(at)],
                  static_cast<float>((b * shape.rows + row) * shape.columns + column));
      }
    }
  }
}

TEST(AttentionStatistics, Transposes) {
  check_transpose({1, 1, 1});
  check_transpose({2, 70, 3});
  check_transpose({3, 5, 129});
  check_transpose({1, 64, 32});
}

}  // namespace
}  // namespace caravan
