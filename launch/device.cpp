// This version has the CPU backend only.
#include "launch/device.h"

#include "runtime/error.h"

namespace caravan {

DeviceKind choose_device(const Config& config) {
  if (config.runtime.device == DeviceKind::cuda) {
    throw config_error(
        "runtime.device is cuda, and this program has no CUDA backend; use runtime.device=cpu");
  }
  if (config.runtime.dtype == DType::bf16) {
    throw config_error(
        "runtime.dtype bfloat16 computes on CUDA only; use runtime.dtype=float32, or "
        "runtime.device=cuda");
  }
  return DeviceKind::cpu;
}

}  // namespace caravan
