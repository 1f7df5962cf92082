// Every rule of a layout: what keeps it, what breaks it, and the message that says so.
#include "launch/layout_rules.h"

#include <functional>

#include "launch/data_feed.h"
#include "launch/pipeline.h"
#include "tests/launch/messages.h"

namespace caravan {
namespace {

Config small_on(const std::string& parallel = "{}") {
  Config config = parse_config(R"(output_dir: runs/small
model: {hidden_size: 48, intermediate_size: 96, num_hidden_layers: 2, num_attention_heads: 12,
        num_key_value_heads: 6, vocab_size: 240}
data: {train: data/docs, sequence_len: 32}
train: {max_steps: 10, micro_batch_size: 2, global_batch_size: 48}
optimizer: {learning_rate: 1e-3}
)",
                               "c.yaml", std::vector{"parallel=" + parallel});
  return config;
}

struct SizesCase {
  const char* parallel;
  int num_processes;
  std::array<int64_t, 3> expected;  // dp, ep, tp
};

TEST(LayoutRules, OneAutoFillsWhatIsLeft) {
  for (const SizesCase& c : std::initializer_list<SizesCase>{
           {"{}", 1, {1, 1, 1}},
           {"{}", 6, {6, 1, 1}},
           {"{tp: 2}", 6, {3, 1, 2}},
           {"{tp: 2, ep: 3}", 12, {2, 3, 2}},
           {"{dp: 2, tp: auto}", 8, {2, 1, 4}},
           {"{dp: 2, tp: auto}", 2, {2, 1, 1}},
           {"{dp: 1, ep: auto, tp: 2}", 8, {1, 4, 2}},
           {"{dp: 2, ep: 2, tp: 2}", 8, {2, 2, 2}},
       }) {
    const ParallelSizes sizes = parallel_sizes(small_on(c.parallel).parallel, c.num_processes);
    EXPECT_EQ((std::array{sizes.dp, sizes.ep, sizes.tp}), c.expected) << c.parallel;
    const Mesh mesh = make_mesh(small_on(c.parallel), c.num_processes);
    EXPECT_EQ(mesh.num_ranks(), c.num_processes);
    EXPECT_EQ(mesh.size(Axis::tp), c.expected[2]);
  }
}

TEST(LayoutRules, SizesMustMakeUpTheProcesses) {
  const auto message = [](const char* parallel, int num_processes) {
    return config_message([&] { parallel_sizes(small_on(parallel).parallel, num_processes); });
  };
  EXPECT_EQ(message("{dp: 4}", 2),
            "parallel.dp 4 x parallel.ep 1 x parallel.tp 1 = 4, but there are 2 processes; start "
            "with mpirun -n 4, or use parallel.dp=auto");
  EXPECT_EQ(message("{dp: 2, tp: 2}", 1),
            "parallel.dp 2 x parallel.ep 1 x parallel.tp 2 = 4, but there is 1 process; start with "
            "mpirun -n 4");
  EXPECT_EQ(message("{ep: 2, tp: 2}", 6),
            "parallel.ep 2 x parallel.tp 2 = 4 does not divide the number of processes, 6, so "
            "parallel.dp=auto cannot fill what is left; start with mpirun -n 8 or another multiple "
            "of 4");
  EXPECT_EQ(message("{dp: 3, tp: auto}", 4),
            "parallel.dp 3 x parallel.ep 1 = 3 does not divide the number of processes, 4, so "
            "parallel.tp=auto cannot fill what is left; start with mpirun -n 6 or another multiple "
            "of 3");
  EXPECT_EQ(message("{tp: auto}", 4),
            "parallel.dp and parallel.tp are both auto (dp is, where it is left out), and only one "
            "of them can fill what is left of the processes; give the other, such as "
            "parallel.dp=1");
  EXPECT_EQ(message("{dp: 2, ep: auto, tp: auto}", 4),
            "parallel.ep and parallel.tp are both auto, and only one of them can fill what is left "
            "of the processes; give the other, such as parallel.ep=1");
}

struct RuleCase {
  const char* parallel;
  int num_processes;
  std::function<void(Config&)> change;
  const char* message;  // "" where the layout is legal
};

void give_experts(Config& config, int64_t experts) {
  config.model.num_local_experts = experts;
  config.moe.emplace();
}

void nothing(Config&) {}

const RuleCase kRules[] = {
    {"{}", 1, nothing, ""},
    {"{dp: 1, zero: 3}", 1, nothing, ""},  // nothing to shard, as in every stage
    {"{tp: 3, zero: 3}", 6, nothing, ""},
    {"{dp: 1, tp: auto, sequence_parallel: true}", 1, nothing, ""},
    {"{tp: 2, sequence_parallel: true}", 4, nothing, ""},
    {"{tp: 12}", 12, nothing, ""},  // two ranks share a key-value head
    {"{tp: 2, ep: 3}", 6, [](Config& c) { give_experts(c, 6); }, ""},
    {"{tp: 5}", 5, nothing,
     "model.num_attention_heads 12 is not divisible by parallel.tp 5 (each rank of tp has whole "
     "heads); use parallel.tp=4"},
    {"{tp: 24}", 24, nothing,
     "model.num_attention_heads 12 is not divisible by parallel.tp 24 (each rank of tp has whole "
     "heads); use parallel.tp=12"},
    {"{tp: 4}", 4, nothing,
     "neither of model.num_key_value_heads 6 and parallel.tp 4 divides the other (each rank of tp "
     "has whole key-value heads, or shares one with the same number of others); use parallel.tp=3"},
    {"{tp: 3}", 3, [](Config& c) { c.model.intermediate_size = 100; },
     "model.intermediate_size 100 is not divisible by parallel.tp 3 (each rank of tp has an equal "
     "part of the MLP); use parallel.tp=2"},
    {"{tp: 3}", 3,
     [](Config& c) {
       give_experts(c, 6);
       c.model.interleave_moe_layer_step = 2;
       c.model.intermediate_size_mlp = 200;
     },
     "model.intermediate_size_mlp 200 is not divisible by parallel.tp 3 (each rank of tp has an "
     "equal part of the MLP); use parallel.tp=2"},
    {"{tp: 2}", 2, [](Config& c) { c.model.vocab_size = 301; },
     "the vocabulary of 301 tokens is not divisible by parallel.tp 2 (each rank of tp has an equal "
     "part of it); use parallel.tp=1, or for a new model model.vocab_size=302"},
    {"{ep: 2}", 2, nothing,
     "parallel.ep is 2, but the model has no experts (model.num_local_experts); use parallel.ep=1, "
     "and parallel.dp or tp for more processes"},
    {"{ep: 4}", 4, [](Config& c) { give_experts(c, 6); },
     "model.num_local_experts 6 is not divisible by parallel.ep 4 (each rank of ep has whole "
     "experts); use parallel.ep=3"},
    {"{}", 1, [](Config& c) { c.moe.emplace(); },
     "moe is given, but the model has no experts (model.num_local_experts); remove the section, or "
     "give the model experts"},
    {"{}", 1,
     [](Config& c) {
       give_experts(c, 4);
       c.moe->capacity_factor = 1.25;
       c.moe->slots = 2;
     },
     "moe.slots is 2, but with moe.capacity_factor 1.25 the rows of experts follow from that; use "
     "moe.slots=auto, or leave capacity_factor out"},
    {"{sequence_parallel: true}", 2, nothing,
     "parallel.sequence_parallel is true, but parallel.tp is 1, so that there is nobody to share "
     "sequences with; give parallel.tp, or use parallel.sequence_parallel=false"},
    {"{tp: 6, sequence_parallel: true}", 6, nothing,
     "parallel.sequence_parallel: train.micro_batch_size 2 x data.sequence_len 32 = 64 tokens are "
     "not divisible by parallel.tp 6 (each rank of tp has an equal part of them); use "
     "data.sequence_len=36"},
    {"{ep: 2, dp: 5}", 10, [](Config& c) { give_experts(c, 4); },
     "train.global_batch_size 48 is not divisible by train.micro_batch_size 2 x parallel.dp 5 x "
     "parallel.ep 2 = 20; use train.global_batch_size=40 or 60"},
};

TEST(LayoutRules, IllegalLayoutsAreRefusedWithTheRule) {
  for (const RuleCase& rule : kRules) {
    Config config = small_on(rule.parallel);
    rule.change(config);
    EXPECT_EQ(config_message([&] { validate(config, rule.num_processes); }), rule.message)
        << rule.parallel;
  }
}

// tp does not split the batch.
TEST(LayoutRules, MicroStepsCountThePartsOfABatch) {
  const auto steps = [](const char* parallel, int num_processes) {
    Config config = small_on(parallel);
    give_experts(config, 4);
    return accumulation_steps(config, num_processes);
  };
  EXPECT_EQ(steps("{}", 1), 24);
  EXPECT_EQ(steps("{}", 6), 4);
  EXPECT_EQ(steps("{tp: 6}", 6), 24);
  EXPECT_EQ(steps("{ep: 2, tp: 2}", 12), 4);
}

// Every part of the batch is read, by one tp group, and lies where the graph's tensors have it.
TEST(LayoutRules, TensorParallelRanksReadTheSameData) {
  Config config = small_on("{dp: 3, ep: 2, tp: 2}");
  give_experts(config, 4);
  const Mesh mesh = make_mesh(config, 12);
  std::vector<int> readers(6, 0);
  for (int rank = 0; rank < 12; ++rank) {
    const BatchLayout layout = batch_layout(config, mesh.with_rank(rank));
    EXPECT_EQ(layout.num_ranks, 6);
    EXPECT_EQ(layout.rank, batch_layout(config, mesh.with_rank(rank / 2 * 2)).rank);
    const Placement tokens = Placement{}.with(Axis::dp, shard(0)).with(Axis::ep, shard(0));
    EXPECT_EQ(local_box({6 * 64}, tokens, mesh.with_rank(rank)).offset[0], layout.rank * 64);
    ++readers.at(static_cast<size_t>(layout.rank));
  }
  EXPECT_EQ(readers, std::vector<int>(6, 2));
}

}  // namespace
}  // namespace caravan
