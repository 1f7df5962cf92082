// Every operation of the framework: its table of contents.
//
// An op is a struct of attributes that never change from step to step and never depend on how a
// tensor is sharded; sizes are read from the shapes. Shapes in comments are logical:
//   T tokens of the batch (sequences one after another), D hidden, V vocabulary, H query heads,
//   KV key/value heads, h head width, I MLP width, () a scalar; of mixtures of experts: E experts,
//   k of them per token, F width of an expert, S rows that a pass takes.
// Types: activations and their gradients (x, q, k, v, rows, dy, dx) are f32 or bf16, and what an op
// makes of them is like them. f32 always: norm weights and biases, statistics (rstd, lse), router
// logits, scores, loads, losses, and gradients of weights (of matrices, experts, norms, tables),
// whatever type the weight was read in. Sums are f32 inside; what is bf16 is rounded once, at the
// end. Ids, counts and orders are i32.
// Each question about an op is an overload set, one overload per struct (runtime/ops/rules.h:
// infer, backward, shard, cost; a backend: run). A missing answer does not compile or link.
#pragma once

#include <cstddef>
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
// Where the table is sharded by rows, a rank gives zeros for the ids of others.
struct Embedding {  // table (V,D) f32, ids (T) i32 -> (T,D) in the type `output`
  DType output = DType::f32;
};
// The table only says how its gradient lies (is_read). Rows are added in token order.
struct EmbeddingGrad {  // table (V,D), ids (T) i32, dy (T,D) -> (V,D)
  Addend addend = Addend::none;
};

