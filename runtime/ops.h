// Every operation of the framework: its table of contents.
//
// An op is a struct of attributes that never change from step to step and never depend on how a
// tensor is sharded; sizes are read from the shapes. Shapes in comments are logical:
//   T tokens of the batch (sequences one after another), D hidden, V vocabulary, H query heads,
//   KV key/value heads, h head width, I MLP width, () a scalar.
// Each question about an op is an overload set, one overload per struct (runtime/ops/rules.h:
// infer, backward, shard, cost; a backend: run). A missing answer does not compile or link.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <variant>

#include "runtime/types.h"

namespace caravan {

// Some ops can add one more input, their last, to their first output: the pass fuse_add makes
// that out of an Add behind them. In place, the output lies in the addend's storage.
enum class Addend : uint8_t { none, separate, in_place };

// --- embedding -------------------------------------------------------------------------------
struct Embedding {};  // table (V,D), ids (T) i32 -> (T,D)
struct EmbeddingGrad {
  int64_t vocab_size;  // ids (T) i32, dy (T,D) -> (V,D); rows are added in token order
  Addend addend = Addend::none;
};

// --- matmul ----------------------------------------------------------------------------------
struct MatMul {  // a (M,K), b (K,N) -> (M,N); a transposed operand is stored (K,M) or (N,K)
  bool transpose_a = false;
  bool transpose_b = false;
  Addend addend = Addend::none;
};
struct AddBias {};  // x (T,N), bias (N) -> (T,N)
struct SumRows {};  // x (T,N) -> (N)

// --- norm ------------------------------------------------------------------------------------
struct RmsNorm {  // x (T,D), weight (D) -> y (T,D), rstd (T):  y = x * rstd * weight
  float eps;
};
struct RmsNormGrad {  // x (T,D), weight (D), rstd (T), dy (T,D) -> dx (T,D), dweight (D)
  Addend addend = Addend::none;
};

// --- attention -------------------------------------------------------------------------------
struct RopeScaling {  // llama3 (Llama 3.1): long wavelengths are divided by `factor`
  double factor = 8.0;
  double low_freq_factor = 1.0;
  double high_freq_factor = 4.0;
  int64_t original_max_position_embeddings = 8192;
  bool operator==(const RopeScaling&) const = default;
};
struct Rope {  // x (T,n*h), positions (T) i32 -> (T,n*h); pairs (i, i + h/2) of each head rotate
  int64_t head_dim;
  double theta;
  std::optional<RopeScaling> scaling;
  bool inverse = false;  // rotates back: the gradient
};
// Causal attention inside sequences of `sequence_len` consecutive tokens. Query i sees key j when
// document_start[i] <= j <= i, both counted inside the sequence. Never holds T x T.
struct Attention {  // q (T,H*h), k, v (T,KV*h), document_start (T) i32 -> out (T,H*h), lse (T,H)
  int64_t head_dim;
  int64_t sequence_len;
};
struct AttentionGrad {  // q, k, v, document_start, out, lse, dout (T,H*h) -> dq, dk, dv
  int64_t head_dim;
  int64_t sequence_len;
};

// --- activation ------------------------------------------------------------------------------
struct SwiGlu {};      // gate (T,I), up (T,I) -> silu(gate) * up (T,I)
struct SwiGluGrad {};  // gate, up, dy (T,I) -> dgate, dup (T,I)
struct Add {};         // a, b of one shape -> a + b

// --- loss ------------------------------------------------------------------------------------
// Projection and cross-entropy in one: chunks of tokens, never T x V. A target of -1 is not
// counted.
struct LinearCrossEntropy {};      // x (T,D), weight (V,D), targets (T) i32
                                   //   -> loss_sum (), num_valid ()
struct LinearCrossEntropyGrad {};  // x, weight, targets, dloss_sum () -> loss_sum, num_valid,
                                   //   dx (T,D), dweight (V,D): everything in one pass

// --- scalars ---------------------------------------------------------------------------------
struct Fill {  // -> ()
  float value;
};
struct Divide {};  // a (), b () -> a / b, and 0 where b is 0

// --- update ----------------------------------------------------------------------------------
struct Accumulate {};   // sum, value of one shape, keep () -> keep * sum + value, in place of sum;
                        // keep = 0 forgets whatever sum holds, also NaN
struct SquaredNorm {};  // any number of values -> () sum of squares over all of them
// The factor that turns summed gradients into the clipped mean gradient, and the mean's norm. The
// factor is NaN where the norm or the loss is not finite.
struct ClipScale {  // squared_norm (), num_valid (), loss_sum () -> scale (), norm ()
  float max_norm;   // 0: no clipping
};
// AdamW with decoupled decay (Loshchilov & Hutter, "Decoupled weight decay regularization").
// Changes nothing where scale is not finite: every rank has the same scale, so all skip together.
struct AdamW {  // param, grad, m, v of one shape, scale (), learning_rate (), step () f32 from 1
  float beta1;  //   -> param, m, v, each in place
  float beta2;
  float eps;
  float weight_decay;
};

// --- collectives: inserted by parallelize, never by a model --------------------------------------
struct AllReduce {  // any number of values -> their sums over the axis, each in place
  Axis axis;
};
struct AllGather {  // shard along dim -> whole
  Axis axis;
  int dim;
  bool in_place = false;  // the shard lies inside the storage of the whole, at this rank's place
};
struct ReduceScatter {  // any number of partial values -> this rank's shard (dim) of their sums
  Axis axis;
  int dim;
};
struct AllToAll {  // shard along from_dim -> shard along to_dim
  Axis axis;
  int from_dim;
  int to_dim;
};
struct Slice {  // whole -> this rank's shard along dim; along dim 0 it is a view of the whole
  Axis axis;
  int dim;
};

using Op = std::variant<Embedding, EmbeddingGrad, MatMul, AddBias, SumRows, RmsNorm, RmsNormGrad,
                        Rope, Attention, AttentionGrad, SwiGlu, SwiGluGrad, Add, LinearCrossEntropy,
                        LinearCrossEntropyGrad, Fill, Divide, Accumulate, SquaredNorm, ClipScale,
                        AdamW, AllReduce, AllGather, ReduceScatter, AllToAll, Slice>;

std::string_view name(const Op& op);    // "rms_norm"
std::string_view family(const Op& op);  // "norm": the file that has its rules and kernels
std::string attributes(const Op& op);   // "eps=1e-05", "" when there are none
Addend addend(const Op& op);            // none also for ops that cannot have one
std::optional<Axis> collective_axis(const Op& op);  // of collectives and of Slice
bool is_collective(const Op& op);                   // moves data between ranks; Slice does not

}  // namespace caravan
