// cuDNN's attention against our own kernels: the same op with whole sequences, and with documents
// that are whole sequences. Skipped where the build has no cuDNN.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>

#include "runtime/cuda/cudnn_attention.h"
#include "tests/runtime/cuda/device_under_test.h"
#include "tests/runtime/kernels/op_check.h"

namespace caravan {
namespace {

struct Geometry {
  int64_t num_sequences;
  int64_t sequence_len;
  int64_t num_heads;
  int64_t num_kv_heads;
  int64_t head_dim;
};
void PrintTo(const Geometry& g, std::ostream* out) {
  *out << g.num_sequences << " x " << g.sequence_len << ", " << g.num_heads << " / "
       << g.num_kv_heads << " heads of " << g.head_dim;
}

// A tensor on the device; f32 words of the host become its elements.
class OnDevice {
 public:
  OnDevice(Backend& backend, const Shape& shape, DType dtype)
      : backend_(backend),
        shape_(shape),
        dtype_(dtype),
        memory_(backend.reserve(num_elements(shape) * size_bytes(dtype))) {}
  OnDevice(Backend& backend, const Tensor& tensor, DType dtype)
      : OnDevice(backend, tensor.shape, dtype) {
    std::vector<uint16_t> halves;
    for (int64_t i = 0; i < tensor.size(); ++i) {
      halves.push_back(static_cast<uint16_t>(tensor.words[static_cast<size_t>(i)] >> 16));
    }
    const void* from = dtype == DType::bf16 ? static_cast<const void*>(halves.data())
                                            : static_cast<const void*>(tensor.words.data());
    backend_.copy_in(memory_->data(), from, memory_->bytes());
  }
  TensorView view() const { return {memory_->data(), shape_, dtype_}; }
  std::vector<float> read() const {
    const auto count = static_cast<size_t>(num_elements(shape_));
    std::vector<float> values(count);
    if (dtype_ == DType::f32) {
      backend_.copy_out(values.data(), memory_->data(), memory_->bytes());
      return values;
    }
    std::vector<uint16_t> halves(count);
    backend_.copy_out(halves.data(), memory_->data(), memory_->bytes());
    for (size_t i = 0; i < count; ++i) values[i] = std::bit_cast<float>(uint32_t{halves[i]} << 16);
    return values;
  }

 private:
  Backend& backend_;
  Shape shape_;
  DType dtype_;
  std::unique_ptr<DeviceMemory> memory_;
};

// Puts the op on the stream, or records and launches it.
void run_op(Backend& backend, const Op& op, const std::vector<TensorView>& inputs,
            const std::vector<TensorView>& outputs, bool recorded) {
  TensorSpecs in, out;
  for (const TensorView& view : inputs) in.push_back({view.shape, view.dtype});
  for (const TensorView& view : outputs) out.push_back({view.shape, view.dtype});
  const int64_t bytes = backend.workspace_bytes(op, in, out);
  const auto workspace = backend.reserve(bytes);
  const KernelArgs args{inputs, outputs, workspace->data(), bytes, nullptr};
  std::unique_ptr<Recording> recording;
  if (recorded) {
    recording = backend.record([&] { backend.run(op, args, Stream::compute); });
    recording->launch();
  } else {
    backend.run(op, args, Stream::compute);
  }
  backend.synchronize();
}

// out, lse, dq, dk, dv
std::vector<std::vector<float>> attend(Backend& backend, const Geometry& g, bool whole_sequences,
                                       bool recorded = false) {
  const int64_t tokens = g.num_sequences * g.sequence_len;
  const Shape queries{tokens, g.num_heads * g.head_dim}, keys{tokens, g.num_kv_heads * g.head_dim};
  const int64_t group = g.num_heads / g.num_kv_heads;
  const std::vector<int32_t> starts(static_cast<size_t>(tokens), 0);
  const auto bf16 = [&](const Shape& shape, uint64_t index) {
    return OnDevice(backend, normal(shape, index), DType::bf16);
  };
  const OnDevice q = bf16(queries, 1), k = bf16(keys, 2), v = bf16(keys, 3),
                 dout = bf16(queries, 4);
  const OnDevice start(backend, integers(starts), DType::i32);
  const OnDevice out(backend, queries, DType::bf16), dq(backend, queries, DType::bf16);
  const OnDevice dk(backend, keys, DType::bf16), dv(backend, keys, DType::bf16);
  const OnDevice lse(backend, {tokens, g.num_heads}, DType::f32);
  run_op(backend, Attention{g.head_dim, g.sequence_len, group, whole_sequences},
         {q.view(), k.view(), v.view(), start.view()}, {out.view(), lse.view()}, recorded);
  run_op(backend, AttentionGrad{g.head_dim, g.sequence_len, group, whole_sequences},
         {q.view(), k.view(), v.view(), start.view(), out.view(), lse.view(), dout.view()},
         {dq.view(), dk.view(), dv.view()}, recorded);
  return {out.read(), lse.read(), dq.read(), dk.read(), dv.read()};
}

void expect_near(const std::vector<float>& a, const std::vector<float>& b, const char* name) {
  constexpr float kTolerance = 1.0f / 32;  // of numbers of about one, rounded in another order
  ASSERT_EQ(a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i) {
    ASSERT_LE(std::abs(a[i] - b[i]), kTolerance * (1.0f + std::abs(b[i]))) << name << " " << i;
  }
}

class CudnnAttentionTest : public testing::TestWithParam<Geometry> {
 protected:
  void SetUp() override {
    if (cuda::cudnn_version().empty()) GTEST_SKIP() << "skipped: this build has no cuDNN";
  }
};

TEST_P(CudnnAttentionTest, EqualsOurKernels) {
  const auto backend = make_cuda_backend({.deterministic = false});
  const auto ours = attend(*backend, GetParam(), false);
  const auto theirs = attend(*backend, GetParam(), true);
  EXPECT_EQ(backend->notes(), std::vector<std::string>{});
  const char* names[] = {"out", "lse", "dq", "dk", "dv"};
  for (size_t i = 0; i < ours.size(); ++i) expect_near(theirs[i], ours[i], names[i]);
  const auto replayed = attend(*backend, GetParam(), true, true);
  for (size_t i = 0; i < ours.size(); ++i) expect_near(replayed[i], ours[i], names[i]);
}

// Whoever does it: where cuDNN's deterministic backward would hold T x T, our own.
TEST_P(CudnnAttentionTest, DeterministicBitsStay) {
  const auto first = attend(device_under_test(), GetParam(), true);
  EXPECT_EQ(attend(device_under_test(), GetParam(), true), first);
}

INSTANTIATE_TEST_SUITE_P(Shapes, CudnnAttentionTest,
                         testing::Values(Geometry{2, 512, 4, 4, 64}, Geometry{1, 1024, 8, 2, 128},
                                         Geometry{3, 200, 6, 1, 128}, Geometry{1, 77, 2, 2, 80}));

}  // namespace
}  // namespace caravan
