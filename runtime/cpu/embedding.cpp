// Rows of a table by id, and the gradient of the table. Tied weights make a second gradient for the
// same table elsewhere (loss.cpp); the graph adds the two. Where the rows of the table are dealt
// out, a rank has those from begin(0) on.
#include <algorithm>

#include "runtime/cpu/kernels.h"
#include "runtime/error.h"

namespace caravan::cpu {
namespace {

void check_ids(const TensorView& ids, int64_t vocab_size) {
  const int32_t* id = ids.as<int32_t>();
  for (int64_t t = 0; t < ids.size(); ++t) {
    check(id[t] >= 0 && id[t] < vocab_size, "[embedding] id %d of token %d, vocabulary of %d",
          id[t], t, vocab_size);
  }
}

// Of the table, those that this rank has.
struct Rows {
  int64_t first;
  int64_t count;
  bool has(int64_t row) const { return row >= 0 && row < count; }  // counted from `first`
};

}  // namespace

void run(const Embedding&, const KernelArgs& args, const CpuThreads& threads) {
  const TensorView& table = args.inputs[0];
  const TensorView& ids = args.inputs[1];
  check_ids(ids, table.whole_dim(0));
  const int64_t width = table.dim(1);
  const Rows rows{table.begin(0), table.dim(0)};
  threads.for_chunks(ids.size(), 64, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const int64_t row = ids.as<int32_t>()[t] - rows.first;
      float* const y = args.outputs[0].as<float>() + t * width;
      if (rows.has(row))
        std::copy_n(table.as<float>() + row * width, width, y);
      else
        std::fill_n(y, width, 0.0f);
    }
  });
}

// Tasks are ranges of columns: every row is added in token order, without locks.
void run(const EmbeddingGrad& op, const KernelArgs& args, const CpuThreads& threads) {
  const TensorView& ids = args.inputs[1];
  const float* dy = args.inputs[2].as<float>();
  float* table = args.outputs[0].as<float>();
  const float* addend = addend_of(op, args);
  const int64_t width = args.outputs[0].dim(1);
  const Rows rows{args.outputs[0].begin(0), args.outputs[0].dim(0)};
  check_ids(ids, args.outputs[0].whole_dim(0));
  threads.for_chunks(width, 64, [&](int64_t begin, int64_t end) {
    for (int64_t v = 0; v < rows.count && addend != table; ++v) {
      float* row = table + v * width;
      if (addend == nullptr) std::fill(row + begin, row + end, 0.0f);
      if (addend != nullptr)
        std::copy(addend + v * width + begin, addend + v * width + end, row + begin);
    }
    for (int64_t t = 0; t < ids.size(); ++t) {
      const int64_t v = ids.as<int32_t>()[t] - rows.first;
      if (!rows.has(v)) continue;
      float* row = table + v * width;
#pragma omp simd
      for (int64_t i = begin; i < end; ++i) row[i] += dy[t * width + i];
    }
  });
}

}  // namespace caravan::cpu
