// Causal attention, block by block with an online softmax (Dao et al., "FlashAttention", 2022).
//
// A block is a few consecutive query tokens with all query heads that read one key/value head:
// its rows, (token, head of the group), lie packed; keys and values are read where they are.
#include <cmath>

#include "runtime/cpu/gemm.h"
#include "runtime/cpu/kernels.h"
#include "runtime/cpu/scratch.h"
#include "runtime/cpu/simd.h"
#include "runtime/error.h"

namespace caravan::cpu {
namespace {

// Scores of a block, about 256 rows x 256 keys, fit a level 2 cache together with their gradient.
constexpr int64_t kMaxRows = 256;
constexpr int64_t kMaxTokens = 32;
constexpr int64_t kMinTokens = 16;
constexpr int64_t kMaxKeys = 256;

struct Geometry {
  int64_t num_sequences;
  int64_t sequence_len;
  int64_t head_dim;
  int64_t num_kv_heads;
  int64_t group;   // query heads of a key/value head
  int64_t tokens;  // of a full block
  int64_t keys;    // of a full chunk of keys
  int64_t num_heads() const { return num_kv_heads * group; }
  int64_t query_width() const { return num_heads() * head_dim; }  // row of q
  int64_t key_width() const { return num_kv_heads * head_dim; }   // row of k and v
  int64_t packed_width() const { return group * head_dim; }       // token of a block
  int64_t num_blocks() const { return (sequence_len + tokens - 1) / tokens; }
};

template <typename Op>
Geometry geometry(const Op& op, const Shape& q, const Shape& k) {
  const int64_t group = k[1] > 0 ? q[1] / k[1] : 1;
  const int64_t tokens = std::clamp(kMaxRows / group, kMinTokens, kMaxTokens);
  check(q[0] % op.sequence_len == 0, "[attention] %d tokens are not sequences of %d", q[0],
        op.sequence_len);
  check(group * k[1] == q[1] && k[1] % op.head_dim == 0,
        "[attention] q %s and k %s do not fit heads of width %d", to_string(q), to_string(k),
        op.head_dim);
  return {.num_sequences = q[0] / op.sequence_len,
          .sequence_len = op.sequence_len,
          .head_dim = op.head_dim,
          .num_kv_heads = k[1] / op.head_dim,
          .group = group,
          .tokens = std::min(tokens, op.sequence_len),
          .keys = std::min(kMaxKeys, op.sequence_len)};
}

// Where a block stands: tokens [first, last) of a sequence, and one key/value head.
struct Block {
  int64_t sequence_start;  // first token of the sequence in the batch
  int64_t kv_head;
  int64_t first;
  int64_t last;
  const int32_t* document_start;  // of the sequence's tokens

