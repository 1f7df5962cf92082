// Loading: values, overrides, every message that a user meets first, and the round trip.
#include "launch/config.h"

#include <filesystem>
#include <fstream>
#include <sstream>

#include "launch/config_schema.h"
#include "tests/launch/messages.h"

namespace caravan {
namespace {

constexpr char kSmall[] = R"(output_dir: runs/small
model:
  hidden_size: 64
  intermediate_size: 128
  num_hidden_layers: 2
  num_attention_heads: 4
data: {train: data/docs, sequence_len: 32}
train:
  max_steps: 10
  micro_batch_size: 2
  global_batch_size: 8
optimizer:
  learning_rate: 1e-3
)";

Config small(std::vector<std::string> overrides = {}) {
  return parse_config(kSmall, "c.yaml", overrides);
}

std::string message_of(std::vector<std::string> overrides) {
  return config_message([&] { small(overrides); });
}

// The message when `line` is added at the end, inside optimizer: line 14.
std::string message_with(const std::string& line) {
  return config_message([&] { parse_config(kSmall + line, "c.yaml"); });
}

TEST(Config, ReadsValuesAndDefaults) {
  const Config config = small();
  EXPECT_EQ(config.output_dir, "runs/small");
  EXPECT_EQ(config.model.hidden_size, 64);
  EXPECT_EQ(config.model.num_key_value_heads, 4);  // derived
  EXPECT_EQ(config.model.vocab_size, 0);           // the data's
  EXPECT_EQ(config.data.train, (std::vector<DataSource>{{"data/docs", 1.0}}));
  EXPECT_EQ(config.optimizer.learning_rate, 1e-3);
  EXPECT_EQ(config.optimizer.lr_scheduler_type, LrScheduleKind::cosine);
  EXPECT_EQ(config.parallel.dp, std::nullopt);
  EXPECT_EQ(config.runtime.memory_limit, std::nullopt);
  EXPECT_EQ(config.checkpoint.resume_from_checkpoint.kind, ResumeFrom::Kind::automatic);
}

TEST(Config, OverridesEveryKindOfValue) {
  const Config config = small({"train.max_steps=1_000", "optimizer.lr_scheduler_type=wsd",
                               "runtime.memory_limit=2GiB", "runtime.overlap=false",
                               "data.train=[{path: a, weight: 0.25}, b]", "parallel.dp=2",
                               "checkpoint.resume_from_checkpoint=false", "log.report_to=[]",
                               "model.rope_scaling={rope_type: llama3, factor: 8, low_freq_factor: "
                               "1, high_freq_factor: 4, original_max_position_embeddings: 8192}"});
  EXPECT_EQ(config.train.max_steps, 1000);
  EXPECT_EQ(config.optimizer.lr_scheduler_type, LrScheduleKind::wsd);
  EXPECT_EQ(config.runtime.memory_limit, int64_t{2} << 30);
  EXPECT_FALSE(config.runtime.overlap);
  EXPECT_EQ(config.data.train, (std::vector<DataSource>{{"a", 0.25}, {"b", 1.0}}));
  EXPECT_EQ(config.parallel.dp, 2);
  EXPECT_EQ(config.checkpoint.resume_from_checkpoint.kind, ResumeFrom::Kind::never);
  EXPECT_TRUE(config.log.report_to.empty());
  EXPECT_EQ(config.model.rope_scaling, RopeScaling{});
  EXPECT_EQ(small({"model.rope_scaling=null"}).model.rope_scaling, std::nullopt);
  const ResumeFrom from =
      small({"checkpoint.resume_from_checkpoint=\"false\""}).checkpoint.resume_from_checkpoint;
  EXPECT_EQ(from, (ResumeFrom{ResumeFrom::Kind::path, "false"}));
}

TEST(Config, TheVocabularyOfForeignTokenFiles) {
  EXPECT_EQ(to_yaml(small()).find("token_id"), std::string::npos);  // not said: not written
  const Config config = small({"data.tokenizer=data/docs", "data.vocab_size=50257",
                               "data.eos_token_id=0", "data.bos_token_id=1"});
  EXPECT_EQ(config.data.tokenizer, "data/docs");
  EXPECT_EQ(config.data.vocab_size, 50257);
  EXPECT_EQ(config.data.eos_token_id, 0);
  EXPECT_EQ(config.data.bos_token_id, 1);
  EXPECT_EQ(parse_config(to_yaml(config), "written"), config);
  EXPECT_NE(message_of({"data.eos_token_id=-1"}).find("data.eos_token_id"), std::string::npos);
  EXPECT_NE(message_of({"data.vocab_size=0"}).find("data.vocab_size"), std::string::npos);
}

TEST(Config, NamesTheNearestKey) {
  EXPECT_EQ(message_with("  learning_rat: 1\n"),
            "c.yaml:14:3: unknown key 'learning_rat' in optimizer; did you mean 'learning_rate'?");
  EXPECT_EQ(message_with("  lr: 1\n"),
            "c.yaml:14:3: unknown key 'lr' in optimizer; did you mean 'learning_rate'?");
  EXPECT_EQ(message_with("  seed: 1\n"),
            "c.yaml:14:3: unknown key 'seed' in optimizer; did you mean 'train.seed'?");
  EXPECT_EQ(message_with("max_steps: 1\n"),
            "c.yaml:14:1: unknown key 'max_steps' at the top level; did you mean "
            "'train.max_steps'?");
  EXPECT_EQ(message_of({"optimiser.learning_rate=1"}),
            "command line: unknown key 'optimiser' at the top level; did you mean 'optimizer'?");
  EXPECT_EQ(message_of({"log.colour=1"}),
            "command line: unknown key 'colour' in log; known keys: logging_steps, report_to");
  EXPECT_EQ(message_of({"data.train=[{path: a, wieght: 1}]"}),
            "command line: unknown key 'wieght' in data.train; did you mean 'weight'?");
}

TEST(Config, RefusesDuplicateKeys) {
  EXPECT_EQ(message_with("  learning_rate: 1\n"),
            "c.yaml:14:3: duplicate key 'learning_rate'; it was given before, remove one");
}

TEST(Config, SaysWhatAValueShouldBe) {
  EXPECT_EQ(message_with("  warmup_steps: 010\n"),
            "c.yaml:14:17: optimizer.warmup_steps is '010'; expected an integer from 0 to "
            "1000000000000000");
  EXPECT_EQ(message_with("  warmup_steps: \"10\"\n"),
            "c.yaml:14:17: optimizer.warmup_steps is the text '10'; expected an integer from "
            "0 to 1000000000000000");
  EXPECT_EQ(message_with("  weight_decay: [1]\n"),
            "c.yaml:14:17: optimizer.weight_decay is a list: [1]; expected a number from 0 to 100");
  EXPECT_EQ(message_of({"train.max_steps=0"}),
            "command line: train.max_steps is '0'; expected an integer from 1 to "
            "1000000000000000");
  EXPECT_EQ(message_of({"train.max_steps=1_000_000_000_000_001"}),
            "command line: train.max_steps is '1_000_000_000_000_001'; expected an integer from 1 "
            "to 1000000000000000");
  EXPECT_EQ(message_of({"optimizer.learning_rate=2e30"}),
            "command line: optimizer.learning_rate is '2e30'; expected a number above 0 and at "
            "most 1e+30");
  EXPECT_EQ(message_of({"train.max_steps="}),
            "command line: train.max_steps is empty; expected an integer from 1 to "
            "1000000000000000");
  EXPECT_EQ(message_of({"optimizer.adam_beta1=1.0"}),
            "command line: optimizer.adam_beta1 is '1.0'; expected a number from 0 to 0.999999");
  EXPECT_EQ(message_of({"optimizer.name=sgd"}),
            "command line: optimizer.name is 'sgd'; expected adamw");
  EXPECT_EQ(message_of({"optimizer.lr_scheduler_type=step"}),
            "command line: optimizer.lr_scheduler_type is 'step'; expected "
            "constant|linear|cosine|wsd");
  EXPECT_EQ(message_of({"runtime.device=gpu"}),
            "command line: runtime.device is 'gpu'; expected auto|cpu|cuda");
  EXPECT_EQ(message_of({"runtime.dtype=float16"}),
            "command line: runtime.dtype is 'float16'; expected float32|bfloat16");
  EXPECT_EQ(message_of({"runtime.overlap=yes"}),
            "command line: runtime.overlap is 'yes'; expected true or false");
  EXPECT_EQ(message_of({"runtime.memory_limit=20G"}),
            "command line: runtime.memory_limit is '20G'; expected auto or a size such as 512MiB "
            "or 20GiB");
  EXPECT_EQ(message_of({"parallel.zero=4"}),
            "command line: parallel.zero is '4'; expected an integer from 0 to 3");
  EXPECT_EQ(message_of({"data.train=[]"}),
            "command line: data.train is a list: []; expected a path, or a list such as [{path: "
            "data/docs}]");
  EXPECT_EQ(message_of({"train=5"}), "command line: train is '5'; expected a section of keys");
  EXPECT_EQ(message_of({"model.rope_scaling={rope_type: yarn, factor: 2}"}),
            "command line: model.rope_scaling.rope_type is 'yarn'; expected llama3");
}

TEST(Config, AsksForMissingKeys) {
  EXPECT_EQ(config_message([] { parse_config("", "c.yaml"); }),
            "c.yaml:1:1: missing key 'output_dir' at the top level; add 'output_dir: ...', a text");
  EXPECT_EQ(config_message([] { parse_config("output_dir: x\n", "c.yaml"); }),
            "c.yaml:1:1: missing key 'hidden_size' in model; add 'hidden_size: ...', an integer "
            "from 1 to 1048576");
  EXPECT_EQ(message_of({"data={sequence_len: 8}"}),
            "command line: missing key 'train' in data; add 'train: ...', a path, or a list of "
            "sections");
}

constexpr char kFrom[] = R"(output_dir: runs/small
model: {init_from: somewhere, rope_theta: 5e5}
data: {train: data/docs, sequence_len: 32}
train: {max_steps: 10, micro_batch_size: 2, global_batch_size: 8}
optimizer: {learning_rate: 1e-3}
)";

