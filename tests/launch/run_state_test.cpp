// The persistent region between layouts: what any data-parallel size and ZeRO stage saved, any
// other loads bit for bit.
#include "launch/run_state.h"

#include <gtest/gtest.h>

#include <cstring>
#include <map>

#include "checkpoint/crc32c.h"
#include "checkpoint/writer.h"
#include "runtime/rng.h"
#include "tests/checkpoint/support.h"

namespace caravan {
namespace {

constexpr char kConfig[] = R"(output_dir: unused
model: {hidden_size: 24, intermediate_size: 40, num_hidden_layers: 2, num_attention_heads: 4,
        num_key_value_heads: 2, vocab_size: 61, attention_bias: true}
data: {train: unused, sequence_len: 8}
train: {max_steps: 2, micro_batch_size: 1, global_batch_size: 12}
optimizer: {learning_rate: 1e-3}
)";

struct Layout {
  int dp;
  int zero;
};
constexpr Layout kLayouts[] = {{1, 0}, {1, 1}, {1, 2}, {2, 0}, {2, 1},
                               {2, 2}, {4, 0}, {4, 1}, {4, 2}, {3, 1}};

// All ranks of a run, one after the other.
class Ranks {
 public:
  explicit Ranks(const Layout& layout)
      : config_(parse_config(kConfig, "test",
                             std::vector{"parallel.zero=" + std::to_string(layout.zero)})),
        backend_(make_cpu_backend({.num_threads = 1, .overlap = false})),
        mesh_(make_mesh(config_, layout.dp)),
        run_(plan_run(config_, mesh_, *backend_)) {
    for (int rank = 0; rank < layout.dp; ++rank) {
      arenas_.push_back(std::make_unique<Arena>(*backend_, run_.layout, 64));
    }
  }

  // An element is a function of the tensor's name and its place in the global tensor.
  static uint32_t element(const std::string& name, int64_t global) {
    return static_cast<uint32_t>(stable_hash(name) + 2654435761u * static_cast<uint64_t>(global));
  }

  // Calls visit(word of this rank, what it should be) for every element of every saved tensor.
  template <typename Visit>
  void for_elements(Visit visit) const {
    for (int rank = 0; rank < std::ssize(arenas_); ++rank) {
      for (const Value& value : run_.program("update").graph.values) {
        if (value.kind != ValueKind::parameter && value.kind != ValueKind::state) continue;
        const Box box = local_box(value.global_shape, value.placement, mesh_.with_rank(rank));
        auto* words =
            reinterpret_cast<uint32_t*>(arenas_[static_cast<size_t>(rank)]->persistent(value.name));
        int64_t row = 1;
        for (size_t d = 1; d < box.extent.size(); ++d) row *= box.extent[d];
        for (int64_t i = 0; i < num_elements(box.extent); ++i) {
          visit(words[i], element(value.name, box.offset[0] * row + i));
        }
      }
    }
  }

  std::string save(const std::string& folder) const {
    SaveRequest request{.folder = folder, .header = test::header_of_step(1)};
    const int num_ranks = static_cast<int>(arenas_.size());
    std::vector<std::string> reports;
    int64_t bytes = 0;
    for (int rank = 0; rank < num_ranks; ++rank) {
      const Mesh mesh = mesh_.with_rank(rank);
      request.shards = shards_to_save(run_, mesh, *arenas_[static_cast<size_t>(rank)]);
      int64_t mine = 0;
      for (const TensorShard& shard : request.shards) mine += size_bytes(shard);
      EXPECT_EQ(mine, bytes_to_save(run_, mesh));
      bytes += mine;
      reports.push_back(write_rank(request, rank, num_ranks));
    }
    EXPECT_EQ(bytes, checkpoint_bytes(run_));
    return commit_save(request, reports).path;
  }

  void load(const std::string& checkpoint) const {
    for (int rank = 0; rank < std::ssize(arenas_); ++rank) {
      CheckpointReader reader(checkpoint);
      Progress progress;
      load_persistent(run_, mesh_.with_rank(rank), *arenas_[static_cast<size_t>(rank)], reader,
                      progress);
    }
  }

 private:
  Config config_;
  std::unique_ptr<Backend> backend_;
  Mesh mesh_;
  RunPlan run_;
  std::vector<std::unique_ptr<Arena>> arenas_;
};

// By tensor, of all its elements in order.
std::map<std::string, uint32_t> global_checksums(const std::string& checkpoint) {
  std::map<std::string, uint32_t> checksums;
  CheckpointReader reader(checkpoint);
  for (const TensorRecord& tensor : reader.manifest().tensors) {
    std::vector<char> bytes(
        static_cast<size_t>(num_elements(tensor.shape) * size_bytes(tensor.dtype)));
    reader.read({tensor.name, tensor.dtype, tensor.shape, Shape(tensor.shape.size()), tensor.shape,
                 bytes.data()});
    checksums[tensor.name] = crc32c(bytes.data(), bytes.size());
  }
  return checksums;
}

TEST(RunState, EveryLayoutLoadsEveryOther) {
  std::map<std::string, uint32_t> first;
  for (const Layout& from : kLayouts) {
    const TemporaryFolder folder;
    const Ranks writer(from);
    writer.for_elements([](uint32_t& word, uint32_t expected) { word = expected; });
    const std::string path = writer.save(folder.path());
    const std::map<std::string, uint32_t> checksums = global_checksums(path);
    if (first.empty()) first = checksums;
    EXPECT_EQ(checksums, first) << "dp " << from.dp << " zero " << from.zero;
    for (const Layout& to : kLayouts) {
      const Ranks reader(to);
      reader.load(path);
      int64_t num_elements = 0, num_wrong = 0;
      reader.for_elements([&](uint32_t& word, uint32_t expected) {
        ++num_elements;
        num_wrong += word != expected;
      });
      EXPECT_GT(num_elements, 10'000);
      EXPECT_EQ(num_wrong, 0) << "from dp " << from.dp << " zero " << from.zero << " to dp "
                              << to.dp << " zero " << to.zero;
    }
  }
}

}  // namespace
}  // namespace caravan
