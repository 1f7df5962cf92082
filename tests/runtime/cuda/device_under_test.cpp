// CUDA's kernels for the tests of tests/runtime/kernels: each case in f32, and again with every
// tensor in bf16 that may be (runtime/ops.h, "like x"), rounded before the specification sees it.
#include "tests/runtime/cuda/device_under_test.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "runtime/error.h"
#include "runtime/ops/rules.h"
#include "tests/runtime/kernels/op_check.h"

namespace caravan {
namespace {

constexpr int64_t kGuardBytes = 256;
constexpr uint32_t kGuard = 0xABADCAFE;
constexpr uint32_t kNaN = 0x7FC07FC0;  // in f32 and in bf16
constexpr double kBf16Tolerance = 1.0 / 64;

float round_to_bf16(float x) {
  if (!std::isfinite(x)) return x;
  const auto bits = std::bit_cast<uint32_t>(x);
  return std::bit_cast<float>((bits + 0x7fff + ((bits >> 16) & 1)) & 0xffff0000u);
}

// One tensor on the device, with guards behind it.
class DeviceTensor {
 public:
  DeviceTensor(const Shape& shape, DType dtype)
      : shape_(shape), dtype_(dtype), bytes_(num_elements(shape) * size_bytes(dtype)) {
    padded_ = (bytes_ + 3) / 4 * 4;
    memory_ = device_under_test().reserve(padded_ + kGuardBytes);
    device_under_test().fill(memory_->data(), kNaN, padded_);
    device_under_test().fill(memory_->data() + padded_, kGuard, kGuardBytes);
  }

  void write(const Tensor& tensor) {
    if (dtype_ != DType::bf16) {
      device_under_test().copy_in(memory_->data(), tensor.words.data(), bytes_);
      return;
    }
    std::vector<uint16_t> halves;
    for (int64_t i = 0; i < tensor.size(); ++i) {
      halves.push_back(static_cast<uint16_t>(std::bit_cast<uint32_t>(tensor.at(i)) >> 16));
    }
    device_under_test().copy_in(memory_->data(), halves.data(), bytes_);
  }

  Tensor read() const {
    Tensor tensor = empty(shape_, dtype_ == DType::i32 ? DType::i32 : DType::f32);
    std::vector<uint32_t> words(static_cast<size_t>(padded_ + kGuardBytes) / 4);
    device_under_test().copy_out(words.data(), memory_->data(), padded_ + kGuardBytes);
    for (size_t i = static_cast<size_t>(padded_) / 4; i < words.size(); ++i) {
      EXPECT_EQ(words[i], kGuard) << "wrote beyond a tensor of shape " << to_string(shape_);
    }
    for (size_t i = 0; i < static_cast<size_t>(num_elements(shape_)); ++i) {
      if (dtype_ == DType::bf16) {
        const uint32_t half = words[i / 2] >> (16 * (i % 2)) & 0xffffu;
        tensor.words[i] = half << 16;
      } else {
        tensor.words[i] = words[i];
      }
    }
    return tensor;
  }

  TensorView view(const Shape& offset = {}, const Shape& whole = {}) const {
    return {memory_->data(), shape_, dtype_, offset, whole};
  }