// --- matmul ----------------------------------------------------------------------------------
struct MatMul {  // a (M,K), b (K,N) -> (M,N); a transposed operand is stored (K,M) or (N,K)
  bool transpose_a = false;
  bool transpose_b = false;
  Addend addend = Addend::none;
  // Of bf16 factors the product is bf16, or f32 if so asked. An addend has the product's type.
  bool f32_output = false;
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

struct HeadNorm {  // x (T,n*h) -> y (T,n*h), rstd (T,n): every head by itself, without a weight
  int64_t head_dim;
  float eps;
};
struct HeadNormGrad {  // x (T,n*h), rstd (T,n), dy (T,n*h) -> dx (T,n*h)
  int64_t head_dim;
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
  bool interleaved = false;  // pairs (2i, 2i + 1) rotate instead
  bool inverse = false;      // rotates back: the gradient
};
// Scales queries by how far back they can look (Llama 4, layers without rope):
//   y = x * (1 + attn_scale * ln(1 + floor((position + 1) / floor_scale)))
struct TemperatureScale {  // x (T,N), positions (T) i32 -> (T,N)
  double floor_scale;
  double attn_scale;
};
// Documents cut into chunks that do not see each other: what Attention takes as document_start.
struct ChunkStart {  // document_start (T) i32 -> (T) i32
  int64_t chunk;
  int64_t sequence_len;
};
// Causal attention inside sequences of `sequence_len` consecutive tokens. Query i sees key j when
// document_start[i] <= j <= i, both counted inside the sequence. Never holds T x T. `group`: query
// heads of a key/value head, H / KV. With `whole_sequences` document_start is all zeros, and
// need not be read.
struct Attention {  // q (T,H*h), k, v (T,KV*h), document_start (T) i32 -> out (T,H*h), lse (T,H)
  int64_t head_dim;
  int64_t sequence_len;
  int64_t group = 1;
  bool whole_sequences = false;
};
struct AttentionGrad {  // q, k, v, document_start, out, lse, dout (T,H*h) -> dq, dk, dv
  int64_t head_dim;
  int64_t sequence_len;
  int64_t group = 1;
  bool whole_sequences = false;
};

// --- activation ------------------------------------------------------------------------------
struct SwiGlu {};      // gate (T,I), up (T,I) -> silu(gate) * up (T,I)
struct SwiGluGrad {};  // gate, up, dy (T,I) -> dgate, dup (T,I)
struct Add {};         // a, b of one shape -> a + b

// --- cast ------------------------------------------------------------------------------------
struct Cast {  // x -> x in another type, rounded to nearest, ties to even
  DType to;
};

// --- loss ------------------------------------------------------------------------------------
// Projection and cross-entropy in one: chunks of tokens, never T x V. A target of -1 is not
// counted.
struct LinearCrossEntropy {};      // x (T,D), weight (V,D), targets (T) i32
                                   //   -> loss_sum (), num_valid ()
struct LinearCrossEntropyGrad {};  // x, weight, targets, dloss_sum () -> loss_sum, num_valid,
                                   //   dx (T,D), dweight (V,D): everything in one pass

// What the two become after parallelize where P ranks share the vocabulary (expand_loss.h). A part
// is, for every token, the log-sum-exp over the rows that a rank has and the logit of the target,
// 0 if another has it.
struct CrossEntropyPart {};      // x (T,D), weight, targets (T) i32 -> part (1,2,T)
struct MergeCrossEntropy {};     // parts (P,2,T), targets -> lse (T), loss_sum (), num_valid ()
struct CrossEntropyPartGrad {};  // x, weight, targets, lse, dloss_sum () -> dx (T,D), dweight

// --- mixture of experts ------------------------------------------------------------------------
// Experts work on a bounded buffer of S rows: `per_sequence` for every `sequence_len` tokens.
struct Slots {
  int64_t sequence_len;
  int64_t per_sequence;
  // Each expert has S / E rows and drops what does not fit. Otherwise what does not fit into one
  // pass goes through the same rows in further passes, and nothing is lost.
  bool drops = false;
};
// S. num_tokens: whole sequences.
inline int64_t num_rows(const Slots& slots, int64_t num_tokens) {
  return num_tokens / slots.sequence_len * slots.per_sequence;
}
// Scores are sigmoids of the logits of the picked experts. With a bias the largest score + bias are
// picked; it has no other part in what comes out.
// The gradient adds two terms that are no part of the loss that is shown: the balance loss of each
// sequence, and the square of log-sum-exp (z-loss), each of them times its number of tokens.
struct Route {  // logits (T,E) [, bias (E)] -> scores (T,k), experts (T,k) i32, load (E) f32 counts
  int64_t top_k;
  float aux_loss_coef = 0;
  float z_loss_coef = 0;
  int64_t sequence_len = 1;
};
struct RouteGrad {  // logits (T,E), experts (T,k) i32, dscores (T,k) -> dlogits (T,E)
  float aux_loss_coef = 0;
  float z_loss_coef = 0;
  int64_t sequence_len = 1;
};
// out[t] = sum over its experts e: down_e(silu(gate_e(s x)) * up_e(s x)), s the score. A model and
// autodiff know these two; expand_experts makes the ops below of them.
struct Experts {  // x (T,D), scores (T,k), experts (T,k) i32, gate, up (E,D,F), down (E,F,D)
  Slots slots;    //   -> out (T,D), dropped (), further (): passes after the first, and what the
                  //   gradient needs: order (T*k) i32, ends (E) i32, rows (S,D), counts (E) i32,
                  //   gate_rows, up_rows (S,F)
  int64_t num_experts;
};
struct ExpertsGrad {  // x, scores, gate, up, down, further, order, ends, rows, counts, gate_rows,
  Slots slots;        //   up_rows, dout (T,D) -> dx, dscores (T,k), dgate, dup, ddown
};

// What experts become after parallelize; `axis`: along which they are dealt out, if any.
// Sorts what is picked by expert. order: numbers t*k + j; ends: where each expert's end in it.
struct Assign {  // experts (T,k) i32 -> order (T*k) i32, ends (E) i32, further (), dropped ()
  Slots slots;
  int64_t num_experts;
  std::optional<Axis> axis;
};
// Row i of a pass: x of the i-th token in order, times its score if `weighted`. Rows for the
// experts of one rank follow one another; counts (E): how many there are for each expert.
struct Dispatch {  // x (T,D), scores (T,k), order, ends, pass () -> rows (S,D), counts (E) i32
  Slots slots;
  bool weighted;
  std::optional<Axis> axis;
};
struct DispatchGrad {  // x, scores, order, ends, pass, drows (S,D) [, dx, dscores] -> dx, dscores
  bool adds_in_place;  // to the last two inputs
  std::optional<Axis> axis;
};
struct Combine {  // rows (S,D), order (T*k), ends, pass () [, addend] -> (T,D): sums by token
  int64_t top_k;
  std::optional<Axis> axis;
  Addend addend = Addend::none;
};
// Rows by expert: those of the first rank that sent any, of the second, ...; counts (ranks * E).
struct GroupedMatMul {  // rows (S,K), weights (E,K,N), counts [, addend (S,N)] -> (S,N)
  bool transpose_b;     // weights (E,N,K)
  Addend addend = Addend::none;
};
struct GroupedMatMulGrad {  // rows (S,K), dy (S,N), counts [, addend] -> dweights (E,K,N)
  int64_t num_experts;      // of this rank
  Addend addend = Addend::none;
};

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

// The bias of experts with more than the mean load falls, that of others rises (Wang et al.,
// "Auxiliary-loss-free load balancing strategy for mixture-of-experts"): by rate times the distance
// from the mean over the mean, at most by rate. Their sign alone would turn a single token that
// rounding sends elsewhere into a whole step of the bias. Like AdamW, it changes nothing where
// scale is not finite.
struct UpdateRouterBias {  // bias (E), load (E), scale () -> bias, in place
  float rate;
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
struct AllReduceMax {  // value () -> the largest of the axis, in place
  Axis axis;
};
// Rows (S,D) in the order of experts, to the ranks that have these experts; counts (E) tells how
// many for each, and becomes how many came from each rank for each expert that this one has.
struct ExchangeRows {  // rows, counts -> rows, counts
  Axis axis;
};
struct ReturnRows {  // rows, counts sent, counts received -> rows (S,D) as they were sent
  Axis axis;
};
struct Slice {  // whole -> this rank's shard along dim; along dim 0 it is a view of the whole
  Axis axis;
  int dim;
};

using Op = std::variant<Embedding, EmbeddingGrad, MatMul, AddBias, SumRows, RmsNorm, RmsNormGrad,
                        Rope, Attention, AttentionGrad, SwiGlu, SwiGluGrad, Add, LinearCrossEntropy,
                        LinearCrossEntropyGrad, Fill, Divide, Accumulate, SquaredNorm, ClipScale,
                        AdamW, AllReduce, AllGather, ReduceScatter, AllToAll, Slice, HeadNorm,
                        HeadNormGrad, TemperatureScale, ChunkStart, Route, RouteGrad, Experts,
                        ExpertsGrad, Assign, Dispatch, DispatchGrad, Combine, GroupedMatMul,
                        GroupedMatMulGrad, UpdateRouterBias, AllReduceMax, ExchangeRows, ReturnRows,
                        CrossEntropyPart, MergeCrossEntropy, CrossEntropyPartGrad, Cast>;

std::string_view name(const Op& op);    // "rms_norm"
std::string_view family(const Op& op);  // "norm": the file that has its rules and kernels
std::string attributes(const Op& op);   // "eps=1e-05", "" when there are none
Addend addend(const Op& op);            // none also for ops that cannot have one
// Of collectives, and of ops that only ask for their place on it: Slice, and those of experts.
std::optional<Axis> collective_axis(const Op& op);
bool is_collective(const Op& op);  // moves data between ranks
// False for an input that only tells the shape and placement of the first output: what it holds
// does not matter, and no more of it need be there than where it is kept.
bool is_read(const Op& op, size_t input);
// What a pass inserts after parallelize: has neither a gradient nor a placement rule.
bool is_placed_already(const Op& op);

}  // namespace caravan
