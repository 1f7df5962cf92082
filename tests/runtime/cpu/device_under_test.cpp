// The CPU's kernels for the tests of tests/runtime/kernels: also the same with any number of
// threads.
#include "runtime/cpu/kernels.h"
#include "tests/runtime/kernels/op_check.h"

namespace caravan {
namespace {

std::vector<Tensor> run_with_threads(const Op& op, const OpCase& c, int num_threads) {
  Call call(c);
  const auto inputs = call.input_specs();
  const auto outputs = call.output_specs();
  const auto run = [&](const auto& concrete) {
    const int64_t bytes = cpu::workspace_bytes(concrete, {inputs, outputs, num_threads});
    cpu::run(concrete, call.args(bytes), cpu::CpuThreads(num_threads));
  };
  std::visit(run, op);
  return call.finish();
}

}  // namespace

std::vector<Tensor> run_kernel(const Op& op, const OpCase& c) { return run_with_threads(op, c, 1); }

std::vector<Tensor> check_op(const Op& op, const OpCase& c) {
  const std::vector<Tensor> actual = run_with_threads(op, c, 1);
  expect_same_bits(actual, run_with_threads(op, c, 1), "run again");
  expect_same_bits(actual, run_with_threads(op, c, 2), "with 2 threads");
  expect_same_bits(actual, run_with_threads(op, c, 3), "with 3 threads");
  expect_close(actual, run_reference(op, c), c.tolerance, c.scale);
  return actual;
}

}  // namespace caravan
