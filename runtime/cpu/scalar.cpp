// Ops on scalars: one number each, no threads.
#include "runtime/cpu/kernels.h"

namespace caravan::cpu {

void run(const Fill& op, const KernelArgs& args, const CpuThreads&) {
  *args.outputs[0].as<float>() = op.value;
}

void run(const Divide&, const KernelArgs& args, const CpuThreads&) {
  const float a = *args.inputs[0].as<float>();
  const float b = *args.inputs[1].as<float>();
  *args.outputs[0].as<float>() = b == 0.0f ? 0.0f : a / b;
}

}  // namespace caravan::cpu
