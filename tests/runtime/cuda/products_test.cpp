// What the tests of kernels cannot see of products, the loss and experts on CUDA: choices by time,
// recordings, targets that no table has, rows dealt out to several ranks.
#include <gtest/gtest.h>

#include <cmath>

#include "runtime/error.h"
#include "tests/runtime/cuda/device_under_test.h"
#include "tests/runtime/kernels/op_check.h"
#include "tests/support/silent_communicator.h"

namespace caravan {
namespace {

// A tensor of f32 or i32 in a backend's memory.
class OnDevice {
 public:
  OnDevice(Backend& backend, const Tensor& tensor)
      : backend_(backend), tensor_(tensor), memory_(backend.reserve(tensor.size() * 4)) {
    backend.copy_in(memory_->data(), tensor.words.data(), tensor.size() * 4);
  }
  TensorView view() const {
    return {memory_->data(), tensor_.shape, tensor_.dtype, tensor_.offset, tensor_.whole};
  }
  Tensor read() const {
    Tensor result = tensor_;
    backend_.copy_out(result.words.data(), memory_->data(), tensor_.size() * 4);
    return result;
  }

 private:
  Backend& backend_;
  Tensor tensor_;
  std::unique_ptr<DeviceMemory> memory_;
};

struct Sizes {
  int64_t m, n, k;
};

// a b^T + addend, in place, on a backend.
class AddingProduct {
 public:
  AddingProduct(Backend& backend, const Sizes& s)
      : backend_(backend),
        expected_(run_reference(kOp, {{a(s), b(s), addend(s)}, {{s.m, s.n}}, {{0, 2}}})),
        a_(backend, a(s)),
        b_(backend, b(s)),
        sum_(backend, addend(s)),
        inputs_{a_.view(), b_.view(), sum_.view()},
        outputs_{sum_.view()} {
    const TensorSpecs in = {a(s).spec(), b(s).spec(), addend(s).spec()}, out = {in[2]};
    bytes_ = backend.workspace_bytes(op_, in, out);
    workspace_ = backend.reserve(bytes_);
  }
  void run() {
    backend_.run(op_, {inputs_, outputs_, workspace_->data(), bytes_, nullptr}, Stream::compute);
  }
  void expect_right() const { expect_close({sum_.read()}, expected_, 1e-5); }

 private:
  static constexpr MatMul kOp{false, true, Addend::in_place};
  static Tensor a(const Sizes& s) { return normal({s.m, s.k}, 1); }
  static Tensor b(const Sizes& s) { return normal({s.n, s.k}, 2); }
  static Tensor addend(const Sizes& s) { return normal({s.m, s.n}, 3); }

