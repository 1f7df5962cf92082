// What only CUDA's kernels promise, or what the tests of all devices cannot ask for: ids that no
// table has, tensors at addresses that vectors cannot have, casts, parts of tensors.
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "runtime/error.h"
#include "tests/runtime/cuda/device_under_test.h"
#include "tests/runtime/kernels/op_check.h"

namespace caravan {
namespace {

// Tensors of 4-byte elements in one reservation, each `gap` bytes after a multiple of 64.
class Memory {
 public:
  explicit Memory(int64_t gap = 0) : gap_(gap), memory_(device_under_test().reserve(1 << 20)) {}

  TensorView put(const Tensor& tensor) {
    TensorView view{memory_->data() + next_ + gap_, tensor.shape, tensor.dtype, tensor.offset,
                    tensor.whole};
    device_under_test().copy_in(view.data, tensor.words.data(), 4 * tensor.size());
    next_ += (4 * tensor.size() + gap_ + 63) / 64 * 64;
    check(next_ <= memory_->bytes(), "the test needs more than %d bytes", memory_->bytes());
    return view;
  }
  static Tensor get(const TensorView& view) {
    Tensor tensor = empty(view.shape, view.dtype);
    device_under_test().copy_out(tensor.words.data(), view.data, 4 * view.size());
    return tensor;
  }

 private:
  int64_t gap_;
  std::unique_ptr<DeviceMemory> memory_;
  int64_t next_ = 0;
};

void run(const Op& op, Memory& memory, const std::vector<TensorView>& inputs,
         const std::vector<TensorView>& outputs, Communicator* communicator = nullptr) {
  TensorSpecs input_specs, output_specs;
  for (const TensorView& view : inputs) input_specs.push_back({view.shape, view.dtype});
  for (const TensorView& view : outputs) output_specs.push_back({view.shape, view.dtype});
  const int64_t bytes = cuda_workspace_bytes(op, input_specs, output_specs);
  TensorView workspace = memory.put(empty({(bytes + 7) / 4}));
  const auto address = reinterpret_cast<uintptr_t>(workspace.data);
  void* const aligned = reinterpret_cast<void*>((address + 7) / 8 * 8);
  device_under_test().run(op, {inputs, outputs, aligned, bytes, communicator}, Stream::compute);
  device_under_test().synchronize();
}

// --- embedding -----------------------------------------------------------------------------------

TEST(CudaEmbedding, AnIdThatNoTableHasGivesNaN) {
  Memory memory;
  Tensor table = normal({4, 8}, 1);
  table.offset = {4, 0};
  table.whole = {12, 8};
  const TensorView y = memory.put(empty({5, 8}));
  run(Embedding{}, memory, {memory.put(table), memory.put(integers({5, 0, 11, 12, -1}))}, {y});
  const Tensor out = Memory::get(y);
  EXPECT_EQ(out.at(0), table.at(8));
  for (int64_t i = 8; i < 24; ++i) EXPECT_EQ(out.at(i), 0.0f);  // another rank has those
  for (int64_t i = 24; i < 40; ++i) EXPECT_TRUE(std::isnan(out.at(i)));
}

TEST(CudaEmbedding, GradientOfAPartOfATable) {
  Memory memory;
  const Tensor dy = normal({6, 8}, 1), ids = integers({5, 0, 11, 12, -1, 5});
  Tensor part = empty({4, 8});
  part.offset = {4, 0};
  part.whole = {12, 8};
  const TensorView table = memory.put(part);
  run(EmbeddingGrad{}, memory, {table, memory.put(ids), memory.put(dy)}, {table});
  const Tensor out = Memory::get(table);
  for (int64_t i = 0; i < 32; ++i) {
    const float expected = i / 8 == 1 ? dy.at(i % 8) + dy.at(40 + i % 8) : 0.0f;
    EXPECT_EQ(out.at(i), expected) << i;
  }
}

// --- casts ---------------------------------------------------------------------------------------

TEST(CudaCast, RoundsToNearestEven) {
  for (const int64_t size : {1, 7, 4096, 5003}) {
    check_op(Cast{DType::bf16}, {{normal({size}, 1)}, {{size}}, {}, 0});
    const Tensor wide = normal({size}, 1);
    EXPECT_EQ(check_op(Cast{DType::f32}, {{wide}, {{size}}, {}, 0})[0].words, wide.words);
  }
  const auto rounded = [](uint32_t bits) {
    return run_kernel(Cast{DType::bf16}, {{filled({1}, std::bit_cast<float>(bits))}, {{1}}})[0]
        .words[0];
  };
  EXPECT_EQ(rounded(0x3f808000), 0x3f800000u);  // halfway: to even, down
  EXPECT_EQ(rounded(0x3f818000), 0x3f820000u);  // and up
  EXPECT_EQ(rounded(0x3f808001), 0x3f810000u);
  EXPECT_EQ(rounded(0x7f7fffff), 0x7f800000u);  // the largest number becomes infinite
  EXPECT_EQ(rounded(0xff800000), 0xff800000u);
  EXPECT_EQ(rounded(0x00018000), 0x00020000u);  // below the smallest normal number
  EXPECT_TRUE(std::isnan(std::bit_cast<float>(rounded(0x7fc00000))));
}

// --- addresses -----------------------------------------------------------------------------------

// A view of some rows (Slice along dim 0) may begin anywhere.
TEST(CudaKernels, TensorsThatAreNotAlignedToVectors) {
  const Shape shape = {37, 64};
  const Tensor a = normal(shape, 1), b = normal(shape, 2), row = normal({64}, 3);
  const auto at_gap = [&](const Op& op, int64_t gap, const std::vector<Tensor>& tensors,
                          const std::vector<Shape>& outputs) {
    Memory memory(gap);
    std::vector<TensorView> in, out;
    for (const Tensor& tensor : tensors) in.push_back(memory.put(tensor));
    for (const Shape& output : outputs) out.push_back(memory.put(empty(output)));
    run(op, memory, in, out);
    std::vector<Tensor> results;
    for (const TensorView& view : out) results.push_back(Memory::get(view));
    return results;
  };
  const auto compare = [&](const Op& op, const std::vector<Tensor>& tensors,
                           const std::vector<Shape>& outputs) {
    expect_close(at_gap(op, 4, tensors, outputs), at_gap(op, 0, tensors, outputs), 1e-6);
  };
  compare(Add{}, {a, b}, {shape});
  compare(SwiGlu{}, {a, b}, {shape});
  compare(SwiGluGrad{}, {a, b, a}, {shape, shape});
  compare(AddBias{}, {a, row}, {shape});
  compare(SumRows{}, {a}, {{64}});
  compare(RmsNorm{1e-5f}, {a, row}, {shape, {37}});
  compare(RmsNormGrad{}, {a, row, normal({37}, 4), b}, {shape, {64}});
  compare(HeadNorm{16, 1e-5f}, {a}, {shape, {37, 4}});
  compare(Rope{16, 1e4, {}, false}, {a, random_integers(37, 0, 90, 5)}, {shape});
  compare(SquaredNorm{}, {a, row, b}, {{}});
  compare(Embedding{}, {a, random_integers(50, 0, 37, 5)}, {{50, 64}});
  compare(EmbeddingGrad{}, {a, random_integers(37, 0, 37, 5), b}, {shape});
}

TEST(CudaKernels, UpdatesOfTensorsThatAreNotAligned) {
  for (const int64_t gap : {0, 4}) {
    Memory memory(gap);
    const Tensor a = normal({1001}, 1), b = normal({1001}, 2);
    const TensorView sum = memory.put(a), value = memory.put(b);
    run(Accumulate{}, memory, {sum, value, memory.put(scalar(1))}, {sum});
    const Tensor out = Memory::get(sum);
    for (int64_t i = 0; i < 1001; ++i) EXPECT_EQ(out.at(i), a.at(i) + b.at(i)) << i;
  }
}

// --- slice ---------------------------------------------------------------------------------------

// Only says which place this rank has.
class Place final : public Communicator {
 public:
  Place(int rank, int size) : rank_(rank), size_(size) {}
  int rank() const override { return rank_; }
  int size() const override { return size_; }
  std::unique_ptr<Communicator> split(int, int) override { refuse(); }
  void all_reduce(void*, int64_t, DType) override { refuse(); }
  void all_gather(const void*, void*, int64_t) override { refuse(); }
  void reduce_scatter(const void*, void*, int64_t, DType) override { refuse(); }
  void all_to_all(const void*, void*, int64_t) override { refuse(); }
  void all_to_all_v(const void*, std::span<const int64_t>, void*,
                    std::span<const int64_t>) override {
    refuse();
  }
  float all_reduce_max(float) override { refuse(); }
  void broadcast(void*, int64_t, int) override { refuse(); }
  void send(const void*, int64_t, int) override { refuse(); }
  void recv(void*, int64_t, int) override { refuse(); }
  void barrier() override { refuse(); }

