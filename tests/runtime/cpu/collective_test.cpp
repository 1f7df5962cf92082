// The collectives on virtual ranks: every rank starts with its part of a tensor that all of them
// can compute, and must end with the part that the op promises.
#include <numeric>

#include "runtime/cpu/kernels.h"
#include "runtime/error.h"
#include "tests/runtime/kernels/op_check.h"
#include "tests/support/silent_communicator.h"
#include "tests/support/virtual_ranks.h"

namespace caravan {
namespace {

constexpr Axis kAxis = Axis::dp;

int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

// The part of `rank` along `dim`: ceil(n / size) of n, fewer on the last ranks.
Tensor part_of(const Tensor& whole, int dim, int size, int rank) {
  const auto d = static_cast<size_t>(dim);
  const int64_t length = whole.shape[d];
  const int64_t step = divide_up(length, size);
  const int64_t begin = std::min(length, rank * step);
  const int64_t end = std::min(length, begin + step);
  int64_t inner = 1;
  for (size_t i = d + 1; i < whole.shape.size(); ++i) inner *= whole.shape[i];
  Shape shape = whole.shape;
  shape[d] = end - begin;
  Tensor part = empty(shape);
  int64_t next = 0;
  for (int64_t i = 0; i < whole.size(); ++i) {
    const int64_t at = i / inner % length;
    if (at >= begin && at < end) part.at(next++) = whole.at(i);
  }
  return part;
}

// Room for the blocks that collectives move: as planned, dim 0 rounded up to size() equal parts.
struct Storage {
  Storage(const Tensor& tensor, int64_t num_elements)
      : shape(tensor.shape), floats(static_cast<size_t>(num_elements) + 16, -77.0f) {
    for (int64_t i = 0; i < tensor.size(); ++i) floats[static_cast<size_t>(i)] = tensor.at(i);
  }
  TensorView view() { return {floats.data(), shape, DType::f32}; }
  bool guard_intact() const {
    return floats.back() == -77.0f && floats[floats.size() - 16] == -77.0f;
  }
  Shape shape;
  std::vector<float> floats;
};

int64_t planned_elements(Shape shape, int dim, int size) {  // of a shard
  int64_t& length = shape[static_cast<size_t>(dim)];
  length = divide_up(length, size);
  return num_elements(shape);
}

void expect_equal(const TensorView& actual, const Tensor& expected, const char* what) {
  ASSERT_EQ(actual.shape, expected.shape);
  for (int64_t i = 0; i < expected.size(); ++i) {
    ASSERT_EQ(actual.as<float>()[i], expected.at(i)) << what << ", element " << i;
  }
}

// Runs the op with exactly the workspace that it asks for.
template <typename Op>
void run_collective(const Op& op, std::vector<TensorView> inputs, std::vector<TensorView> outputs,
                    const std::vector<TensorSpec>& planned_inputs,
                    const std::vector<TensorSpec>& planned_outputs, Communicator& communicator) {
  const int64_t bytes = cpu::workspace_bytes(op, {planned_inputs, planned_outputs, 1});
  Tensor workspace = empty({bytes / 4});
  const KernelArgs args{inputs, outputs, workspace.words.data(), bytes, &communicator};
  cpu::run(op, args, cpu::CpuThreads(1));
  EXPECT_TRUE(workspace.guards_intact());
}

Shape planned(Shape shape, int dim, int size) {
  int64_t& length = shape[static_cast<size_t>(dim)];
  length = divide_up(length, size);
  return shape;
}

struct Layout {
  Shape shape;
  int dim;
};

const Layout kLayouts[] = {{{8, 3}, 0}, {{10, 3}, 0}, {{3, 2}, 0},    {{9}, 0},
                           {{5, 8}, 1}, {{4}, 0},     {{3, 4, 5}, 1}, {{2, 3, 8}, 2}};

class CpuCollective : public testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Ranks, CpuCollective, testing::Values(1, 2, 4));

TEST_P(CpuCollective, AllGather) {
  for (const Layout& layout : kLayouts) {
    run_ranks(GetParam(), [&](Communicator& communicator) {
      const int size = communicator.size();
      const Tensor whole = normal(layout.shape, 1);
      const Tensor part = part_of(whole, layout.dim, size, communicator.rank());
      const int64_t block = planned_elements(layout.shape, layout.dim, size);
      Storage shard(part, block);
      Storage gathered(empty({0}), block * size);
      gathered.shape = whole.shape;
      run_collective(AllGather{kAxis, layout.dim}, {shard.view()}, {gathered.view()},
                     {{planned(layout.shape, layout.dim, size)}}, {whole.spec()}, communicator);
      expect_equal(gathered.view(), whole, "all_gather");
      EXPECT_TRUE(gathered.guard_intact());
    });
  }
}

TEST_P(CpuCollective, AllGatherInPlace) {
  for (const Shape& shape : {Shape{8, 3}, {10, 3}, {9}}) {
    run_ranks(GetParam(), [&](Communicator& communicator) {
      const int size = communicator.size();
      const Tensor whole = normal(shape, 1);
      const Tensor part = part_of(whole, 0, size, communicator.rank());
      const int64_t block = planned_elements(shape, 0, size);
      Storage storage(empty({0}), block * size);
      storage.shape = shape;
      float* mine = storage.floats.data() + communicator.rank() * block;
      for (int64_t i = 0; i < part.size(); ++i) mine[i] = part.at(i);
      run_collective(AllGather{kAxis, 0, true}, {{mine, part.shape, DType::f32}}, {storage.view()},
                     {{planned(shape, 0, size)}}, {whole.spec()}, communicator);
      expect_equal(storage.view(), whole, "all_gather in place");
    });
  }
}

// Small integers, so that sums are exact in any order.
Tensor addend(const Shape& shape, int rank, uint64_t index) {
  Tensor tensor = empty(shape);
  for (int64_t i = 0; i < tensor.size(); ++i) {
    tensor.at(i) = static_cast<float>((i * 7 + rank * 5 + static_cast<int64_t>(index)) % 23);
  }
  return tensor;
}

Tensor sum_over(const Shape& shape, int size, uint64_t index) {
  Tensor sum = filled(shape, 0.0f);
  for (int rank = 0; rank < size; ++rank) {
    const Tensor part = addend(shape, rank, index);
    for (int64_t i = 0; i < sum.size(); ++i) sum.at(i) += part.at(i);
  }
  return sum;
}

TEST_P(CpuCollective, ReduceScatterOfTwoValues) {
  for (const Layout& layout : kLayouts) {
    run_ranks(GetParam(), [&](Communicator& communicator) {
      const int size = communicator.size();
      const int rank = communicator.rank();
      const int64_t block = planned_elements(layout.shape, layout.dim, size);
      Storage first(addend(layout.shape, rank, 0), block * size);
      Storage second(addend(layout.shape, rank, 9), block * size);
      const Tensor expected = part_of(sum_over(layout.shape, size, 0), layout.dim, size, rank);
      const Tensor other = part_of(sum_over(layout.shape, size, 9), layout.dim, size, rank);
      Storage shard(expected, block);
      Storage other_shard(expected, block);
      std::fill(shard.floats.begin(), shard.floats.begin() + block, 0.5f);
      std::fill(other_shard.floats.begin(), other_shard.floats.begin() + block, 0.5f);
      const TensorSpec whole{layout.shape};
      const TensorSpec sharded{planned(layout.shape, layout.dim, size)};
      run_collective(ReduceScatter{kAxis, layout.dim}, {first.view(), second.view()},
                     {shard.view(), other_shard.view()}, {whole, whole}, {sharded, sharded},
                     communicator);
      expect_equal(shard.view(), expected, "first");
      expect_equal(other_shard.view(), other, "second");
      EXPECT_TRUE(shard.guard_intact() && other_shard.guard_intact());
    });
  }
}

TEST_P(CpuCollective, AllToAllBetweenEveryTwoDims) {
  const Shape shapes[] = {{8, 4, 12}, {10, 4, 8}, {3, 8, 4}};  // dim 0 need not divide
  for (const Shape& shape : shapes) {
    for (int from = 0; from < 3; ++from) {
      for (int to = 0; to < 3; ++to) {
        if (from == to) continue;
        run_ranks(GetParam(), [&](Communicator& communicator) {
          const int size = communicator.size();
          const Tensor whole = normal(shape, 1);
          Tensor input = part_of(whole, from, size, communicator.rank());
          const Tensor expected = part_of(whole, to, size, communicator.rank());
          Tensor output = empty(expected.shape);
          run_collective(AllToAll{kAxis, from, to}, {input.view()}, {output.view()},
                         {{planned(shape, from, size)}}, {{planned(shape, to, size)}},
                         communicator);
          expect_equal(output.view(), expected, "all_to_all");
          EXPECT_TRUE(output.guards_intact());
        });
      }
    }
  }
}

TEST_P(CpuCollective, Slice) {
  for (const Layout& layout : kLayouts) {
    run_ranks(GetParam(), [&](Communicator& communicator) {
      Tensor whole = normal(layout.shape, 1);
      const Tensor expected = part_of(whole, layout.dim, communicator.size(), communicator.rank());
      Tensor output = empty(expected.shape);
      run_collective(Slice{kAxis, layout.dim}, {whole.view()}, {output.view()}, {whole.spec()},
                     {output.spec()}, communicator);
      expect_equal(output.view(), expected, "slice");
      EXPECT_TRUE(output.guards_intact());
    });
  }
}

// Counts the calls that reach it; everything else is a group of `size` that nobody else is in.
class CountingCommunicator final : public SilentCommunicator {
 public:
  using SilentCommunicator::SilentCommunicator;
  void all_reduce(void* data, int64_t count, DType) override {
    calls.push_back({static_cast<float*>(data), count});
  }

