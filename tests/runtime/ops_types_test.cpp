// Types in mixed precision: what each op gives for bf16 activations, and what it refuses.
#include <gtest/gtest.h>

#include "runtime/error.h"
#include "runtime/ops/rules.h"

namespace caravan {
namespace {

constexpr DType kF32 = DType::f32, kBf16 = DType::bf16, kI32 = DType::i32;

struct TypeCase {
  std::string label;
  Op op;
  TensorSpecs inputs;
  std::vector<DType> outputs;
  // Inputs that may be f32 as well as bf16 without any other being so.
  std::vector<size_t> free = {};
};
void PrintTo(const TypeCase& c, std::ostream* out) { *out << c.label; }

// 4 tokens in one sequence, 6 wide, 8 words or columns.
const Shape kX = {4, 6}, kMatrix = {6, 8}, kWide = {4, 8}, kHead = {8, 6}, kTokens = {4};

std::vector<TypeCase> dense_cases() {
  const TensorSpec x{kX, kBf16}, table{kHead, kF32}, ids{kTokens, kI32}, scalar{{}, kF32};
  const TensorSpec norm{{6}, kF32}, rstd{kTokens, kF32}, head{kHead, kBf16};
  const TensorSpec matrix{kMatrix, kBf16}, wide{kWide, kBf16};
  return {
      {"embedding", Embedding{kBf16}, {table, ids}, {kBf16}},
      {"embedding_grad", EmbeddingGrad{}, {table, ids, x}, {kF32}, {2}},
      {"matmul", MatMul{}, {x, matrix}, {kBf16}},
      {"matmul_f32", MatMul{.f32_output = true}, {x, matrix}, {kF32}},
      {"matmul_adds", MatMul{false, false, Addend::separate}, {x, matrix, wide}, {kBf16}},
      {"matmul_f32_adds",
       MatMul{false, false, Addend::separate, true},
       {x, matrix, {kWide, kF32}},
       {kF32}},
      {"add_bias", AddBias{}, {x, norm}, {kBf16}, {0}},
      {"sum_rows", SumRows{}, {x}, {kF32}, {0}},
      {"rms_norm", RmsNorm{1e-5f}, {x, norm}, {kBf16, kF32}, {0}},
      {"rms_norm_grad", RmsNormGrad{}, {x, norm, rstd, x}, {kBf16, kF32}},
      {"swiglu", SwiGlu{}, {x, x}, {kBf16}},
      {"swiglu_grad", SwiGluGrad{}, {x, x, x}, {kBf16, kBf16}},
      {"add", Add{}, {x, x}, {kBf16}},
      {"cast_to_f32", Cast{kF32}, {x}, {kF32}, {0}},
      {"cast_to_bf16", Cast{kBf16}, {table}, {kBf16}, {0}},
      {"linear_cross_entropy", LinearCrossEntropy{}, {x, head, ids}, {kF32, kF32}},
      {"linear_cross_entropy_grad",
       LinearCrossEntropyGrad{},
       {x, head, ids, scalar},
       {kF32, kF32, kBf16, kF32}},
      {"cross_entropy_part", CrossEntropyPart{}, {x, head, ids}, {kF32}},
      {"cross_entropy_part_grad",
       CrossEntropyPartGrad{},
       {x, head, ids, rstd, scalar},
       {kBf16, kF32}},
  };
}

std::vector<TypeCase> attention_cases() {
  const TensorSpec q{kWide, kBf16}, ids{kTokens, kI32}, lse{{4, 2}, kF32};
  const Rope rope{.head_dim = 4, .theta = 1e4, .scaling = {}};
  return {
      {"rope", rope, {q, ids}, {kBf16}, {0}},
      {"temperature_scale", TemperatureScale{2, 0.5}, {q, ids}, {kBf16}, {0}},
      {"head_norm", HeadNorm{4, 1e-5f}, {q}, {kBf16, kF32}, {0}},
      {"head_norm_grad", HeadNormGrad{4}, {q, lse, q}, {kBf16}},
      {"attention", Attention{4, 4}, {q, q, q, ids}, {kBf16, kF32}},
      {"attention_grad",
       AttentionGrad{4, 4, 1, true},
       {q, q, q, ids, q, lse, q},
       {kBf16, kBf16, kBf16}},
  };
}

// 2 experts 8 wide, one of them for each token, and rows for all.
std::vector<TypeCase> expert_cases() {
  const TensorSpec x{kX, kBf16}, logits{{4, 2}, kF32}, score{{4, 1}, kF32}, picks{{4, 1}, kI32};
  const TensorSpec order{kTokens, kI32}, ends{{2}, kI32}, pass{{}, kF32}, wide{kWide, kBf16};
  const TensorSpec gate{{2, 6, 8}, kBf16}, down{{2, 8, 6}, kBf16};
  const Slots slots{4, 4};
  return {
      {"route", Route{.top_k = 1}, {logits, {{2}, kF32}}, {kF32, kI32, kF32}},
      {"route_grad", RouteGrad{}, {logits, picks, score}, {kF32}},
      {"experts",
       Experts{slots, 2},
       {x, score, picks, gate, gate, down},
       {kBf16, kF32, kF32, kI32, kI32, kBf16, kI32, kBf16, kBf16}},
      {"experts_grad",
       ExpertsGrad{slots},
       {x, score, gate, gate, down, pass, order, ends, x, ends, wide, wide, x},
       {kBf16, kF32, kF32, kF32, kF32},
       {5}},
      {"dispatch", Dispatch{slots, true, {}}, {x, score, order, ends, pass}, {kBf16, kI32}, {0, 4}},
      {"dispatch_grad",
       DispatchGrad{true, {}},
       {x, score, order, ends, pass, x, x, score},
       {kBf16, kF32},
       {4}},
      {"combine", Combine{1, {}}, {x, order, ends, pass}, {kBf16}, {0, 3}},
      {"grouped_matmul", GroupedMatMul{false}, {x, gate, ends}, {kBf16}},
      {"grouped_matmul_grad", GroupedMatMulGrad{2}, {x, wide, ends}, {kF32}},
      {"grouped_matmul_grad_adds",
       GroupedMatMulGrad{2, Addend::in_place},
       {x, wide, ends, {{2, 6, 8}, kF32}},
       {kF32}},
  };
}

// f32 whatever the activations are.
std::vector<TypeCase> update_cases() {
  const TensorSpec w{kMatrix, kF32}, scalar{{}, kF32};
  return {
      {"accumulate", Accumulate{}, {w, w, scalar}, {kF32}},
      {"squared_norm", SquaredNorm{}, {w, w}, {kF32}},
      {"adamw",
       AdamW{0.9f, 0.95f, 1e-8f, 0.1f},
       {w, w, w, w, scalar, scalar, scalar},
       {kF32, kF32, kF32}},
  };
}

std::vector<TypeCase> all_cases() {
  std::vector<TypeCase> all;
  for (const auto& cases : {dense_cases(), attention_cases(), expert_cases(), update_cases()}) {
    all.insert(all.end(), cases.begin(), cases.end());
  }
  return all;
}

class OpTypes : public testing::TestWithParam<TypeCase> {};

TEST_P(OpTypes, AreThoseOfTheRule) {
  const TypeCase& c = GetParam();
  std::vector<DType> given;
  for (const TensorSpec& spec : infer(c.op, c.inputs)) given.push_back(spec.dtype);
  EXPECT_EQ(given, c.outputs);
}

TEST_P(OpTypes, AnotherTypeOfOneInputIsRefused) {
  const TypeCase& c = GetParam();
  for (size_t i = 0; i < c.inputs.size(); ++i) {
    if (c.inputs[i].dtype == kI32) continue;
    TensorSpecs inputs = c.inputs;
    inputs[i].dtype = inputs[i].dtype == kF32 ? kBf16 : kF32;
    const bool is_free = std::ranges::find(c.free, i) != c.free.end();
    if (is_free) {
      EXPECT_NO_THROW(infer(c.op, inputs)) << "input " << i;
    } else {
      EXPECT_THROW(infer(c.op, inputs), Error) << "input " << i;
    }
    inputs[i].dtype = kI32;
    const bool is_scalar = inputs[i].shape.empty();
    if (is_scalar) continue;
    EXPECT_THROW(infer(c.op, inputs), Error) << "i32 as input " << i;
  }
}

INSTANTIATE_TEST_SUITE_P(All, OpTypes, testing::ValuesIn(all_cases()),
                         [](const auto& info) { return info.param.label; });

TEST(OpTypes, AttributesShowInDumps) {
  EXPECT_EQ(attributes(Embedding{}), "");
  EXPECT_EQ(attributes(Embedding{kBf16}), "output=bf16");
  EXPECT_EQ(attributes(Cast{kBf16}), "to=bf16");
  EXPECT_EQ(attributes(MatMul{.transpose_b = true, .f32_output = true}), "transpose_b f32_output");
  EXPECT_EQ(attributes(Attention{4, 8, 2}), "head_dim=4 sequence_len=8 group=2");
  EXPECT_EQ(attributes(AttentionGrad{4, 8, 2, true}),
            "head_dim=4 sequence_len=8 group=2 whole_sequences");
}

}  // namespace
}  // namespace caravan
