// Runs a CPU kernel on tensors made by hand and holds it to what every kernel promises: the
// reference's result, the same bits again and with any number of threads, no write beyond its
// outputs and its workspace, and no use of what they held before.
#pragma once

#include <gtest/gtest.h>

#include <vector>

#include "runtime/cpu/kernels.h"
#include "runtime/cpu/reference.h"

namespace caravan {

struct Tensor {
  Shape shape;
  DType dtype = DType::f32;
  std::vector<uint32_t> words{};  // and guard words behind the elements
  Shape offset{};                 // of a part of a tensor: see TensorView
  Shape whole{};

  TensorView view() { return {words.data(), shape, dtype, offset, whole}; }
  TensorSpec spec() const { return {shape, dtype}; }
  int64_t size() const { return num_elements(shape); }
  float& at(int64_t i) { return reinterpret_cast<float*>(words.data())[i]; }
  float at(int64_t i) const { return reinterpret_cast<const float*>(words.data())[i]; }
  bool guards_intact() const;
};

Tensor empty(const Shape& shape, DType dtype = DType::f32);  // NaN everywhere
Tensor filled(const Shape& shape, float value);
Tensor scalar(float value);
Tensor normal(const Shape& shape, uint64_t index, double std = 1.0);
Tensor integers(const std::vector<int32_t>& values);
Tensor random_integers(int64_t count, int32_t low, int32_t high, uint64_t index);  // [low, high)

struct InPlace {
  size_t output;
  size_t input;
};

struct OpCase {
  std::vector<Tensor> inputs;
  std::vector<Shape> outputs;
  std::vector<InPlace> in_place{};
  // |kernel - reference| <= tolerance * (|reference| + mean |reference| of the tensor + scale);
  // `scale` is that of the terms where they cancel to zero.
  double tolerance = 1e-5;
  double scale = 0;
};

void expect_same_bits(const std::vector<Tensor>& a, const std::vector<Tensor>& b, const char* what);
void expect_close(const std::vector<Tensor>& actual, const std::vector<Tensor>& expected,
                  double tolerance, double scale = 0);

// Tensors and views of one call.
class Call {
 public:
  explicit Call(const OpCase& c);
  KernelArgs args(int64_t workspace_bytes);
  std::vector<TensorSpec> input_specs() const;
  std::vector<TensorSpec> output_specs() const;
  std::vector<Tensor> finish();  // checks the guards; the outputs

 private:
  OpCase case_;
  std::vector<Tensor> outputs_;
  std::vector<TensorView> input_views_;
  std::vector<TensorView> output_views_;
  Tensor workspace_;
};

template <typename Op>
std::vector<Tensor> run_kernel(const Op& op, const OpCase& c, int num_threads) {
  Call call(c);
  const auto inputs = call.input_specs();
  const auto outputs = call.output_specs();
  const int64_t bytes = cpu::workspace_bytes(op, {inputs, outputs, num_threads});
  cpu::run(op, call.args(bytes), cpu::CpuThreads(num_threads));
  return call.finish();
}

// All of the promises; returns the kernel's outputs.
template <typename Op>
std::vector<Tensor> check_op(const Op& op, const OpCase& c) {
  const std::vector<Tensor> actual = run_kernel(op, c, 1);
  expect_same_bits(actual, run_kernel(op, c, 1), "run again");
  expect_same_bits(actual, run_kernel(op, c, 2), "with 2 threads");
  expect_same_bits(actual, run_kernel(op, c, 3), "with 3 threads");
  Call reference(c);
  reference::run(op, reference.args(0));
  expect_close(actual, reference.finish(), c.tolerance, c.scale);
  return actual;
}

}  // namespace caravan