  int64_t num_tokens() const { return last - first; }
  int64_t first_key() const {  // that any of its tokens sees
    return *std::min_element(document_start + first, document_start + last);
  }
};

Block block_at(const Geometry& g, int64_t sequence, int64_t kv_head, int64_t i,
               const int32_t* document_start) {
  return {.sequence_start = sequence * g.sequence_len,
          .kv_head = kv_head,
          .first = i * g.tokens,
          .last = std::min(g.sequence_len, (i + 1) * g.tokens),
          .document_start = document_start + sequence * g.sequence_len};
}

// The keys [begin, end) of a chunk that starts at `first` which the token sees, from 0.
struct Visible {
  int64_t begin;
  int64_t end;
};

Visible visible(const Block& block, int64_t token, int64_t first, int64_t num_keys) {
  const int64_t end = std::clamp<int64_t>(token + 1 - first, 0, num_keys);
  return {std::clamp<int64_t>(block.document_start[token] - first, 0, end), end};
}

// (T, H*h) -> rows of the block, each times `factor`
void pack(const Geometry& g, const Block& block, const float* source, float factor, float* rows) {
  const int64_t width = g.packed_width();
  for (int64_t t = 0; t < block.num_tokens(); ++t) {
    const float* from =
        source + (block.sequence_start + block.first + t) * g.query_width() + block.kv_head * width;
#pragma omp simd
    for (int64_t i = 0; i < width; ++i) rows[t * width + i] = from[i] * factor;
  }
}

void unpack(const Geometry& g, const Block& block, const float* rows, float factor,
            float* destination) {
  const int64_t width = g.packed_width();
  for (int64_t t = 0; t < block.num_tokens(); ++t) {
    float* to = destination + (block.sequence_start + block.first + t) * g.query_width() +
                block.kv_head * width;
#pragma omp simd
    for (int64_t i = 0; i < width; ++i) to[i] = rows[t * width + i] * factor;
  }
}

// Where `key` of the block's sequence and head lies in k, v and their gradients.
int64_t key_offset(const Geometry& g, const Block& block, int64_t key) {
  return (block.sequence_start + key) * g.key_width() + block.kv_head * g.head_dim;
}

// rows (R,h) x keys (n,h) -> scores (R,n)
void scores_of(const Geometry& g, const Block& block, const float* rows, const float* keys,
               int64_t num_keys, float* scores) {
  gemm({.transpose_b = true,
        .m = block.num_tokens() * g.group,
        .n = num_keys,
        .k = g.head_dim,
        .a = rows,
        .lda = g.head_dim,
        .b = keys,
        .ldb = g.key_width(),
        .c = scores,
        .ldc = num_keys});
}

// rows (R,h) += scores (R,n) x keys (n,h)
void add_weighted(const Geometry& g, const Block& block, const float* scores, const float* keys,
                  int64_t num_keys, float* rows) {
  gemm({.m = block.num_tokens() * g.group,
        .n = g.head_dim,
        .k = num_keys,
        .a = scores,
        .lda = num_keys,
        .b = keys,
        .ldb = g.key_width(),
        .accumulate = true,
        .c = rows,
        .ldc = g.head_dim});
}

// keys (n,h) += scores^T (n,R) x rows (R,h)
void add_transposed(const Geometry& g, const Block& block, const float* scores, const float* rows,
                    int64_t num_keys, float* keys) {
  gemm({.transpose_a = true,
        .m = num_keys,
        .n = g.head_dim,
        .k = block.num_tokens() * g.group,
        .a = scores,
        .lda = num_keys,
        .b = rows,
        .ldb = g.head_dim,
        .accumulate = true,
        .c = keys,
        .ldc = g.key_width()});
}

int64_t rows_of(const Geometry& g) { return g.tokens * g.group; }
float scale_of(const Geometry& g) { return 1.0f / std::sqrt(static_cast<float>(g.head_dim)); }

// --- forward -------------------------------------------------------------------------------------

struct ForwardBuffers {
  float* query;    // (R,h), scaled
  float* out;      // (R,h), not yet divided by `sum`
  float* scores;   // (R,n)
  float* largest;  // (R) of the scores so far
  float* sum;      // (R) of exp(score - largest)
};

int64_t forward_floats(const Geometry& g) {  // per thread, whole cache lines
  const int64_t floats = rows_of(g) * (2 * g.head_dim + g.keys + 2);
  return (floats + 15) / 16 * 16;
}

ForwardBuffers forward_buffers(const Geometry& g, float* at) {
  const int64_t packed = rows_of(g) * g.head_dim;
  float* scores = at + 2 * packed;
  float* largest = scores + rows_of(g) * g.keys;
  return {at, at + packed, scores, largest, largest + rows_of(g)};
}

// Turns a row of scores into weights relative to the largest score so far, and brings what was
// summed before to the same scale.
void softmax_row(const Geometry& g, const ForwardBuffers& buffers, int64_t row, Visible seen,
                 int64_t num_keys) {
  float* scores = buffers.scores + row * num_keys;
  std::fill(scores, scores + seen.begin, 0.0f);
  std::fill(scores + seen.end, scores + num_keys, 0.0f);
  if (seen.begin == seen.end) return;
  const float before = buffers.largest[row];
  const float largest = std::max(before, max_of(scores + seen.begin, seen.end - seen.begin));
  if (largest > before) {
    const float factor = fast_exp(before - largest);
    float* out = buffers.out + row * g.head_dim;
    for (int64_t i = 0; i < g.head_dim; ++i) out[i] *= factor;
    buffers.sum[row] *= factor;
    buffers.largest[row] = largest;
  }
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = seen.begin; i < seen.end; ++i) {
    scores[i] = fast_exp(scores[i] - largest);
    sum += scores[i];
  }
  buffers.sum[row] += sum;
}

void finish_rows(const Geometry& g, const Block& block, const ForwardBuffers& buffers, float* lse) {
  for (int64_t row = 0; row < block.num_tokens() * g.group; ++row) {
    const int64_t token = block.sequence_start + block.first + row / g.group;
    lse[token * g.num_heads() + block.kv_head * g.group + row % g.group] =
        buffers.largest[row] + std::log(buffers.sum[row]);
    const float factor = 1.0f / buffers.sum[row];
    float* out = buffers.out + row * g.head_dim;
    for (int64_t i = 0; i < g.head_dim; ++i) out[i] *= factor;
  }
}

void forward_block(const Geometry& g, const Block& block, const KernelArgs& args,
                   const ForwardBuffers& buffers) {
  const int64_t num_rows = block.num_tokens() * g.group;
  pack(g, block, args.inputs[0].as<float>(), scale_of(g), buffers.query);
  std::fill_n(buffers.out, num_rows * g.head_dim, 0.0f);
  std::fill_n(buffers.largest, num_rows, -std::numeric_limits<float>::infinity());
  std::fill_n(buffers.sum, num_rows, 0.0f);
  for (int64_t key = block.first_key(); key < block.last; key += g.keys) {
    const int64_t num_keys = std::min(g.keys, block.last - key);
    const int64_t offset = key_offset(g, block, key);
    scores_of(g, block, buffers.query, args.inputs[1].as<float>() + offset, num_keys,
              buffers.scores);
    for (int64_t row = 0; row < num_rows; ++row) {
      const Visible seen = visible(block, block.first + row / g.group, key, num_keys);
      softmax_row(g, buffers, row, seen, num_keys);
    }
    add_weighted(g, block, buffers.scores, args.inputs[2].as<float>() + offset, num_keys,
                 buffers.out);
  }
  finish_rows(g, block, buffers, args.outputs[1].as<float>());
  unpack(g, block, buffers.out, 1.0f, args.outputs[0].as<float>());
}

}  // namespace

