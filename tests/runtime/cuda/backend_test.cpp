// Streams, copies and graphs of the CUDA backend.
#include <gtest/gtest.h>

#include <numeric>

#include "runtime/error.h"
#include "tests/runtime/cuda/device_under_test.h"

namespace caravan {
namespace {

std::vector<float> read(const DeviceMemory& memory, size_t count) {
  std::vector<float> values(count);
  device_under_test().copy_out(values.data(), memory.data(), static_cast<int64_t>(count * 4));
  return values;
}

TEST(CudaBackend, MemoryIsZeroAndFilled) {
  const auto memory = device_under_test().reserve(1000);
  EXPECT_EQ(read(*memory, 250), std::vector<float>(250, 0.0f));
  device_under_test().fill(memory->data(), 0x3f800000, 400);
  std::vector<float> expected(250, 0.0f);
  std::fill_n(expected.begin(), 100, 1.0f);
  EXPECT_EQ(read(*memory, 250), expected);
}

// More than all slots of the staging memory; the host's bytes change as soon as copy_in returns.
TEST(CudaBackend, CopiesLargeTensorsThroughStaging) {
  constexpr size_t kCount = (5 << 20) + 3;
  std::vector<float> values(kCount);
  std::iota(values.begin(), values.end(), 0.0f);
  const std::vector<float> original = values;
  const auto memory = device_under_test().reserve(kCount * 4);
  device_under_test().copy_in(memory->data(), values.data(), kCount * 4);
  std::fill(values.begin(), values.end(), -1.0f);
  EXPECT_EQ(read(*memory, kCount), original);
  device_under_test().copy_out_settled(values.data(), memory->data(), kCount * 4);
  EXPECT_EQ(values, original);
}

TEST(CudaBackend, RecordsWhatItRuns) {
  Backend& backend = device_under_test();
  ASSERT_TRUE(backend.records());
  const auto memory = backend.reserve(12);
  auto* data = reinterpret_cast<float*>(memory->data());
  const std::vector<TensorView> a = {{data, {}}}, ab = {{data, {}}, {data + 1, {}}};
  const std::vector<TensorView> out = {{data + 2, {}}};
  const std::vector<TensorView> second = {{data + 1, {}}};
  const Op four = Fill{4}, divide = Divide{};
  const auto recording = backend.record([&] {
    backend.run(four, {{}, second}, Stream::communication);
    backend.wait_for_communication(backend.communication_count());
    backend.run(divide, {ab, out}, Stream::compute);
  });
  EXPECT_EQ(read(*memory, 3), (std::vector<float>{0, 0, 0}));
  for (const float value : {8.0f, 2.0f}) {
    backend.copy_in(data, &value, 4);
    recording->launch();
    EXPECT_EQ(read(*memory, 3), (std::vector<float>{value, 4, value / 4}));
  }
}

TEST(CudaBackend, CommunicationBeginsAfterWhatWasComputedBefore) {
  Backend& backend = device_under_test();
  const auto memory = backend.reserve(12);
  auto* data = reinterpret_cast<float*>(memory->data());
  const std::vector<TensorView> a = {{data, {}}}, b = {{data + 1, {}}}, out = {{data + 2, {}}};
  const std::vector<TensorView> ab = {{data, {}}, {data + 1, {}}};
  const Op six = Fill{6}, three = Fill{3}, divide = Divide{};
  backend.run(six, {{}, a}, Stream::compute);
  backend.run(three, {{}, b}, Stream::compute);
  backend.run(divide, {ab, out}, Stream::communication);
  backend.wait_for_communication(backend.communication_count());
  EXPECT_EQ(read(*memory, 3), (std::vector<float>{6, 3, 2}));
}

TEST(CudaBackend, MoreThanTheDeviceHas) {
  EXPECT_THROW(device_under_test().reserve(int64_t{1} << 50), Error);
}

}  // namespace
}  // namespace caravan