// A model of another place: what a configuration does not say is taken from there.
ModelConfig model_elsewhere(const std::string& path) {
  if (path != "somewhere") throw checkpoint_error(path + ": no such folder");
  ModelConfig model = default_config(ModelFamily::llama4_text);
  model.vocab_size = 300, model.hidden_size = 32, model.intermediate_size = 48;
  model.num_hidden_layers = 3, model.num_attention_heads = 4, model.num_key_value_heads = 2;
  model.moe_layers = {1}, model.intermediate_size_mlp = 64;
  return with_derived_sizes(model);
}

TEST(Config, TakesKeysOfTheModelThatItStartsFrom) {
  const Config config = parse_config(kFrom, "c.yaml", {}, model_elsewhere);
  ModelConfig expected = model_elsewhere("somewhere");
  expected.init_from = "somewhere";
  expected.rope_theta = 5e5;
  EXPECT_EQ(config.model, expected);
  EXPECT_TRUE(config.moe);
  // The effective configuration needs the other place no more.
  EXPECT_EQ(parse_config(to_yaml(config), "again"), config);
}

TEST(Config, RefusesAnotherFamilyThanThatOfTheModelThatItStartsFrom) {
  const std::vector<std::string> overrides = {"model.family=llama"};
  EXPECT_EQ(config_message([&] { parse_config(kFrom, "c.yaml", overrides, model_elsewhere); }),
            "command line: model.family is llama, but somewhere is a llama4_text; remove the key");
}