int64_t workspace_bytes(const Attention& op, const WorkspaceQuery& query) {
  const Geometry g = geometry(op, query.inputs[0].shape, query.inputs[1].shape);
  return scratch_bytes<float>(forward_floats(g) * query.num_threads);
}

void run(const Attention& op, const KernelArgs& args, const CpuThreads& threads) {
  const Geometry g = geometry(op, args.inputs[0].shape, args.inputs[1].shape);
  float* scratch = Scratch(args).take<float>(forward_floats(g) * threads.count());
  const int64_t num_tasks = g.num_sequences * g.num_kv_heads * g.num_blocks();
  threads.for_each(num_tasks, [&](int64_t task, int thread) {
    const int64_t head = task / g.num_blocks();
    const Block block = block_at(g, head / g.num_kv_heads, head % g.num_kv_heads,
                                 task % g.num_blocks(), args.inputs[3].as<int32_t>());
    forward_block(g, block, args, forward_buffers(g, scratch + thread * forward_floats(g)));
  });
}

// --- backward ------------------------------------------------------------------------------------

namespace {

struct BackwardBuffers {
  float* query;    // (R,h), scaled
  float* dout;     // (R,h)
  float* dquery;   // (R,h), not yet scaled
  float* weights;  // (R,n)
  float* dscores;  // (R,n)
  float* lse;      // (R)
  float* dot;      // (R) of out and dout: what the softmax takes off every dscore
};

int64_t backward_floats(const Geometry& g) {  // per thread, whole cache lines
  const int64_t floats = rows_of(g) * (3 * g.head_dim + 2 * g.keys + 2);
  return (floats + 15) / 16 * 16;
}

BackwardBuffers backward_buffers(const Geometry& g, float* at) {
  const int64_t packed = rows_of(g) * g.head_dim;
  const int64_t scores = rows_of(g) * g.keys;
  float* weights = at + 3 * packed;
  float* lse = weights + 2 * scores;
  return {.query = at,
          .dout = at + packed,
          .dquery = at + 2 * packed,
          .weights = weights,
          .dscores = weights + scores,
          .lse = lse,
          .dot = lse + rows_of(g)};
}

// q, k, v, document_start, out, lse, dout -> dq, dk, dv
struct BackwardArgs {
  const float* q;
  const float* k;
  const float* v;
  const float* out;
  const float* lse;
  const float* dout;
  float* dq;
  float* dk;
  float* dv;
};

BackwardArgs backward_args(const KernelArgs& args) {
  return {.q = args.inputs[0].as<float>(),
          .k = args.inputs[1].as<float>(),
          .v = args.inputs[2].as<float>(),
          .out = args.inputs[4].as<float>(),
          .lse = args.inputs[5].as<float>(),
          .dout = args.inputs[6].as<float>(),
          .dq = args.outputs[0].as<float>(),
          .dk = args.outputs[1].as<float>(),
          .dv = args.outputs[2].as<float>()};
}

// Fills everything of a block that does not depend on the keys; `dquery` holds `out` for a while.
void begin_backward(const Geometry& g, const Block& block, const BackwardArgs& args,
                    const BackwardBuffers& buffers) {
  const int64_t num_rows = block.num_tokens() * g.group;
  pack(g, block, args.q, scale_of(g), buffers.query);
  pack(g, block, args.dout, 1.0f, buffers.dout);
  pack(g, block, args.out, 1.0f, buffers.dquery);
  for (int64_t row = 0; row < num_rows; ++row) {
    const float* out = buffers.dquery + row * g.head_dim;
    const float* dout = buffers.dout + row * g.head_dim;
    buffers.dot[row] =
        static_cast<float>(blocked_sum(g.head_dim, [=](int64_t i) { return out[i] * dout[i]; }));
    const int64_t token = block.sequence_start + block.first + row / g.group;
    buffers.lse[row] = args.lse[token * g.num_heads() + block.kv_head * g.group + row % g.group];
  }
  std::fill_n(buffers.dquery, num_rows * g.head_dim, 0.0f);
}

// scores -> weights = exp(score - lse); gradients of weights -> of scores. Zero where not visible.
void softmax_gradient_row(const BackwardBuffers& buffers, int64_t row, Visible seen,
                          int64_t num_keys) {
  float* weights = buffers.weights + row * num_keys;
  float* dscores = buffers.dscores + row * num_keys;
  for (float* values : {weights, dscores}) {
    std::fill(values, values + seen.begin, 0.0f);
    std::fill(values + seen.end, values + num_keys, 0.0f);
  }
  const float lse = buffers.lse[row];
  const float dot = buffers.dot[row];
#pragma omp simd
  for (int64_t i = seen.begin; i < seen.end; ++i) {
    weights[i] = fast_exp(weights[i] - lse);
    dscores[i] = weights[i] * (dscores[i] - dot);
  }
}

void backward_block(const Geometry& g, const Block& block, const BackwardArgs& args,
                    const BackwardBuffers& buffers) {
  begin_backward(g, block, args, buffers);
  for (int64_t key = block.first_key(); key < block.last; key += g.keys) {
    const int64_t num_keys = std::min(g.keys, block.last - key);
    const int64_t offset = key_offset(g, block, key);
    scores_of(g, block, buffers.query, args.k + offset, num_keys, buffers.weights);
    scores_of(g, block, buffers.dout, args.v + offset, num_keys, buffers.dscores);
    for (int64_t row = 0; row < block.num_tokens() * g.group; ++row) {
      const Visible seen = visible(block, block.first + row / g.group, key, num_keys);
      softmax_gradient_row(buffers, row, seen, num_keys);
    }
    add_transposed(g, block, buffers.weights, buffers.dout, num_keys, args.dv + offset);
    add_transposed(g, block, buffers.dscores, buffers.query, num_keys, args.dk + offset);
    add_weighted(g, block, buffers.dscores, args.k + offset, num_keys, buffers.dquery);
  }
  unpack(g, block, buffers.dquery, scale_of(g), args.dq);
}

}  // namespace