 private:
  Shape shape_;
  DType dtype_;
  int64_t bytes_;
  int64_t padded_ = 0;
  std::unique_ptr<DeviceMemory> memory_;
};

// The types of a case's tensors: as they are, or bf16 where the op takes it.
struct Types {
  std::vector<DType> inputs;
  std::vector<DType> outputs;
};

std::vector<Tensor> run_with_types(const Op& op, const OpCase& c, const Types& types) {
  std::vector<DeviceTensor> inputs, outputs;
  std::vector<TensorView> input_views, output_views;
  for (size_t i = 0; i < c.inputs.size(); ++i) {
    inputs.emplace_back(c.inputs[i].shape, types.inputs[i]).write(c.inputs[i]);
    input_views.push_back(inputs[i].view(c.inputs[i].offset, c.inputs[i].whole));
  }
  for (size_t i = 0; i < c.outputs.size(); ++i) {
    outputs.emplace_back(c.outputs[i], types.outputs[i]);
    output_views.push_back(outputs[i].view());
  }
  for (const InPlace& pair : c.in_place) {
    outputs[pair.output].write(c.inputs[pair.input]);
    input_views[pair.input] = output_views[pair.output];
  }
  TensorSpecs input_specs, output_specs;
  for (const TensorView& view : input_views) input_specs.push_back({view.shape, view.dtype});
  for (const TensorView& view : output_views) output_specs.push_back({view.shape, view.dtype});
  const int64_t bytes = cuda_workspace_bytes(op, input_specs, output_specs);
  const DeviceTensor workspace({(bytes + 3) / 4}, DType::f32);
  device_under_test().run(op, {input_views, output_views, workspace.view().data, bytes, nullptr},
                          Stream::compute);
  device_under_test().synchronize();
  workspace.read();
  std::vector<Tensor> results;
  for (const DeviceTensor& output : outputs) results.push_back(output.read());
  for (const DeviceTensor& input : inputs) input.read();
  return results;
}

Types f32_types(const Op& op, const OpCase& c) {
  Types types;
  TensorSpecs inputs;
  for (const Tensor& input : c.inputs) {
    types.inputs.push_back(input.dtype);
    inputs.push_back({input.whole.empty() ? input.shape : input.whole, input.dtype});
  }
  for (const TensorSpec& output : infer(op, inputs)) types.outputs.push_back(output.dtype);
  return types;
}

// Which inputs of the op are bf16 in mixed precision; empty: the op knows f32 only.
std::vector<size_t> bf16_inputs(const Op& op) {
  const std::string_view n = name(op);
  if (n == "matmul" || n == "swiglu" || n == "add" || n == "grouped_matmul" ||
      n == "grouped_matmul_grad" || n == "linear_cross_entropy" ||
      n == "linear_cross_entropy_grad" || n == "cross_entropy_part" ||
      n == "cross_entropy_part_grad") {
    return {0, 1};
  }
  if (n == "swiglu_grad" || n == "attention") return {0, 1, 2};
  if (n == "attention_grad") return {0, 1, 2, 4, 6};
  if (n == "rms_norm_grad") return {0, 3};
  if (n == "head_norm_grad") return {0, 2};
  if (n == "embedding_grad") return {2};
  if (n == "dispatch_grad") return {0, 5, 6};
  for (const char* first : {"add_bias", "sum_rows", "rms_norm", "head_norm", "rope",
                            "temperature_scale", "dispatch", "combine", "cast"}) {
    if (n == first) return {0};
  }
  return {};
}

// out and lse of an attention whose q, k and v have just been rounded: they would not fit otherwise.
void attend_again(const AttentionGrad& op, OpCase& c) {
  const Shape statistics = c.inputs[5].shape;
  const auto made = run_reference(
      Attention{op.head_dim, op.sequence_len, op.group, op.whole_sequences},
      {{c.inputs[0], c.inputs[1], c.inputs[2], c.inputs[3]}, {c.inputs[0].shape, statistics}});
  std::copy_n(made[0].words.begin(), made[0].size(), c.inputs[4].words.begin());
  std::copy_n(made[1].words.begin(), made[1].size(), c.inputs[5].words.begin());
}

// The case with bf16 tensors, and its types; nothing where the op has no such case.
std::optional<Types> to_bf16(const Op& op, OpCase& c) {
  std::vector<size_t> inputs = bf16_inputs(op);
  if (inputs.empty()) return {};
  const auto* matmul = std::get_if<MatMul>(&op);
  const bool adds_in_bf16 = addend(op) != Addend::none && name(op) != "embedding_grad" &&
                            name(op) != "grouped_matmul_grad" &&
                            (matmul == nullptr || !matmul->f32_output);
  if (adds_in_bf16) inputs.push_back(c.inputs.size() - 1);
  const auto* grad = std::get_if<AttentionGrad>(&op);
  Types types;
  TensorSpecs specs;
  for (size_t i = 0; i < c.inputs.size(); ++i) {
    const bool is_bf16 = std::ranges::find(inputs, i) != inputs.end();
    types.inputs.push_back(is_bf16 ? DType::bf16 : c.inputs[i].dtype);
    specs.push_back({c.inputs[i].shape, types.inputs.back()});
    if (!is_bf16) continue;
    if (i == 4 && grad != nullptr) attend_again(*grad, c);
    for (int64_t e = 0; e < c.inputs[i].size(); ++e) {
      c.inputs[i].at(e) = round_to_bf16(c.inputs[i].at(e));
    }
  }
  for (const TensorSpec& output : infer(op, specs)) types.outputs.push_back(output.dtype);
  c.tolerance = std::max(c.tolerance, kBf16Tolerance);
  c.scale = std::max(c.scale, c.bf16_scale);
  return types;
}

}  // namespace

namespace {

std::unique_ptr<Backend>& backend_under_test() {
  static std::unique_ptr<Backend> backend;
  return backend;
}

}  // namespace

Backend& device_under_test() {
  std::unique_ptr<Backend>& backend = backend_under_test();
  if (!backend) backend = make_cuda_backend({.deterministic = true});
  return *backend;
}

void end_device_under_test() { backend_under_test().reset(); }

std::vector<Tensor> run_kernel(const Op& op, const OpCase& c) {
  return run_with_types(op, c, f32_types(op, c));
}

std::vector<Tensor> check_op(const Op& op, const OpCase& c) {
  const std::vector<Tensor> actual = run_kernel(op, c);
  expect_same_bits(actual, run_kernel(op, c), "run again");
  expect_close(actual, run_reference(op, c), c.tolerance, c.scale);
  OpCase rounded = c;
  if (const auto types = to_bf16(op, rounded)) {
    const std::vector<Tensor> in_bf16 = run_with_types(op, rounded, *types);
    expect_same_bits(in_bf16, run_with_types(op, rounded, *types), "run again in bf16");
    expect_close(in_bf16, run_reference(op, rounded), rounded.tolerance, rounded.scale);
  }
  return actual;
}

}  // namespace caravan