  Backend& backend_;
  Op op_ = kOp;
  std::vector<Tensor> expected_;
  OnDevice a_, b_, sum_;
  std::vector<TensorView> inputs_, outputs_;
  int64_t bytes_ = 0;
  std::unique_ptr<DeviceMemory> workspace_;
};

// Trying algorithms must not change what a product adds to.
TEST(Products, AreChosenByTimeWithoutATrace) {
  const auto backend = make_cuda_backend({.deterministic = false});
  AddingProduct product(*backend, {37, 24, 50});
  product.run();
  product.expect_right();
}

TEST(Products, AreRecordedAfterTheyRanOnce) {
  const auto backend = make_cuda_backend({.deterministic = false});
  AddingProduct product(*backend, {19, 40, 31}), again(*backend, {19, 40, 31});
  EXPECT_THROW(backend->record([&] { product.run(); }), Error);
  product.run();
  product.expect_right();
  const auto recording = backend->record([&] { again.run(); });
  recording->launch();
  again.expect_right();
}

TEST(LinearCrossEntropy, ATargetBeyondTheVocabularyMakesTheLossNaN) {
  for (const int32_t target : {21, -2, 1 << 30}) {
    const OpCase c{{normal({4, 8}, 1), normal({21, 8}, 2), integers({0, target, -1, 3})}, {{}, {}}};
    EXPECT_TRUE(std::isnan(run_kernel(LinearCrossEntropy{}, c)[0].at(0))) << target;
  }
}

// On a rank that has rows [5, 9) of 21.
TEST(CrossEntropyPart, ATargetBeyondTheWholeVocabularyIsNaN) {
  Tensor weight = normal({4, 8}, 2);
  weight.offset = {5, 0};
  weight.whole = {21, 8};
  const Tensor targets = integers({21, -1, 20, 5});
  const OpCase c{{normal({4, 8}, 1), weight, targets}, {{1, 2, 4}}};
  const Tensor part = run_kernel(CrossEntropyPart{}, c)[0];
  EXPECT_TRUE(std::isnan(part.at(4)));
  EXPECT_EQ(part.at(5), 0);
  EXPECT_EQ(part.at(6), 0);
  EXPECT_NE(part.at(7), 0);
}

std::vector<Tensor> run_on_two_ranks(const Op& op, const std::vector<Tensor>& inputs,
                                     const std::vector<Tensor>& outputs) {
  Backend& backend = device_under_test();
  std::vector<OnDevice> in, out;
  std::vector<TensorView> in_views, out_views;
  TensorSpecs in_specs, out_specs;
  for (const Tensor& tensor : inputs) {
    in_views.push_back(in.emplace_back(backend, tensor).view());
    in_specs.push_back(tensor.spec());
  }
  for (const Tensor& tensor : outputs) {
    out_views.push_back(out.emplace_back(backend, tensor).view());
    out_specs.push_back(tensor.spec());
  }
  const int64_t bytes = backend.workspace_bytes(op, in_specs, out_specs);
  const auto workspace = backend.reserve(bytes);
  SilentCommunicator ranks(2);
  backend.run(op, {in_views, out_views, workspace->data(), bytes, &ranks}, Stream::compute);
  backend.synchronize();
  std::vector<Tensor> results;
  for (const OnDevice& tensor : out) results.push_back(tensor.read());
  return results;
}

// Two experts on each of two ranks; a pass has two rows for each rank.
TEST(Experts, APassHasEqualPartsForEachRank) {
  const Slots slots{8, 4};
  Tensor experts = integers({2, 1, 2, 2, 3, 2, 1, 2});
  experts.shape = {8, 1};
  const Tensor ids = empty({8}, DType::i32), few = empty({4}, DType::i32);
  const auto sorted =
      run_on_two_ranks(Assign{slots, 4, Axis::ep}, {experts}, {ids, few, scalar(0), scalar(0)});
  const std::vector<uint32_t> order = {1, 6, 0, 2, 3, 5, 7, 4};
  for (size_t i = 0; i < 8; ++i) EXPECT_EQ(sorted[0].words[i], order[i]);
  EXPECT_EQ(sorted[2].at(0), 2);  // the second rank's 6 rows

  Tensor x = filled({8, 1}, 0.0f);
  for (int64_t t = 0; t < 8; ++t) x.at(t) = static_cast<float>(t);
  const std::vector<std::vector<float>> rows = {{1, 6, 0, 2}, {3, 5, -1, -1}, {7, 4, -1, -1}};
  const std::vector<std::vector<uint32_t>> counts = {{0, 2, 2, 0}, {0, 0, 2, 0}, {0, 0, 1, 1}};
  for (size_t pass = 0; pass < 3; ++pass) {
    const Tensor number = scalar(static_cast<float>(pass));
    const auto made = run_on_two_ranks(Dispatch{slots, false, Axis::ep},
                                       {x, filled({8, 1}, 1.0f), sorted[0], sorted[1], number},
                                       {filled({4, 1}, -1.0f), few});
    const auto back = run_on_two_ranks(
        Combine{1, Axis::ep}, {made[0], sorted[0], sorted[1], number}, {filled({8, 1}, -1.0f)});
    for (size_t i = 0; i < 4; ++i) {
      const float row = rows[pass][i];
      EXPECT_EQ(made[0].at(static_cast<int64_t>(i)), row);
      EXPECT_EQ(made[1].words[i], counts[pass][i]);
      if (row >= 0) {
        EXPECT_EQ(back[0].at(static_cast<int64_t>(row)), row);
      }
    }
  }
}

}  // namespace
}  // namespace caravan