TEST(Config, WithoutAReaderAModelGivesItsSizesItself) {
  EXPECT_EQ(config_message([] { parse_config(kFrom, "c.yaml"); }),
            "c.yaml:2:8: missing key 'hidden_size' in model; add 'hidden_size: ...', an integer "
            "from 1 to 1048576");
}

TEST(Config, WritesAModelAlone) {
  const ModelConfig model = model_elsewhere("somewhere");
  EXPECT_EQ(parse_model(to_yaml(model), "model"), model);
}

// Families have their own keys and defaults; what another one has is refused where it stands.
TEST(Config, FamiliesHaveTheirOwnKeys) {
  const ModelConfig model =
      small({"model.family=llama4_text", "model.floor_scale=64", "model.attention_chunk_size=null",
             "model.moe_layers=[]", "model.intermediate_size_mlp=96"})
          .model;
  EXPECT_EQ(model.family, ModelFamily::llama4_text);
  EXPECT_EQ(model.hidden_size, 64);
  EXPECT_EQ(model.rope_theta, 500000);
  EXPECT_EQ(model.num_local_experts, 16);
  EXPECT_EQ(model.floor_scale, 64);
  EXPECT_EQ(model.attention_chunk_size, 0);
  EXPECT_EQ(model.moe_layers, std::vector<int64_t>{});
  EXPECT_EQ(small({"model.family=llama4_text", "model.rope_theta=1e4"}).model.rope_theta, 1e4);
  EXPECT_EQ(message_of({"model.use_qk_norm=true"}),
            "command line: model.use_qk_norm is given, but only family llama4_text has it; remove "
            "the key");
  EXPECT_EQ(message_of({"model.family=llama4_text", "model.mlp_bias=false"}),
            "command line: model.mlp_bias is given, but only family llama has it; remove the key");
  EXPECT_EQ(message_of({"model.moe_layers=[0]"}),
            "command line: model.moe_layers is given, but a model without experts has no such "
            "thing; give num_local_experts, or remove the key");
  EXPECT_EQ(
      small({"model.num_local_experts=4", "model.num_experts_per_tok=2"}).model.num_experts_per_tok,
      2);
  EXPECT_EQ(message_of({"model.family=llama4_text", "model.attention_chunk_size=0"}),
            "command line: model.attention_chunk_size is '0'; expected null or an integer from 1 "
            "to 1000000000000000");
  EXPECT_EQ(message_of({"model.family=llama4_text", "model.layer_types=[chunked]"}),
            "command line: model.layer_types is a list: [chunked]; expected a list of "
            "chunked_attention|full_attention");
}

