// Collectives along any dim, on virtual ranks that share the device: the same bytes as on the CPU,
// whose collectives are tested against what they promise (tests/runtime/cpu).
#include <gtest/gtest.h>

#include "parallel/host_staged_communicator.h"
#include "runtime/cuda/cuda.h"
#include "runtime/packing.h"
#include "tests/support/virtual_ranks.h"

namespace caravan {
namespace {

constexpr Axis kAxis = Axis::dp;

// What one rank holds, and what every rank's memory is planned for.
struct Held {
  Shape here;
  Shape planned;
};

Held part_along(const Shape& whole, int dim, const Communicator& group) {
  Held held{whole, whole};
  const auto d = static_cast<size_t>(dim);
  const Part part = part_of(whole[d], group.size(), group.rank());
  held.here[d] = part.end - part.begin;
  held.planned[d] = parts_of(whole[d], group.size());
  return held;
}

// Small integers, so that sums are exact in any order; the output, as far as it is this rank's.
std::vector<float> run_on(Backend& backend, Communicator& group, const Op& op, const Held& input,
                          const Held& output) {
  constexpr int64_t kElements = 1024;  // enough for whole blocks
  const TensorSpec planned_input{input.planned}, planned_output{output.planned};
  const int64_t workspace =
      backend.workspace_bytes(op, std::span(&planned_input, 1), std::span(&planned_output, 1));
  const auto memory = backend.reserve(2 * kElements * 4 + workspace);
  std::vector<float> values(kElements);
  for (size_t i = 0; i < values.size(); ++i) {
    values[i] = static_cast<float>((i * 7 + static_cast<size_t>(group.rank()) * 5) % 23);
  }
  backend.copy_in(memory->data(), values.data(), kElements * 4);
  const TensorView from{memory->data(), input.here},
      to{memory->data() + kElements * 4, output.here};
  const KernelArgs args{.inputs = std::span(&from, 1),
                        .outputs = std::span(&to, 1),
                        .workspace = memory->data() + 2 * kElements * 4,
                        .workspace_bytes = workspace,
                        .communicator = &group};
  backend.run(op, args, Stream::communication);
  backend.wait_for_communication(backend.communication_count());
  backend.synchronize();
  std::vector<float> result(static_cast<size_t>(to.size()));
  if (!result.empty()) backend.copy_out(result.data(), to.data, to.size() * 4);
  return result;
}

class CudaCollective : public testing::TestWithParam<int> {
 protected:
  // `input` and `output` say what a rank of a group holds.
  template <typename Input, typename Output>
  void expect_as_on_cpu(const Op& op, Input input, Output output) {
    run_ranks(GetParam(), [&](Communicator& world) {
      const auto cpu = make_cpu_backend({.num_threads = 1, .overlap = false});
      const auto cuda = make_cuda_backend({});
      const auto staged = make_host_staged_communicator(world.split(0, world.rank()), *cuda, 256);
      EXPECT_EQ(run_on(*cuda, *staged, op, input(world), output(world)),
                run_on(*cpu, world, op, input(world), output(world)))
          << name(op) << " " << attributes(op);
    });
  }
};
INSTANTIATE_TEST_SUITE_P(Ranks, CudaCollective, testing::Values(1, 2, 3));

const Shape kEven = {6, 12, 6}, kUneven = {7, 6, 6};  // dim 0 need not divide

auto whole_of(const Shape& shape) {
  return [shape](const Communicator&) { return Held{shape, shape}; };
}
auto part_of_dim(const Shape& shape, int dim) {
  return [shape, dim](const Communicator& group) { return part_along(shape, dim, group); };
}

TEST_P(CudaCollective, AlongEveryDim) {
  for (int dim = 0; dim < 3; ++dim) {
    const Shape& shape = dim == 0 ? kUneven : kEven;
    const auto whole = whole_of(shape);
    const auto part = part_of_dim(shape, dim);
    expect_as_on_cpu(AllGather{kAxis, dim}, part, whole);
    expect_as_on_cpu(ReduceScatter{kAxis, dim}, whole, part);
    expect_as_on_cpu(Slice{kAxis, dim}, whole, part);
  }
}

TEST_P(CudaCollective, BetweenEveryTwoDims) {
  for (int from = 0; from < 3; ++from) {
    for (int to = 0; to < 3; ++to) {
      if (from == to) continue;
      const Shape& shape = from * to == 0 ? kUneven : kEven;
      expect_as_on_cpu(AllToAll{kAxis, from, to}, part_of_dim(shape, from), part_of_dim(shape, to));
    }
  }
}

}  // namespace
}  // namespace caravan