 private:
  [[noreturn]] static void refuse() { throw internal_error("a slice moves nothing"); }
  int rank_;
  int size_;
};

TEST(CudaSlice, CopiesThisRanksPart) {
  const Tensor whole = normal({5, 6, 2}, 1);
  Place place(1, 3);
  Memory memory;
  const TensorView from = memory.put(whole);
  const TensorView columns = memory.put(empty({5, 2, 2})), rows = memory.put(empty({2, 6, 2}));
  run(Slice{Axis::tp, 1}, memory, {from}, {columns}, &place);
  run(Slice{Axis::tp, 0}, memory, {from}, {rows}, &place);
  const Tensor middle = Memory::get(columns), upper = Memory::get(rows);
  for (int64_t i = 0; i < 20; ++i) EXPECT_EQ(middle.at(i), whole.at(i / 4 * 12 + 4 + i % 4)) << i;
  for (int64_t i = 0; i < 24; ++i) EXPECT_EQ(upper.at(i), whole.at(24 + i)) << i;
}

// Ranks have ceil(5 / 3) rows: the last one has a single row. A view is left as it is.
TEST(CudaSlice, UnevenRowsAndViews) {
  const Tensor whole = normal({5, 3}, 1);
  Place place(2, 3);
  Memory memory;
  const TensorView from = memory.put(whole), last = memory.put(empty({1, 3}));
  run(Slice{Axis::tp, 0}, memory, {from}, {last}, &place);
  for (int64_t i = 0; i < 3; ++i) EXPECT_EQ(Memory::get(last).at(i), whole.at(12 + i));
  const TensorView view{from.as<float>() + 12, {1, 3}};
  run(Slice{Axis::tp, 0}, memory, {from}, {view}, &place);
  for (int64_t i = 0; i < 15; ++i) EXPECT_EQ(Memory::get(from).at(i), whole.at(i));
}

}  // namespace
}  // namespace caravan