// The keys of experts change nothing of what a dense Llama's configuration is and hashes to.
TEST(Config, DenseLlamaShowsNoOtherKeys) {
  const std::string text = to_yaml(small());
  for (const char* key : {"experts", "moe", "rope_layer", "chunk", "qk_norm", "scale:", "_mlp"}) {
    EXPECT_EQ(text.find(key), std::string::npos) << key;
  }
}

TEST(Config, RefusesImpossibleModels) {
  EXPECT_EQ(message_of({"model.num_key_value_heads=3"}),
            "model: num_attention_heads 4 is not divisible by num_key_value_heads 3; every "
            "key-value head serves the same number of heads, so use a divisor of 4");
}

TEST(Config, ChecksTheBatchWithAllNumbersNamed) {
  EXPECT_EQ(accumulation_steps(small(), 2), 2);
  EXPECT_EQ(config_message([] { validate(small({"train.global_batch_size=10"}), 2); }),
            "train.global_batch_size 10 is not divisible by train.micro_batch_size 2 x parallel.dp "
            "2 = 4; use train.global_batch_size=8 or 12");
  EXPECT_EQ(config_message([] { validate(small(), 8); }),
            "train.global_batch_size 8 is not divisible by train.micro_batch_size 2 x parallel.dp "
            "8 = 16; use train.global_batch_size=16");
  EXPECT_EQ(config_message([] { validate(small({"parallel.dp=4"}), 2); }),
            "parallel.dp 4 x parallel.ep 1 x parallel.tp 1 = 4, but there are 2 processes; start "
            "with mpirun -n 4, or use parallel.dp=auto");
}

TEST(Config, ChecksKeysAgainstEachOther) {
  const auto message = [](std::vector<std::string> overrides) {
    return config_message([&] { validate(small(overrides), 1); });
  };
  EXPECT_EQ(message({}), "");
  EXPECT_EQ(message({"data.sequence_len=4096"}),
            "data.sequence_len 4096 is longer than model.max_position_embeddings 2048; raise the "
            "latter");
  EXPECT_EQ(message({"train.eval_steps=5"}),
            "train.eval_steps is 5, but there is no data.validation; give its path, or "
            "eval_steps=0");
  EXPECT_EQ(message({"optimizer.lr_scheduler_type=wsd"}),
            "optimizer.lr_scheduler_type is wsd and optimizer.decay_steps is 0; give 1 to "
            "train.max_steps 10");
  EXPECT_EQ(message({"optimizer.decay_steps=5"}),
            "optimizer.decay_steps is 5, but only lr_scheduler_type wsd has it; remove it");
}

