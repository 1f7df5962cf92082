// Rows of a table by id, and the gradient of the table. Tied weights make a second gradient for the
// same table elsewhere (loss.cpp); the graph adds the two.
#include <algorithm>

#include "runtime/cpu/kernels.h"
#include "runtime/error.h"

namespace caravan::cpu {
namespace {

// An id outside the table would read or write foreign memory.
void check_ids(const TensorView& ids, int64_t vocab_size) {
  const int32_t* id = ids.as<int32_t>();
  for (int64_t t = 0; t < ids.size(); ++t) {
    check(id[t] >= 0 && id[t] < vocab_size, "[embedding] id %d of token %d, vocabulary of %d",
          id[t], t, vocab_size);
  }
}

}  // namespace

void run(const Embedding&, const KernelArgs& args, const CpuThreads& threads) {
  const TensorView& table = args.inputs[0];
  const TensorView& ids = args.inputs[1];
  check_ids(ids, table.dim(0));
  const int64_t width = table.dim(1);
  threads.for_chunks(ids.size(), 64, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const float* row = table.as<float>() + ids.as<int32_t>()[t] * width;
      std::copy_n(row, width, args.outputs[0].as<float>() + t * width);
    }
  });
}

// Tasks are ranges of columns: every row is added in token order, without locks.
void run(const EmbeddingGrad& op, const KernelArgs& args, const CpuThreads& threads) {
  const TensorView& ids = args.inputs[0];
  const float* dy = args.inputs[1].as<float>();
  float* table = args.outputs[0].as<float>();
  const float* addend = addend_of(op, args);
  const int64_t width = args.outputs[0].dim(1);
  const int64_t vocab_size = args.outputs[0].dim(0);
  check(vocab_size == op.vocab_size, "[embedding_grad] table of %d rows, vocabulary of %d",
        vocab_size, op.vocab_size);
  check_ids(ids, vocab_size);
  threads.for_chunks(width, 64, [&](int64_t begin, int64_t end) {
    for (int64_t v = 0; v < vocab_size && addend != table; ++v) {
      float* row = table + v * width;
      if (addend == nullptr) std::fill(row + begin, row + end, 0.0f);
      if (addend != nullptr)
        std::copy(addend + v * width + begin, addend + v * width + end, row + begin);
    }
    for (int64_t t = 0; t < ids.size(); ++t) {
      float* row = table + ids.as<int32_t>()[t] * width;
#pragma omp simd
      for (int64_t i = begin; i < end; ++i) row[i] += dy[t * width + i];
    }
  });
}

}  // namespace caravan::cpu
