// Kernels of mixtures of experts.
#include "runtime/cpu/kernels.h"
#include "runtime/error.h"

namespace caravan::cpu {

void run(const Route&, const KernelArgs&, const CpuThreads&) {
  throw internal_error("[Route] has no kernel yet");
}
void run(const RouteGrad&, const KernelArgs&, const CpuThreads&) {
  throw internal_error("[RouteGrad] has no kernel yet");
}
void run(const Experts&, const KernelArgs&, const CpuThreads&) {
  throw internal_error("[Experts] has no kernel yet");
}
void run(const ExpertsGrad&, const KernelArgs&, const CpuThreads&) {
  throw internal_error("[ExpertsGrad] has no kernel yet");
}
void run(const Assign&, const KernelArgs&, const CpuThreads&) {
  throw internal_error("[Assign] has no kernel yet");
}
void run(const Dispatch&, const KernelArgs&, const CpuThreads&) {
  throw internal_error("[Dispatch] has no kernel yet");
}
void run(const DispatchGrad&, const KernelArgs&, const CpuThreads&) {
  throw internal_error("[DispatchGrad] has no kernel yet");
}
void run(const Combine&, const KernelArgs&, const CpuThreads&) {
  throw internal_error("[Combine] has no kernel yet");
}
void run(const GroupedMatMul&, const KernelArgs&, const CpuThreads&) {
  throw internal_error("[GroupedMatMul] has no kernel yet");
}
void run(const GroupedMatMulGrad&, const KernelArgs&, const CpuThreads&) {
  throw internal_error("[GroupedMatMulGrad] has no kernel yet");
}
void run(const UpdateRouterBias&, const KernelArgs&, const CpuThreads&) {
  throw internal_error("[UpdateRouterBias] has no kernel yet");
}
void run(const AllReduceMax&, const KernelArgs&, const CpuThreads&) {
  throw internal_error("[AllReduceMax] has no kernel yet");
}
void run(const ExchangeRows&, const KernelArgs&, const CpuThreads&) {
  throw internal_error("[ExchangeRows] has no kernel yet");
}
void run(const ReturnRows&, const KernelArgs&, const CpuThreads&) {
  throw internal_error("[ReturnRows] has no kernel yet");
}

}  // namespace caravan::cpu
