// What depends on where a token is: rotary position embedding (Su et al., "RoFormer", 2021) in both
// layouts, with llama3 scaling, and what Llama 4 adds to it.
#include <cmath>

#include "runtime/cpu/kernels.h"
#include "runtime/cpu/scratch.h"
#include "runtime/rope_frequency.h"

namespace caravan::cpu {
namespace {

// cos and sin of every token's angles, (T, h/2) each. Sines of doubles are dear and positions
// repeat from sequence to sequence: only the first token at a position has a row that is filled.
struct Table {
  double* frequencies;    // (h/2)
  int32_t* token_at;      // (T): first token whose position is this index, -1: none
  int32_t* row_of_token;  // (T)
  float* cosines;         // (T, h/2)
  float* sines;           // (T, h/2)
};

Table take_table(Scratch scratch, int64_t num_tokens, int64_t pairs) {
  return {.frequencies = scratch.take<double>(pairs),
          .token_at = scratch.take<int32_t>(num_tokens),
          .row_of_token = scratch.take<int32_t>(num_tokens),
          .cosines = scratch.take<float>(num_tokens * pairs),
          .sines = scratch.take<float>(num_tokens * pairs)};
}

// Positions beyond the number of tokens (a long context continued) have a row of their own.
void assign_rows(const Table& table, const int32_t* positions, int64_t num_tokens) {
  std::fill_n(table.token_at, num_tokens, -1);
  for (int32_t t = 0; t < num_tokens; ++t) {
    const int32_t position = positions[t];
    table.row_of_token[t] = t;
    if (position < 0 || position >= num_tokens) continue;
    if (table.token_at[position] < 0) table.token_at[position] = t;
    table.row_of_token[t] = table.token_at[position];
  }
}

void fill_row(const Table& table, int64_t row, int32_t position, int64_t pairs) {
  for (int64_t i = 0; i < pairs; ++i) {
    const double angle = position * table.frequencies[i];
    table.cosines[row * pairs + i] = static_cast<float>(std::cos(angle));
    table.sines[row * pairs + i] = static_cast<float>(std::sin(angle));
  }
}

// What turns one head of one token.
struct Rotation {
  const float* cosines;  // (pairs)
  const float* sines;    // (pairs)
  float sign;            // of the angle
  int64_t pairs;
};

// The pairs (x[i], x[i + pairs]).
void rotate_halves(const Rotation& r, const float* x, float* y) {
#pragma omp simd
  for (int64_t i = 0; i < r.pairs; ++i) {
    const float sine = r.sign * r.sines[i];
    const float first = x[i] * r.cosines[i] - x[i + r.pairs] * sine;
    y[i + r.pairs] = x[i] * sine + x[i + r.pairs] * r.cosines[i];
    y[i] = first;
  }
}

// The pairs (x[2i], x[2i + 1]).
void rotate_neighbours(const Rotation& r, const float* x, float* y) {
#pragma omp simd
  for (int64_t i = 0; i < r.pairs; ++i) {
    const float sine = r.sign * r.sines[i];
    const float first = x[2 * i] * r.cosines[i] - x[2 * i + 1] * sine;
    y[2 * i + 1] = x[2 * i] * sine + x[2 * i + 1] * r.cosines[i];
    y[2 * i] = first;
  }
}

}  // namespace

int64_t workspace_bytes(const Rope& op, const WorkspaceQuery& query) {
  const int64_t num_tokens = query.inputs[0].shape[0];
  const int64_t pairs = op.head_dim / 2;
  return scratch_bytes<double>(pairs) + 2 * scratch_bytes<int32_t>(num_tokens) +
         2 * scratch_bytes<float>(num_tokens * pairs);
}

void run(const Rope& op, const KernelArgs& args, const CpuThreads& threads) {
  const int64_t num_tokens = args.inputs[0].dim(0);
  const int64_t width = args.inputs[0].dim(1);
  const int32_t* positions = args.inputs[1].as<int32_t>();
  const int64_t pairs = op.head_dim / 2;
  const Table table = take_table(Scratch(args), num_tokens, pairs);
  for (int64_t i = 0; i < pairs; ++i) table.frequencies[i] = rope_frequency(op, i);
  assign_rows(table, positions, num_tokens);
  threads.for_chunks(num_tokens, 32, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      if (table.row_of_token[t] == t) fill_row(table, t, positions[t], pairs);
    }
  });
  const float sign = op.inverse ? -1.0f : 1.0f;
  threads.for_chunks(num_tokens, 64, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const int64_t row = table.row_of_token[t] * pairs;
      const Rotation rotation{table.cosines + row, table.sines + row, sign, pairs};
      for (int64_t at = t * width; at < (t + 1) * width; at += op.head_dim) {
        const float* x = args.inputs[0].as<float>() + at;
        float* y = args.outputs[0].as<float>() + at;
        op.interleaved ? rotate_neighbours(rotation, x, y) : rotate_halves(rotation, x, y);
      }
    }
  });
}

void run(const TemperatureScale& op, const KernelArgs& args, const CpuThreads& threads) {
  const int32_t* positions = args.inputs[1].as<int32_t>();
  const int64_t width = args.inputs[0].dim(1);
  threads.for_chunks(args.inputs[0].dim(0), 64, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const double steps = std::floor((positions[t] + 1.0) / op.floor_scale);
      const auto scale = static_cast<float>(1.0 + op.attn_scale * std::log1p(steps));
      const float* x = args.inputs[0].as<float>() + t * width;
      float* y = args.outputs[0].as<float>() + t * width;
#pragma omp simd
      for (int64_t i = 0; i < width; ++i) y[i] = scale * x[i];
    }
  });
}

// Chunks are counted from the start of the document, as positions are.
void run(const ChunkStart& op, const KernelArgs& args, const CpuThreads&) {
  const TensorView& starts = args.inputs[0];
  for (int64_t t = 0; t < starts.dim(0); ++t) {
    const int64_t start = starts.as<int32_t>()[t];
    const int64_t inside = (starts.begin(0) + t) % op.sequence_len - start;
    args.outputs[0].as<int32_t>()[t] = static_cast<int32_t>(start + inside / op.chunk * op.chunk);
  }
}

}  // namespace caravan::cpu