int64_t workspace_bytes(const AttentionGrad& op, const WorkspaceQuery& query) {
  const Geometry g = geometry(op, query.inputs[0].shape, query.inputs[1].shape);
  return scratch_bytes<float>(backward_floats(g) * query.num_threads);
}

// A task has a key/value head of one sequence to itself, so dk and dv are summed in block order
// where they lie.
void run(const AttentionGrad& op, const KernelArgs& args, const CpuThreads& threads) {
  const Geometry g = geometry(op, args.inputs[0].shape, args.inputs[1].shape);
  const BackwardArgs pointers = backward_args(args);
  float* scratch = Scratch(args).take<float>(backward_floats(g) * threads.count());
  threads.for_each(g.num_sequences * g.num_kv_heads, [&](int64_t task, int thread) {
    const BackwardBuffers buffers = backward_buffers(g, scratch + thread * backward_floats(g));
    for (int64_t i = 0; i < g.num_blocks(); ++i) {
      const Block block = block_at(g, task / g.num_kv_heads, task % g.num_kv_heads, i,
                                   args.inputs[3].as<int32_t>());
      if (i == 0) {
        for (int64_t key = 0; key < g.sequence_len; ++key) {
          std::fill_n(pointers.dk + key_offset(g, block, key), g.head_dim, 0.0f);
          std::fill_n(pointers.dv + key_offset(g, block, key), g.head_dim, 0.0f);
        }
      }
      backward_block(g, block, pointers, buffers);
    }
  });
}

}  // namespace caravan::cpu
