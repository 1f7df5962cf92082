// Without a device every test is skipped, by name.
#include <gtest/gtest.h>

#include "tests/runtime/cuda/device_under_test.h"

namespace {

class NeedsDevice : public testing::Environment {
 public:
  void SetUp() override {
    const caravan::CudaStatus status = caravan::examine_cuda();
    if (!status.problem.empty()) GTEST_SKIP() << "skipped: " << status.problem;
  }
  void TearDown() override { caravan::end_device_under_test(); }
};

}  // namespace

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  testing::AddGlobalTestEnvironment(new NeedsDevice);
  return RUN_ALL_TESTS();
}
