// The persistent region between layouts: what any mesh and ZeRO stage saved, any other loads bit
// for bit; and what is initialised does not depend on them.
#include "launch/run_state.h"

#include <gtest/gtest.h>

#include <cstring>
#include <functional>
#include <map>

#include "absl/strings/str_format.h"
#include "checkpoint/crc32c.h"
#include "checkpoint/writer.h"
#include "parallel/shard_parameters.h"
#include "runtime/builder.h"
#include "runtime/passes/plan_memory.h"
#include "runtime/rng.h"
#include "tests/checkpoint/support.h"

namespace caravan {
namespace {

constexpr char kConfig[] = R"(output_dir: unused
model: {hidden_size: 24, intermediate_size: 40, num_hidden_layers: 2, num_attention_heads: 4,
        num_key_value_heads: 2, vocab_size: 62, attention_bias: true}
data: {train: unused, sequence_len: 8}
train: {max_steps: 2, micro_batch_size: 1, global_batch_size: 12}
optimizer: {learning_rate: 1e-3}
)";

struct Layout {
  int dp;
  int zero;
  int ep = 1;
  int tp = 1;

  std::string name() const {
    return absl::StrFormat("dp %d ep %d tp %d zero %d", dp, ep, tp, zero);
  }
};
constexpr Layout kLayouts[] = {{1, 0},       {1, 1},       {1, 2},       {2, 0},       {2, 1},
                               {2, 2},       {4, 0},       {4, 1},       {4, 2},       {3, 1},
                               {1, 3},       {2, 3},       {3, 3},       {4, 3},       {1, 0, 1, 2},
                               {1, 1, 1, 2}, {2, 3, 1, 2}, {3, 3, 1, 2}, {1, 0, 2, 1}, {2, 1, 2, 1},
                               {2, 3, 2, 1}, {2, 3, 2, 2}};

RunPlan llama_plan(const Layout& layout) {
  const std::vector<std::string> overrides = {absl::StrFormat(
      "parallel={dp: %d, ep: %d, tp: %d, zero: %d}", layout.dp, layout.ep, layout.tp, layout.zero)};
  const Config config = parse_config(kConfig, "test", overrides);
  return plan_run(config, make_mesh(config, layout.dp * layout.ep * layout.tp),
                  workspace_rule(DeviceKind::cpu, 1));
}

// Experts with moments and the bias of their router, as a mixture of experts declares them.
RunPlan experts_plan(const Layout& layout) {
  RunPlan run;
  run.mesh = Mesh{{layout.dp, layout.ep, layout.tp}};
  Graph graph;
  Builder b(graph);
  const Placement by_expert = Placement{}.with(Axis::ep, shard(0));
  const Initializer random{Initializer::Kind::normal, 0.5f};
  b.parameter("gate", {4, 10, 6}, random, by_expert.with(Axis::tp, shard(2)));
  b.parameter("down", {4, 6, 10}, random, by_expert.with(Axis::tp, shard(1)));
  b.parameter("router", {4, 10}, random);
  b.persistent(ValueKind::state, "router.bias", {4}, {});
  if (layout.zero >= 3) graph = shard_parameters(std::move(graph), run.mesh);
  for (const char* name : {"gate", "down", "router"}) {
    const Value value = graph.value(graph.find(name));
    Placement placement = value.placement;
    if (layout.zero >= 1 && placement[Axis::dp] == kReplicate) placement[Axis::dp] = shard(0);
    Builder(graph).persistent(ValueKind::state, std::string("m.") + name, value.global_shape,
                              placement);
  }
  for (Value& value : graph.values) {
    value.shape = local_shape(value.global_shape, value.placement, run.mesh);
  }
  const std::vector<const Graph*> graphs = {&graph};
  run.layout = plan_persistent(graphs, run.mesh);
  Program& program = run.programs.emplace_back();
  program.name = "update";
  program.graph = graph;
  return run;
}

// All ranks of a run, one after the other.
class Ranks {
 public:
  explicit Ranks(RunPlan run)
      : backend_(make_cpu_backend({.num_threads = 1, .overlap = false})),
        mesh_(run.mesh),
        run_(std::move(run)) {
    for (int rank = 0; rank < mesh_.num_ranks(); ++rank) {
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
        for (int64_t i = 0; i < num_elements(box.extent); ++i) {
          int64_t rest = i, global = 0, stride = 1;
          for (size_t d = box.extent.size(); d-- > 0;) {
            global += (box.offset[d] + rest % box.extent[d]) * stride;
            rest /= box.extent[d];
            stride *= value.global_shape[d];
          }
          visit(words[i], element(value.name, global));
        }
      }
    }
  }

