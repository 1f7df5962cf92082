#include "tests/runtime/kernels/op_check.h"

#include <cmath>

#include "runtime/cpu/reference.h"
#include "runtime/rng.h"

namespace caravan {
namespace {

constexpr int64_t kGuardWords = 64;
constexpr uint32_t kGuard = 0xABADCAFE;
constexpr uint32_t kNaN = 0x7FC00000;
constexpr uint64_t kSeed = 20;

}  // namespace

bool Tensor::guards_intact() const {
  for (size_t i = words.size() - kGuardWords; i < words.size(); ++i) {
    if (words[i] != kGuard) return false;
  }
  return true;
}

Tensor empty(const Shape& shape, DType dtype) {
  Tensor tensor{.shape = shape, .dtype = dtype};
  tensor.words.assign(static_cast<size_t>(tensor.size()), kNaN);
  tensor.words.insert(tensor.words.end(), kGuardWords, kGuard);
  return tensor;
}

Tensor filled(const Shape& shape, float value) {
  Tensor tensor = empty(shape);
  for (int64_t i = 0; i < tensor.size(); ++i) tensor.at(i) = value;
  return tensor;
}

Tensor scalar(float value) { return filled({}, value); }

Tensor normal(const Shape& shape, uint64_t index, double std) {
  const RandomStream stream(kSeed, RandomPurpose::test, index);
  Tensor tensor = empty(shape);
  for (int64_t i = 0; i < tensor.size(); ++i) {
    tensor.at(i) = static_cast<float>(std * stream.normal(static_cast<uint64_t>(i)));
  }
  return tensor;
}

Tensor integers(const std::vector<int32_t>& values) {
  Tensor tensor = empty({static_cast<int64_t>(values.size())}, DType::i32);
  for (size_t i = 0; i < values.size(); ++i) tensor.words[i] = static_cast<uint32_t>(values[i]);
  return tensor;
}

Tensor random_integers(int64_t count, int32_t low, int32_t high, uint64_t index) {
  const RandomStream stream(kSeed, RandomPurpose::test, index);
  std::vector<int32_t> values;
  for (int64_t i = 0; i < count; ++i) {
    const double part = stream.uniform(static_cast<uint64_t>(i));
    values.push_back(low + static_cast<int32_t>(part * (high - low)));
  }
  return integers(values);
}

void expect_same_bits(const std::vector<Tensor>& a, const std::vector<Tensor>& b,
                      const char* what) {
  ASSERT_EQ(a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i) {
    EXPECT_EQ(a[i].words, b[i].words) << "output " << i << " differs " << what;
  }
}

void expect_close(const std::vector<Tensor>& actual, const std::vector<Tensor>& expected,
                  double tolerance, double scale) {
  ASSERT_EQ(actual.size(), expected.size());
  for (size_t output = 0; output < actual.size(); ++output) {
    const Tensor& a = actual[output];
    const Tensor& e = expected[output];
    double mean = 0;
    for (int64_t i = 0; i < e.size(); ++i) mean += std::abs(e.at(i)) / double(e.size());
    for (int64_t i = 0; i < e.size(); ++i) {
      const double bound = tolerance * (std::abs(e.at(i)) + mean + scale);
      ASSERT_LE(std::abs(double{a.at(i)} - e.at(i)), bound)
          << "output " << output << ", element " << i << " of " << to_string(e.shape) << ": "
          << a.at(i) << ", expected " << e.at(i);
    }
  }
}

Call::Call(const OpCase& c) : case_(c) {
  for (const Shape& shape : c.outputs) outputs_.push_back(empty(shape));
  for (const InPlace& pair : c.in_place) outputs_[pair.output] = c.inputs[pair.input];
  for (Tensor& input : case_.inputs) input_views_.push_back(input.view());
  for (Tensor& output : outputs_) output_views_.push_back(output.view());
  for (const InPlace& pair : c.in_place) input_views_[pair.input] = output_views_[pair.output];
}

KernelArgs Call::args(int64_t workspace_bytes) {
  workspace_ = empty({workspace_bytes / 4});
  return {input_views_, output_views_, workspace_.words.data(), workspace_bytes, nullptr};
}

std::vector<TensorSpec> Call::input_specs() const {
  std::vector<TensorSpec> specs;
  for (const Tensor& input : case_.inputs) specs.push_back(input.spec());
  return specs;
}

std::vector<TensorSpec> Call::output_specs() const {
  std::vector<TensorSpec> specs;
  for (const Tensor& output : outputs_) specs.push_back(output.spec());
  return specs;
}

std::vector<Tensor> Call::finish() {
  EXPECT_TRUE(workspace_.guards_intact()) << "wrote beyond the workspace";
  for (const Tensor& output : outputs_) {
    EXPECT_TRUE(output.guards_intact()) << "wrote beyond an output " << to_string(output.shape);
  }
  for (const Tensor& input : case_.inputs) {
    EXPECT_TRUE(input.guards_intact()) << "wrote beyond an input " << to_string(input.shape);
  }
  return outputs_;
}

std::vector<Tensor> run_reference(const Op& op, const OpCase& c) {
  Call call(c);
  reference::run_any(op, call.args(0));
  return call.finish();
}

}  // namespace caravan
