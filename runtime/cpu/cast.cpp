// Casts between f32 and bf16, element by element.
#include <algorithm>

#include "runtime/bfloat16.h"
#include "runtime/cpu/kernels.h"

namespace caravan::cpu {
namespace {

constexpr int64_t kChunk = int64_t{1} << 14;

void copy(const TensorView& from, const TensorView& to, const CpuThreads& threads) {
  const auto bytes = size_bytes(to.dtype);
  threads.for_chunks(to.size(), kChunk, [&](int64_t begin, int64_t end) {
    std::copy(from.as<std::byte>() + begin * bytes, from.as<std::byte>() + end * bytes,
              to.as<std::byte>() + begin * bytes);
  });
}

void widen(const TensorView& from, const TensorView& to, const CpuThreads& threads) {
  threads.for_chunks(to.size(), kChunk, [&](int64_t begin, int64_t end) {
    std::transform(from.as<BFloat16>() + begin, from.as<BFloat16>() + end, to.as<float>() + begin,
                   to_float);
  });
}

void round(const TensorView& from, const TensorView& to, const CpuThreads& threads) {
  threads.for_chunks(to.size(), kChunk, [&](int64_t begin, int64_t end) {
    std::transform(from.as<float>() + begin, from.as<float>() + end, to.as<BFloat16>() + begin,
                   to_bfloat16);
  });
}

}  // namespace

void run(const Cast&, const KernelArgs& args, const CpuThreads& threads) {
  const TensorView& from = args.inputs[0];
  const TensorView& to = args.outputs[0];
  if (from.dtype == to.dtype)
    copy(from, to, threads);
  else if (to.dtype == DType::f32)
    widen(from, to, threads);
  else
    round(from, to, threads);
}

}  // namespace caravan::cpu
