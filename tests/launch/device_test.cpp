// What runs ask for and this program has.
#include "launch/device.h"

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

TEST(Device, ComputesInFloat32OnTheCpu) {
  EXPECT_EQ(choose_device(config_of(DeviceKind::automatic, DType::f32)), DeviceKind::cpu);
  EXPECT_EQ(choose_device(config_of(DeviceKind::cpu, DType::f32)), DeviceKind::cpu);
}

TEST(Device, SaysWhatItHasNot) {
  const std::string bfloat16 =
      "runtime.dtype bfloat16 computes on CUDA only; use runtime.dtype=float32, or "
      "runtime.device=cuda";
  EXPECT_EQ(message_of(DeviceKind::automatic, DType::bf16), bfloat16);
  EXPECT_EQ(message_of(DeviceKind::cpu, DType::bf16), bfloat16);
  const std::string cuda =
      "runtime.device is cuda, and this program has no CUDA backend; use runtime.device=cpu";
  EXPECT_EQ(message_of(DeviceKind::cuda, DType::f32), cuda);
  EXPECT_EQ(message_of(DeviceKind::cuda, DType::bf16), cuda);
}

}  // namespace
}  // namespace caravan
