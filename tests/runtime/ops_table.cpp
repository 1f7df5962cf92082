#include "tests/runtime/ops_table.h"

#include <algorithm>

#include "runtime/error.h"
#include "runtime/rng.h"

namespace caravan {
namespace {

using Content = OpInput::Content;

// Sizes that split evenly over 2 and 4 ranks, along tokens by whole sequences: 16 tokens in 4
// sequences, 8 query heads and 4 key-value heads of width 4, 8 words.
constexpr int64_t kTokens = 16, kHidden = 12, kVocab = 8, kHeadDim = 4, kSequence = 4;
constexpr int64_t kQWidth = 8 * kHeadDim, kKvWidth = 4 * kHeadDim;

OpInput variable(const Shape& shape) { return {.shape = shape, .differentiable = true}; }
OpInput constant(const Shape& shape) { return {.shape = shape}; }
OpInput positive(const Shape& shape) {
  return {.shape = shape, .content = Content::positive, .may_be_partial = false};
}
OpInput integers(Content content) {
  return {.shape = {kTokens}, .content = content, .may_be_partial = false};
}
OpInput whole_heads(OpInput input) {
  input.splits_columns = false;
  return input;
}
OpInput state(const Shape& shape) { return {.shape = shape, .may_be_partial = false}; }

TensorSpec f32(const Shape& shape) { return {shape, DType::f32}; }
TensorSpec i32(const Shape& shape) { return {shape, DType::i32}; }

// A function, as GCC 12 warns wrongly about lists of lists of vectors.
BadInput bad(size_t input, const TensorSpec& spec, const std::string& message) {
  return {input, spec, message};
}

std::vector<OpEntry> embedding_cases() {
  return {
      {.label = "embedding",
       .op = Embedding{},
       .inputs = {variable({kVocab, kHidden}), integers(Content::ids)},
       .outputs = {f32({kTokens, kHidden})},
       .refused = {bad(0, f32({kVocab}), "table must be (V,D)"),
                   bad(1, f32({kTokens}), "ids (T) i32"),
                   bad(1, i32({kTokens, 1}), "ids (T) i32")}},
      {.label = "embedding_grad",
       .op = EmbeddingGrad{},
       .inputs = {constant({kVocab, kHidden}), integers(Content::ids),
                  constant({kTokens, kHidden})},
       .outputs = {f32({kVocab, kHidden})},
       .refused = {bad(0, f32({kVocab, kHidden + 1}), "table must be (V,D)"),
                   bad(1, i32({kTokens + 1}), "dy (T,D)"), bad(2, f32({kTokens}), "dy (T,D)")}},
      {.label = "embedding_grad_adds",
       .op = EmbeddingGrad{Addend::separate},
       .inputs = {constant({kVocab, kHidden}), integers(Content::ids), constant({kTokens, kHidden}),
                  state({kVocab, kHidden})},
       .outputs = {f32({kVocab, kHidden})},
       .refused = {bad(3, f32({kVocab}), "the addend must be like the output")}},
  };
}

OpEntry matmul_case(MatMul op) {
  const Shape a = op.transpose_a ? Shape{8, 4} : Shape{4, 8};
  const Shape b = op.transpose_b ? Shape{12, 8} : Shape{8, 12};
  return {
      .label = "matmul" + std::string(op.transpose_a ? "_ta" : "") + (op.transpose_b ? "_tb" : ""),
      .op = op,
      .inputs = {variable(a), variable(b)},
      .outputs = {f32({4, 12})},
      .refused = {bad(0, f32({4}), "needs two matrices"),
                  bad(0, f32({a[0] + 1, a[1] + 1}), "contracted dims differ"),
                  bad(1, f32({b[0] + 1, b[1] + 1}), "contracted dims differ"),
                  bad(1, {b, DType::bf16}, "dtypes differ")}};
}

std::vector<OpEntry> matmul_cases() {
  return {
      matmul_case({false, false}),
      matmul_case({true, false}),
      matmul_case({false, true}),
      matmul_case({true, true}),
      {.label = "matmul_adds",
       .op = MatMul{false, true, Addend::separate},
       .inputs = {constant({4, 8}), constant({12, 8}), state({4, 12})},
       .outputs = {f32({4, 12})},
       .refused = {bad(2, f32({12, 4}), "the addend must be like the output")}},
      {.label = "add_bias",
       .op = AddBias{},
       .inputs = {variable({kTokens, kHidden}), variable({kHidden})},
       .outputs = {f32({kTokens, kHidden})},
       .refused = {bad(0, f32({kTokens}), "x must be (T,N)"),
                   bad(1, f32({kHidden + 1}), "bias (N)"), bad(1, f32({1, kHidden}), "bias (N)")}},
      {.label = "sum_rows",
       .op = SumRows{},
       .inputs = {constant({kTokens, kHidden})},
       .outputs = {f32({kHidden})},
       .refused = {bad(0, f32({kHidden}), "needs a matrix")}},
  };
}

std::vector<OpEntry> norm_cases() {
  const Shape x = {kTokens, kHidden}, q = {kTokens, kQWidth}, heads = {kTokens, 8};
  return {
      {.label = "rms_norm",
       .op = RmsNorm{1e-5f},
       .inputs = {variable(x), variable({kHidden})},
       .outputs = {f32(x), f32({kTokens})},
       .refused = {bad(0, f32({kHidden}), "x must be (T,D)"),
                   bad(1, f32({kTokens}), "weight (D)")}},
      {.label = "rms_norm_grad",
       .op = RmsNormGrad{},
       .inputs = {constant(x), constant({kHidden}), positive({kTokens}), constant(x)},
       .outputs = {f32(x), f32({kHidden})},
       .refused = {bad(2, f32({kHidden}), "rstd (T)"),
                   bad(3, f32({kTokens, 1}), "dy must be (T,D)")}},
      {.label = "rms_norm_grad_adds",
       .op = RmsNormGrad{Addend::separate},
       .inputs = {constant(x), constant({kHidden}), positive({kTokens}), constant(x), state(x)},
       .outputs = {f32(x), f32({kHidden})},
       .refused = {bad(4, f32({kHidden}), "the addend must be like the output")}},
      {.label = "head_norm",
       .op = HeadNorm{kHeadDim, 1e-5f},
       .inputs = {variable(q)},
       .outputs = {f32(q), f32(heads)},
       .refused = {bad(0, f32({kTokens}), "x must be (T,n*h)"),
                   bad(0, f32({kTokens, kQWidth + 1}), "x must be (T,n*h)")}},
      {.label = "head_norm_grad",
       .op = HeadNormGrad{kHeadDim},
       .inputs = {constant(q), positive(heads), constant(q)},
       .outputs = {f32(q)},
       .refused = {bad(1, f32(q), "rstd (T,n)"), bad(2, f32(heads), "dy must be (T,n*h)")}},
  };
}

OpEntry rope_case(const std::string& label, const Rope& op) {
  return {.label = label,
          .op = op,
          .inputs = {variable({kTokens, kQWidth}), integers(Content::positions)},
          .outputs = {f32({kTokens, kQWidth})},
          .refused = {bad(0, f32({kTokens, kHeadDim + 1}), "x must be (T,n*h)"),
                      bad(1, i32({kTokens + 1}), "positions must be (T) i32"),
                      bad(1, f32({kTokens}), "positions must be (T) i32")}};
}

std::vector<BadInput> bad_heads() {
  return {bad(0, f32({kTokens, kHeadDim, 2}), "q must be (T,H*h)"),
          bad(1, f32({kTokens, kQWidth}), "k and v (T,KV*h)"),
          bad(0, f32({kTokens, kQWidth + 1}), "widths must divide by head_dim"),
          bad(0, f32({kTokens, 6 * kHeadDim}), "query heads must be a group for each kv head"),
          bad(3, i32({kTokens + 1}), "document_start must be (T) i32"),
          bad(3, f32({kTokens}), "document_start must be (T) i32")};
}

std::vector<OpEntry> attention_cases() {
  const Shape q = {kTokens, kQWidth}, kv = {kTokens, kKvWidth}, lse = {kTokens, 8};
  const Shape few = {kTokens, 2 * kHeadDim};  // 2 key-value heads
  const OpInput documents = integers(Content::documents);
  std::vector<BadInput> bad_gradients = bad_heads();
  bad_gradients.push_back(bad(6, f32(kv), "dout must be shaped like q"));
  bad_gradients.push_back(bad(4, f32(kv), "dout must be shaped like q"));
  return {
      rope_case("rope", {kHeadDim, 10000.0, {}}),
      rope_case("rope_inverse",
                {.head_dim = kHeadDim, .theta = 10000.0, .scaling = {}, .inverse = true}),
      rope_case("rope_interleaved",
                {.head_dim = kHeadDim, .theta = 10000.0, .scaling = {}, .interleaved = true}),
      rope_case("rope_llama3", {kHeadDim, 500.0, RopeScaling{8, 1, 4, 64}}),
      {.label = "temperature_scale",
       .op = TemperatureScale{2, 0.5},
       .inputs = {variable(q), integers(Content::positions)},
       .outputs = {f32(q)},
       .refused = {bad(0, f32({kTokens}), "x must be (T,N)"),
                   bad(1, f32({kTokens}), "positions (T) i32"),
                   bad(1, i32({kTokens + 1}), "positions (T) i32")}},
      {.label = "chunk_start",
       .op = ChunkStart{2, kSequence},
       .inputs = {documents},
       .outputs = {i32({kTokens})},
       .refused = {bad(0, f32({kTokens}), "document_start must be (T) i32"),
                   bad(0, i32({kTokens + 1}), "whole sequences")}},
      {.label = "attention",
       .op = Attention{kHeadDim, kSequence, 2},
       .inputs = {variable(q), variable(kv), variable(kv), documents},
       .outputs = {f32(q), f32(lse)},
       .refused = bad_heads()},
      {.label = "attention_grad",
       .op = AttentionGrad{kHeadDim, kSequence, 2},
       .inputs = {constant(q), constant(kv), constant(kv), documents, constant(q), positive(lse),
                  constant(q)},
       .outputs = {f32(q), f32(kv), f32(kv)},
       .refused = bad_gradients},
      {.label = "attention_few_key_heads",
       .op = Attention{kHeadDim, kSequence, 4},
       .inputs = {variable(q), whole_heads(variable(few)), whole_heads(variable(few)), documents},
       .outputs = {f32(q), f32(lse)}},
      {.label = "attention_grad_few_key_heads",
       .op = AttentionGrad{kHeadDim, kSequence, 4},
       .inputs = {constant(q), whole_heads(constant(few)), whole_heads(constant(few)), documents,
                  constant(q), positive(lse), constant(q)},
       .outputs = {f32(q), f32(few), f32(few)}},
  };
}

std::vector<OpEntry> activation_cases() {
  const Shape x = {kTokens, kHidden};
  const std::vector<BadInput> unlike = {bad(1, f32({kTokens, kHidden + 1}), "the shapes differ"),
                                        bad(1, i32(x), "the shapes differ")};
  return {
      {"swiglu", SwiGlu{}, {variable(x), variable(x)}, {f32(x)}, unlike},
      {"swiglu_grad",
       SwiGluGrad{},
       {constant(x), constant(x), constant(x)},
       {f32(x), f32(x)},
       unlike},
      {"add", Add{}, {variable(x), variable(x)}, {f32(x)}, unlike},
      {"cast_f32",
       Cast{DType::f32},
       {variable(x)},
       {f32(x)},
       {bad(0, i32(x), "f32 and bf16 only")}},
  };
}

std::vector<OpEntry> loss_cases() {
  const Shape x = {kTokens, kHidden}, head = {kVocab, kHidden};
  const std::vector<BadInput> wrong = {bad(0, f32({kTokens}), "x must be (T,D)"),
                                       bad(1, f32({kVocab, kHidden + 1}), "weight (V,D)"),
                                       bad(2, i32({kTokens + 1}), "targets must be (T) i32"),
                                       bad(2, f32({kTokens}), "targets must be (T) i32")};
  std::vector<BadInput> bad_gradient = wrong;
  bad_gradient.push_back(bad(3, f32({1}), "dloss_sum must be a scalar"));
  std::vector<BadInput> bad_part_gradient = wrong;
  bad_part_gradient.push_back(bad(3, f32({kTokens + 1}), "lse must be (T)"));
  bad_part_gradient.push_back(bad(4, f32({1}), "dloss_sum a scalar"));
  return {
      {"cross_entropy_part",
       CrossEntropyPart{},
       {constant(x), constant(head), integers(Content::targets)},
       {f32({1, 2, kTokens})},
       wrong},
      {"merge_cross_entropy",
       MergeCrossEntropy{},
       {constant({4, 2, kTokens}), integers(Content::targets)},
       {f32({kTokens}), f32({}), f32({})},
       {bad(0, f32({4, 3, kTokens}), "parts must be (P,2,T)"),
        bad(1, i32({kTokens + 1}), "targets must be (T) i32")}},
      {"cross_entropy_part_grad",
       CrossEntropyPartGrad{},
       {constant(x), constant(head), integers(Content::targets), constant({kTokens}), constant({})},
       {f32(x), f32(head)},
       bad_part_gradient},
      {"linear_cross_entropy",
       LinearCrossEntropy{},
       {variable(x), variable(head), integers(Content::targets)},
       {f32({}), f32({})},
       wrong},
      {"linear_cross_entropy_grad",
       LinearCrossEntropyGrad{},
       {constant(x), constant(head), integers(Content::targets), constant({})},
       {f32({}), f32({}), f32(x), f32(head)},
       bad_gradient},
  };
}

std::vector<OpEntry> scalar_cases() {
  const std::vector<BadInput> no_scalar = {bad(0, f32({1}), "scalars"),
                                           bad(1, f32({2}), "scalars")};
  return {
      {"fill", Fill{2.5f}, {}, {f32({})}},
      {"divide", Divide{}, {constant({}), positive({})}, {f32({})}, no_scalar},
      {"clip_scale",
       ClipScale{0.5f},
       {positive({}), positive({}), positive({})},
       {f32({}), f32({})},
       no_scalar},
  };
}

std::vector<OpEntry> update_cases() {
  const Shape x = {kTokens, kHidden};
  return {
      {"accumulate",
       Accumulate{},
       {constant(x), constant(x), positive({})},
       {f32(x)},
       {bad(1, f32({kTokens}), "sum and value must be alike"), bad(2, f32({1}), "keep a scalar")}},
      {"squared_norm", SquaredNorm{}, {constant(x), constant({kTokens})}, {f32({})}},
      {"adamw",
       AdamW{0.9f, 0.95f, 1e-8f, 0.1f},
       {constant(x), constant(x), state(x), positive(x), positive({}), positive({}), positive({})},
       {f32(x), f32(x), f32(x)},
       {bad(1, f32({kTokens}), "the shapes differ"), bad(3, f32({kTokens}), "the shapes differ"),
        bad(5, f32({1}), "must be scalars")}},
  };
}

// 8 experts, 2 for each token, rows for all picks: what ids give is a legal pick.
constexpr int64_t kExperts = 8, kTopK = 2, kWidth = 4, kRows = kTokens * kTopK;
constexpr Slots kSlots{kSequence, kSequence* kTopK};

OpInput ids(const Shape& shape) {
  return {.shape = shape, .content = Content::ids, .may_be_partial = false};
}
OpInput score(bool differentiable) {
  return {
      .shape = {kTokens, kTopK}, .content = Content::positive, .differentiable = differentiable};
}

std::vector<OpEntry> routing_cases() {
  const Shape logits = {kTokens, kExperts}, picked = {kTokens, 1};
  return {
      {.label = "route",
       .op = Route{.top_k = 1},
       .inputs = {{.shape = logits, .content = Content::distinct, .differentiable = true},
                  {.shape = {kExperts}}},
       .outputs = {f32(picked), i32(picked), f32({kExperts})},
       .refused = {bad(0, f32({kTokens, 0}), "k at most E"), bad(1, f32({3}), "bias must be (E)")}},
      {.label = "route_grad",
       .op = RouteGrad{0.5f, 0.25f, kSequence},
       .inputs = {constant(logits), ids({kTokens, 4}), constant({kTokens, 4})},
       .outputs = {f32(logits)},
       .refused = {bad(0, f32({kTokens}), "logits must be (T,E)"),
                   bad(2, f32({kTokens, 1}), "dscores (T,k)")}},
      {.label = "update_router_bias",
       .op = UpdateRouterBias{0.5f},
       .inputs = {state({kExperts}), positive({kExperts}), positive({})},
       .outputs = {f32({kExperts})},
       .refused = {bad(1, f32({1}), "bias and load must be (E)")}},
  };
}

std::vector<OpEntry> expert_cases() {
  const Shape x = {kTokens, kHidden}, columns = {kExperts, kHidden, kWidth};
  const Shape down = {kExperts, kWidth, kHidden}, picked = {kTokens, kTopK};
  const OpInput order = ids({kRows}), by_expert = ids({kExperts});
  return {
      {.label = "experts",
       .op = Experts{kSlots, kExperts},
       .inputs = {variable(x), score(true), ids({kTokens, kTopK}), variable(columns),
                  variable(columns), variable(down)},
       .outputs = {f32(x), f32({}), f32({}), i32({kRows}), i32({kExperts}), f32({kRows, kHidden}),
                   i32({kExperts}), f32({kRows, kWidth}), f32({kRows, kWidth})},
       .refused = {bad(0, f32({kTokens}), "x must be (T,D)"),
                   bad(2, f32(picked), "experts must be (T,k) i32"),
                   bad(4, f32(down), "gate and up must be (E,D,F)"),
                   bad(5, f32(columns), "down (E,F,D)")}},
      {.label = "experts_grad",
       .op = ExpertsGrad{kSlots},
       .inputs = {constant(x), score(false), constant(columns), constant(columns), constant(down),
                  positive({}), order, by_expert, constant({kRows, kHidden}), by_expert,
                  constant({kRows, kWidth}), constant({kRows, kWidth}), constant(x)},
       .outputs = {f32(x), f32(picked), f32(columns), f32(columns), f32(down)},
       .refused = {bad(12, f32({kTokens}), "dout must be like x"),
                   bad(2, f32(down), "gate and up must be (E,D,F)")}},
      {.label = "assign",
       .op = Assign{kSlots, kExperts, {}},
       .inputs = {ids({kTokens, kTopK})},
       .outputs = {i32({kRows}), i32({kExperts}), f32({}), f32({})},
       .refused = {bad(0, f32(picked), "experts must be (T,k) i32"),
                   bad(0, i32({kTokens + 1, kTopK}), "whole sequences")}},
      {.label = "dispatch",
       .op = Dispatch{kSlots, true, {}},
       .inputs = {constant(x), score(false), order, by_expert, positive({})},
       .outputs = {f32({kRows, kHidden}), i32({kExperts})},
       .refused = {bad(2, f32({kRows}), "order and ends must be i32"),
                   bad(4, f32({1}), "pass a scalar")}},
      {.label = "dispatch_grad",
       .op = DispatchGrad{false, {}},
       .inputs = {constant(x), score(false), order, by_expert, positive({}),
                  constant({kRows, kHidden})},
       .outputs = {f32(x), f32(picked)},
       .refused = {bad(5, f32({kRows, 1}), "drows must be (S,D)")}},
      {.label = "combine",
       .op = Combine{kTopK, {}},
       .inputs = {constant({kRows, kHidden}), order, by_expert, positive({})},
       .outputs = {f32(x)},
       .refused = {bad(0, f32({kRows}), "rows must be (S,D)")}},
      {.label = "grouped_matmul",
       .op = GroupedMatMul{false},
       .inputs = {constant({kRows, kHidden}), constant(columns), by_expert},
       .outputs = {f32({kRows, kWidth})},
       .refused = {bad(1, f32(down), "weights (E,K,N)"), bad(2, i32({3}), "E for each rank")}},
      {.label = "grouped_matmul_grad",
       .op = GroupedMatMulGrad{kExperts},
       .inputs = {constant({kRows, kHidden}), constant({kRows, kWidth}), by_expert},
       .outputs = {f32(columns)},
       .refused = {bad(1, f32({1, kWidth}), "dy (S,N)"), bad(2, i32({3}), "E for each rank")}},
  };
}

std::vector<OpEntry> collective_cases() {
  const Shape x = {kTokens, kHidden};
  const std::vector<BadInput> no_dim = {bad(0, f32({}), "the tensor has no such dim")};
  const auto one = [&](const char* label, Op op, const Shape& out, std::vector<BadInput> refused) {
    return OpEntry{.label = label,
                   .op = std::move(op),
                   .inputs = {constant(x)},
                   .outputs = {f32(out)},
                   .refused = std::move(refused),
                   .axis_size = 4};
  };
  return {one("all_reduce", AllReduce{Axis::dp}, x, {}),
          one("all_gather", AllGather{Axis::dp, 1}, {kTokens, 4 * kHidden}, no_dim),
          one("reduce_scatter", ReduceScatter{Axis::dp, 0}, {kTokens / 4, kHidden}, no_dim),
          one("all_to_all", AllToAll{Axis::dp, 0, 1}, {4 * kTokens, kHidden / 4}, no_dim),
          one("slice", Slice{Axis::dp, 1}, {kTokens, kHidden / 4}, no_dim),
          {.label = "all_reduce_max",
           .op = AllReduceMax{Axis::ep},
           .inputs = {constant({})},
           .outputs = {f32({})}},
          {.label = "exchange_rows",
           .op = ExchangeRows{Axis::ep},
           .inputs = {constant(x), ids({kExperts})},
           .outputs = {f32(x), i32({kExperts})}},
          {.label = "return_rows",
           .op = ReturnRows{Axis::ep},
           .inputs = {constant(x), ids({kExperts}), ids({kExperts})},
           .outputs = {f32(x)}}};
}

}  // namespace

std::vector<OpEntry> ops_table() {
  std::vector<OpEntry> table;
  for (const auto& family : {embedding_cases(), matmul_cases(), norm_cases(), attention_cases(),
                             activation_cases(), loss_cases(), scalar_cases(), update_cases(),
                             routing_cases(), expert_cases(), collective_cases()}) {
    table.insert(table.end(), family.begin(), family.end());
  }
  return table;
}

TensorSpec spec_of(const OpInput& input) {
  const bool is_float = input.content <= Content::distinct;
  return {input.shape, is_float ? DType::f32 : DType::i32};
}

TensorSpecs specs_of(const OpEntry& entry) {
  TensorSpecs specs;
  for (const OpInput& input : entry.inputs) specs.push_back(spec_of(input));
  return specs;
}

void PrintTo(const OpEntry& entry, std::ostream* out) { *out << entry.label; }

bool is_differentiable(const OpEntry& entry) {
  return std::ranges::any_of(entry.inputs, &OpInput::differentiable);
}

HostTensor make_tensor(const OpInput& input, uint64_t index) {
  if (input.content == Content::normal) return normal_tensor(input.shape, index);
  const RandomStream stream(8, RandomPurpose::test, index);
  HostTensor tensor = zeros(input.shape, spec_of(input).dtype);
  for (int64_t i = 0; i < tensor.size(); ++i) {
    const double u = stream.uniform(static_cast<uint64_t>(i));
    switch (input.content) {
      case Content::positive:
        tensor.set(i, static_cast<float>(0.5 + u));
        continue;
      case Content::distinct:
        tensor.set(i, static_cast<float>(0.5 * static_cast<double>(i * 3 % 8) + 0.1 * u - 2));
        continue;
      case Content::ids:
        tensor.words[static_cast<size_t>(i)] = static_cast<uint32_t>(u * kVocab);
        continue;
      case Content::targets:
        tensor.words[static_cast<size_t>(i)] =
            static_cast<uint32_t>(static_cast<int32_t>(u * (kVocab + 1)) - 1);
        continue;
      case Content::positions:
        tensor.words[static_cast<size_t>(i)] = static_cast<uint32_t>(i % kSequence);
        continue;
      case Content::documents:
        tensor.words[static_cast<size_t>(i)] = i % kSequence < 2 ? 0 : 2;
        continue;
      case Content::normal:
        break;
    }
    throw internal_error("unknown content of an input");
  }
  return tensor;
}

}  // namespace caravan