TEST(Config, RoundTrips) {
  const std::vector<std::vector<std::string>> cases = {
      {},
      {"output_dir=\"a b: 'c'\"", "train.seed=123456789", "optimizer.learning_rate=3.3e-7"},
      {"runtime={memory_limit: 1.5GiB, threads: 3, keep_all: true, overlap: false}"},
      {"runtime.recompute=none"},
      {"runtime={device: cuda, dtype: bfloat16, deterministic: true, cuda_graph: false}"},
      {"parallel={dp: 2, tp: auto, ep: 4, zero: 3, sequence_parallel: true}"},
      {"moe={capacity_factor: 1.25, balance: aux_loss, aux_loss_coef: 0.01, z_loss_coef: 1e-4}"},
      {"moe={slots: 1.25, balance: none}"},
      {"moe={}"},
      {"data.train=[{path: \"1\", weight: 0.1}, {path: \"true\"}]", "data.validation=v",
       "train.eval_steps=3"},
      {"checkpoint.resume_from_checkpoint=\"auto\"", "log.report_to=[]", "model.vocab_size=77"},
      {"model.rope_scaling={rope_type: llama3, factor: 32, low_freq_factor: 1, high_freq_factor: 4,"
       " original_max_position_embeddings: 8192}",
       "model.tie_word_embeddings=true"},
      {"model.num_local_experts=8", "model.num_experts_per_tok=2"},
      {"model.family=llama4_text", "model.attention_chunk_size=null", "model.moe_layers=[]",
       "model.intermediate_size_mlp=96"},
      {"model.family=llama4_text", "model.no_rope_layers=[1, 0]",
       "model.layer_types=[full_attention, chunked_attention]", "model.use_qk_norm=false"},
  };
  for (const auto& overrides : cases) {
    const Config config = small(overrides);
    const std::string text = to_yaml(config);
    EXPECT_EQ(parse_config(text, "effective.yaml"), config) << text;
    EXPECT_EQ(to_yaml(parse_config(text, "effective.yaml")), text);
  }
}

TEST(Config, HashTellsConfigurationsApart) {
  EXPECT_EQ(config_hash(small()), config_hash(small()));
  EXPECT_EQ(config_hash(small()).size(), 16u);
  EXPECT_NE(config_hash(small()), config_hash(small({"train.seed=2"})));
}

TEST(Config, ReferenceNamesEveryKeyWithItsDefault) {
  const std::string reference = config_reference();
  EXPECT_NE(reference.find("optimizer.adam_beta2"), std::string::npos);
  EXPECT_NE(reference.find("[0.95]"), std::string::npos);
  EXPECT_NE(reference.find("data.train[].weight"), std::string::npos);
  EXPECT_NE(reference.find("[8192]"), std::string::npos);  // of a key that not all families have
  for (const KeyInfo& info : describe_keys(config_keys())) EXPECT_FALSE(info.help.empty());
}

// A command line that a configuration shows at its head: on how many processes, what is overridden.
struct ShownCommand {
  int num_ranks = 1;
  std::vector<std::string> overrides;
};

ShownCommand shown_command(const std::string& line) {
  ShownCommand command;
  std::istringstream words(line);
  for (std::string word; words >> word;) {
    if (word == "-n" || word == "--ranks") words >> command.num_ranks;
    if (word.find('=') != std::string::npos) command.overrides.push_back(word);
  }
  return command;
}

std::vector<ShownCommand> shown_commands(const std::filesystem::path& config) {
  std::vector<ShownCommand> commands;
  std::ifstream file(config);
  for (std::string line; std::getline(file, line) && line.starts_with("#");) {
    if (line.find("configs/" + config.filename().string()) != std::string::npos)
      commands.push_back(shown_command(line));
  }
  return commands;
}

// Every command at the head of every configuration would start.
TEST(Config, ShippedConfigurationsDoWhatTheyShow) {
  int count = 0;
  for (const auto& entry : std::filesystem::directory_iterator(CARAVAN_SOURCE_DIR "/configs")) {
    SCOPED_TRACE(entry.path());
    const std::vector<ShownCommand> commands = shown_commands(entry.path());
    EXPECT_FALSE(commands.empty());
    for (const ShownCommand& command : commands) {
      const auto load = [&] {
        validate(load_config(entry.path().string(), command.overrides), command.num_ranks);
      };
      EXPECT_EQ(config_message(load), "");
      ++count;
    }
  }
  EXPECT_GT(count, 0);
}

}  // namespace
}  // namespace caravan