  struct Span {
    float* data;
    int64_t count;
  };
  std::vector<Span> calls;
};

TEST(AllReduce, NeighboursTravelTogether) {
  std::vector<float> memory(512);
  const auto view = [&](int64_t at, int64_t count) {
    return TensorView{memory.data() + at, {count}, DType::f32};
  };
  // 20 floats end 48 bytes before 32; 40 is 64 bytes before 56, which is too far.
  const std::vector<TensorView> values = {view(0, 20), view(32, 8), view(56, 4), view(16, 2)};
  CountingCommunicator communicator(2);
  const KernelArgs args{values, values, nullptr, 0, &communicator};
  cpu::run(AllReduce{kAxis}, args, cpu::CpuThreads(1));
  ASSERT_EQ(communicator.calls.size(), 3u);
  EXPECT_EQ(communicator.calls[0].data, memory.data());
  EXPECT_EQ(communicator.calls[0].count, 40);
  EXPECT_EQ(communicator.calls[1].count, 4);
  EXPECT_EQ(communicator.calls[2].data, memory.data() + 16);
}

TEST_P(CpuCollective, AllReduceOfABucket) {
  run_ranks(GetParam(), [&](Communicator& communicator) {
    const int size = communicator.size();
    std::vector<float> memory(64, 0.0f);
    const std::vector<TensorView> values = {{memory.data(), {3, 5}, DType::f32},
                                            {memory.data() + 16, {7}, DType::f32},
                                            {memory.data() + 48, {2}, DType::f32}};
    std::vector<Tensor> expected;
    for (size_t i = 0; i < values.size(); ++i) {
      const Tensor mine = addend(values[i].shape, communicator.rank(), i);
      for (int64_t j = 0; j < mine.size(); ++j) values[i].as<float>()[j] = mine.at(j);
      expected.push_back(sum_over(values[i].shape, size, i));
    }
    run_collective(AllReduce{kAxis}, values, values, {}, {}, communicator);
    for (size_t i = 0; i < values.size(); ++i) expect_equal(values[i], expected[i], "all_reduce");
  });
}

TEST(Slice, ViewStaysWhereItIs) {
  Tensor whole = normal({8, 2}, 1);
  const Tensor before = whole;
  CountingCommunicator communicator(4);
  const TensorView part{whole.words.data(), {2, 2}, DType::f32};
  run_collective(Slice{kAxis, 0}, {whole.view()}, {part}, {}, {}, communicator);
  EXPECT_EQ(whole.words, before.words);
}

TEST(AllGather, OtherDimsMustDivide) {
  CountingCommunicator communicator(4);
  Tensor shard = normal({3, 2}, 1);
  Tensor whole = empty({3, 6});
  EXPECT_THROW(run_collective(AllGather{kAxis, 1}, {shard.view()}, {whole.view()}, {shard.spec()},
                              {whole.spec()}, communicator),
               Error);
}

}  // namespace
}  // namespace caravan