  void initialize() const {
    Progress progress;
    for (int rank = 0; rank < std::ssize(arenas_); ++rank) {
      initialize_parameters(run_, mesh_.with_rank(rank), *backend_,
                            *arenas_[static_cast<size_t>(rank)], 7, 1, progress);
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
      load_persistent(run_, mesh_.with_rank(rank), *backend_, *arenas_[static_cast<size_t>(rank)],
                      reader, progress);
    }
  }

 private:
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

// Saves from every layout of the list, and loads each in layouts that are `stride` apart.
void expect_exchange(const std::function<RunPlan(const Layout&)>& plan,
                     std::span<const Layout> layouts, int64_t least_elements, size_t stride) {
  std::map<std::string, uint32_t> first;
  for (size_t i = 0; i < layouts.size(); ++i) {
    const Layout& from = layouts[i];
    const TemporaryFolder folder;
    const Ranks writer(plan(from));
    writer.for_elements([](uint32_t& word, uint32_t expected) { word = expected; });
    const std::string path = writer.save(folder.path());
    const std::map<std::string, uint32_t> checksums = global_checksums(path);
    if (first.empty()) first = checksums;
    EXPECT_EQ(checksums, first) << from.name();
    for (size_t j = i / stride % stride; j < layouts.size(); j += stride) {
      const Layout& to = layouts[j];
      const Ranks reader(plan(to));
      reader.load(path);
      int64_t num_elements = 0, num_wrong = 0;
      reader.for_elements([&](uint32_t& word, uint32_t expected) {
        ++num_elements;
        num_wrong += word != expected;
      });
      EXPECT_GE(num_elements, least_elements);
      EXPECT_EQ(num_wrong, 0) << "from " << from.name() << " to " << to.name();
    }
  }
}

// Every fifth: all kinds of layouts meet, in a second instead of many.
TEST(RunState, LayoutsLoadEachOther) { expect_exchange(llama_plan, kLayouts, 10'000, 5); }

// With dims that ep, tp and dp share, and one expert a rank, whose rows dp shares.
TEST(RunState, ExpertsOfEveryLayoutLoadInEveryOther) {
  const Layout layouts[] = {{1, 0},       {2, 1},       {3, 3},       {1, 1, 2, 1}, {2, 1, 2, 1},
                            {2, 3, 2, 1}, {2, 3, 4, 1}, {3, 3, 2, 2}, {2, 3, 4, 2}, {1, 3, 1, 2}};
  expect_exchange(experts_plan, layouts, 4 * 10 * 6 * 4, 1);
}

TEST(RunState, InitialWeightsAreTheSameInEveryLayout) {
  for (const auto& plan : {llama_plan, experts_plan}) {
    std::map<std::string, uint32_t> first;
    for (const Layout& layout : kLayouts) {
      const TemporaryFolder folder;
      const Ranks ranks(plan(layout));
      ranks.initialize();
      const auto checksums = global_checksums(ranks.save(folder.path()));
      if (first.empty()) first = checksums;
      EXPECT_EQ(checksums, first) << layout.name();
    }
  }
}

}  // namespace
}  // namespace caravan
