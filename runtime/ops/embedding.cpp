// Rules of embedding.
#include "runtime/ops/overloads.h"

namespace caravan {

TensorSpecs infer(const Embedding& op, Specs in, int) {
  expect_count("embedding", in, 2);
  expect(in[0].shape.size() == 2 && in[1].shape.size() == 1 && in[1].dtype == DType::i32,
         "embedding", in, "table must be (V,D), ids (T) i32");
  expect_f32("embedding", in, {0});
  expect(op.output != DType::i32, "embedding", in, "the output must be f32 or bf16");
  return {{{in[1].shape[0], in[0].shape[1]}, op.output}};
}

Gradients backward(const Embedding&, const BackwardContext& c) {
  return {c.builder.one(EmbeddingGrad{}, {c.inputs[0], c.inputs[1], c.output_gradients[0]}),
          ValueId::none};
}

// With its rows dealt out, the table stays where it is, whatever the ids do.
ShardRule shard(const Embedding&, AxisPlacements in) {
  if (in[0] == shard(0)) return {{shard(0), kReplicate}, {kPartial}};
  if (in[1] == shard(0)) return {{kReplicate, shard(0)}, {shard(0)}};
  if (in[0] == shard(1)) return {{shard(1), kReplicate}, {shard(1)}};
  return all_replicated(2, 1);
}

Cost cost(const Embedding&, Specs, Specs out) { return streaming(0, out, out); }

TensorSpecs infer(const EmbeddingGrad& op, Specs in, int) {
  expect_count("embedding_grad", in, 3 + num_addends(op.addend));
  expect(in[1].shape.size() == 1 && in[1].dtype == DType::i32 && in[2].shape.size() == 2 &&
             in[1].shape[0] == in[2].shape[0],
         "embedding_grad", in, "ids must be (T) i32, dy (T,D)");
  expect(in[0].shape.size() == 2 && in[0].shape[1] == in[2].shape[1], "embedding_grad", in,
         "table must be (V,D)");
  expect_f32("embedding_grad", in, {0});
  expect_one_type("embedding_grad", in, {2});
  return expect_addend("embedding_grad", op.addend, in, {in[0]});
}

Gradients backward(const EmbeddingGrad&, const BackwardContext&) {
  not_differentiable("embedding_grad");
}

ShardRule shard(const EmbeddingGrad& op, AxisPlacements in) {
  if (op.addend != Addend::none) return all_replicated(4, 1);
  if (in[0] == shard(0)) return {{shard(0), kReplicate, kReplicate}, {shard(0)}};
  if (in[1] == shard(0) || in[2] == shard(0)) {
    return {{kReplicate, shard(0), shard(0)}, {kPartial}};
  }
  if (in[0] == shard(1) || in[2] == shard(1)) {
    return {{shard(1), kReplicate, shard(1)}, {shard(1)}};
  }
  return all_replicated(3, 1);
}

Cost cost(const EmbeddingGrad&, Specs in, Specs out) {
  return streaming(static_cast<double>(num_elements(in[2].shape)), in.subspan(1), out);
}

}  // namespace caravan
