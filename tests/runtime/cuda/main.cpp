// Without a device every test is skipped, by name.
#include <gtest/gtest.h>

#include "tests/runtime/cuda/device_under_test.h"

namespace {

// A test that is skipped when it starts does not run, and is reported as skipped; of an environment
// that is skipped googletest says that all tests have passed.
class NeedsDevice : public testing::EmptyTestEventListener {
  void OnTestStart(const testing::TestInfo&) override {
    static const std::string problem = caravan::examine_cuda().problem;
    if (!problem.empty()) GTEST_SKIP() << "skipped: " << problem;
  }
  void OnEnvironmentsTearDownStart(const testing::UnitTest&) override {
    caravan::end_device_under_test();
  }
};

}  // namespace

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  testing::UnitTest::GetInstance()->listeners().Append(new NeedsDevice);
  return RUN_ALL_TESTS();
}
