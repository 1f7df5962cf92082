// Products of experts: rows that follow one another belong to one expert. Work is cut into tasks
// of one expert and some rows, each a product on one thread; what no token picked costs nothing.
#include "runtime/cpu/gemm.h"
#include "runtime/cpu/kernels.h"
#include "runtime/cpu/scratch.h"

namespace caravan::cpu {
namespace {

constexpr int64_t kTaskRows = 126;  // whole tiles of every kernel

// Rows [begin, begin + count) of expert `expert`.
struct Segment {
  int64_t expert;
  int64_t begin;
  int64_t count;
};

// body(segment) in the order of the rows.
template <typename Body>
void for_each_segment(const TensorView& counts, int64_t num_experts, const Body& body) {
  const int32_t* count = counts.as<int32_t>();
  int64_t begin = 0;
  for (int64_t i = 0; i < counts.size(); ++i) {
    if (count[i] > 0) body(Segment{i % num_experts, begin, count[i]});
    begin += count[i];
  }
}

int64_t max_tasks(int64_t num_rows, int64_t num_segments) {
  return num_rows / kTaskRows + num_segments;
}

}  // namespace

int64_t workspace_bytes(const GroupedMatMul& op, const WorkspaceQuery& query) {
  const Shape& weights = query.inputs[1].shape;
  const int64_t k = weights[op.transpose_b ? 2 : 1], n = weights[op.transpose_b ? 1 : 2];
  const int64_t tasks = max_tasks(query.inputs[0].shape[0], query.inputs[2].shape[0]);
  return scratch_bytes<Segment>(tasks) +
         query.num_threads * scratch_bytes<float>(gemm_scratch_floats(n, k, 1));
}

void run(const GroupedMatMul& op, const KernelArgs& args, const CpuThreads& threads) {
  const TensorView& rows = args.inputs[0];
  const TensorView& weights = args.inputs[1];
  const TensorView& out = args.outputs[0];
  const int64_t k = rows.dim(1), n = out.dim(1);
  Scratch scratch(args);
  Segment* tasks = scratch.take<Segment>(max_tasks(rows.dim(0), args.inputs[2].size()));
  int64_t num_tasks = 0;
  for_each_segment(args.inputs[2], weights.dim(0), [&](const Segment& s) {
    for (int64_t at = 0; at < s.count; at += kTaskRows) {
      tasks[num_tasks++] = {s.expert, s.begin + at, std::min(kTaskRows, s.count - at)};
    }
  });
  const int64_t scratch_floats = gemm_scratch_floats(n, k, 1);
  const int64_t stride = scratch_bytes<float>(scratch_floats) / int64_t{sizeof(float)};
  float* packed = scratch.take<float>(stride * threads.count());
  const float* addend = addend_of(op, args);
  threads.for_each(num_tasks, [&](int64_t task, int thread) {
    const Segment& s = tasks[task];
    const Gemm product{
        .m = s.count,
        .n = n,
        .k = k,
        .a = {rows.as<float>() + s.begin * k, k, false},
        .b = {weights.as<float>() + s.expert * k * n, weights.dim(2), op.transpose_b},
        .addend = addend == nullptr ? nullptr : addend + s.begin * n,
        .ld_addend = n,
        .c = out.as<float>() + s.begin * n,
        .ldc = n};
    gemm(product, packed + thread * stride, CpuThreads(1));
  });
}

int64_t workspace_bytes(const GroupedMatMulGrad&, const WorkspaceQuery& query) {
  const int64_t n = query.outputs[0].shape[2];
  const int64_t most_rows = query.inputs[0].shape[0];
  return query.num_threads * scratch_bytes<float>(gemm_scratch_floats(n, most_rows, 1));
}

// A task is an expert and some rows of its weights. The sources' parts add up in their order.
void run(const GroupedMatMulGrad& op, const KernelArgs& args, const CpuThreads& threads) {
  const TensorView& rows = args.inputs[0];
  const TensorView& dy = args.inputs[1];
  const int64_t k = rows.dim(1), n = dy.dim(1);
  const int64_t stride =
      scratch_bytes<float>(gemm_scratch_floats(n, rows.dim(0), 1)) / int64_t{sizeof(float)};
  float* packed = Scratch(args).take<float>(stride * threads.count());
  const float* addends = addend_of(op, args);
  const int64_t parts = (k + kTaskRows - 1) / kTaskRows;
  threads.for_each(op.num_experts * parts, [&](int64_t task, int thread) {
    const int64_t expert = task / parts, first = task % parts * kTaskRows;
    const int64_t count = std::min(kTaskRows, k - first);
    const int64_t at = (expert * k + first) * n;
    float* out = args.outputs[0].as<float>() + at;
    const float* addend = addends == nullptr ? nullptr : addends + at;
    for_each_segment(args.inputs[2], op.num_experts, [&](const Segment& s) {
      if (s.expert != expert) return;
      const Gemm product{.m = count,
                         .n = n,
                         .k = s.count,
                         .a = {rows.as<float>() + s.begin * k + first, k, true},
                         .b = {dy.as<float>() + s.begin * n, n, false},
                         .addend = addend,
                         .ld_addend = n,
                         .c = out,
                         .ldc = n};
      gemm(product, packed + thread * stride, CpuThreads(1));
      addend = out;
    });
    if (addend == nullptr) std::fill_n(out, count * n, 0.0f);
    if (addend != nullptr && addend != out) std::copy_n(addend, count * n, out);
  });
}

}  // namespace caravan::cpu
