// Runs a kernel of the device under test on tensors made by hand and holds it to what every kernel
// promises: the reference's result, the same bits again, no write beyond its outputs and its
// workspace, and no use of what they held before. The tests of this folder are linked once for
// every device.
#pragma once

#include <gtest/gtest.h>

#include <vector>

#include "runtime/backend.h"
#include "runtime/ops.h"

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
  // The same where inputs and what is made of them between products are rounded to bf16.
  double bf16_scale = 0;
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

// What the slow specification gives.
std::vector<Tensor> run_reference(const Op& op, const OpCase& c);

// --- of the device under test: tests/runtime/<device>/device_under_test.cpp
// -------------------------
std::vector<Tensor> run_kernel(const Op& op, const OpCase& c);
// All of the promises; returns the kernel's outputs.
std::vector<Tensor> check_op(const Op& op, const OpCase& c);

}  // namespace caravan
