// What runs ask for and this program has.
#include "launch/device.h"

#include "runtime/cuda/cuda.h"
#include "tests/launch/messages.h"

namespace caravan {
namespace {

Config config_of(DeviceKind device, DType dtype) {
  Config config;
  config.runtime.device = device;
  config.runtime.dtype = dtype;
  return config;
}

std::string message_of(DeviceKind device, DType dtype) {
  return config_message([&] { choose_device(config_of(device, dtype)); });
}

bool has_cuda() { return examine_cuda().problem.empty(); }

TEST(Device, TakesTheCpuWhereThereIsNothingElse) {
  const DeviceKind best = has_cuda() ? DeviceKind::cuda : DeviceKind::cpu;
  EXPECT_EQ(choose_device(config_of(DeviceKind::automatic, DType::f32)), best);
  EXPECT_EQ(choose_device(config_of(DeviceKind::cpu, DType::f32)), DeviceKind::cpu);
  EXPECT_EQ(plan_device(config_of(DeviceKind::automatic, DType::f32)), best);
}

TEST(Device, TheCpuHasNoBfloat16) {
  EXPECT_EQ(message_of(DeviceKind::cpu, DType::bf16),
            "runtime.dtype bfloat16 computes on CUDA only; use runtime.dtype=float32, or "
            "runtime.device=cuda");
}

TEST(Device, SaysWhatItHasNot) {
  if (has_cuda()) GTEST_SKIP() << "skipped: this machine has a CUDA device";
  const std::string problem = examine_cuda().problem;
  EXPECT_EQ(message_of(DeviceKind::automatic, DType::bf16),
            "runtime.dtype bfloat16 computes on CUDA only: " + problem +
                "; or use runtime.dtype=float32");
  for (const DType dtype : {DType::f32, DType::bf16}) {
    EXPECT_EQ(message_of(DeviceKind::cuda, dtype),
              "runtime.device is cuda: " + problem + "; or use runtime.device=cpu");
  }
}

// A plan needs no device, but what the kernels of one ask for.
TEST(Device, PlansAreForAnyDevice) {
  EXPECT_EQ(plan_device(config_of(DeviceKind::cuda, DType::bf16)), DeviceKind::cuda);
  const TensorSpec whole{{4, 8}}, shard{{4, 2}};
  const Op gather = AllGather{Axis::tp, 1};
  EXPECT_GE(workspace_rule(DeviceKind::cpu, 1)(gather, {{shard}}, {{whole}}), 4 * 8 * 4);
  if (!examine_cuda().is_built_in) GTEST_SKIP() << "skipped: this build has no CUDA";
  EXPECT_GE(workspace_rule(DeviceKind::cuda, 1)(gather, {{shard}}, {{whole}}), 4 * 8 * 4);
}

}  // namespace
}  // namespace caravan
