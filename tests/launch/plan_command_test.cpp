// `caravan plan` without data or ranks: what it prints, what it refuses, how tight its plans are.
#include "launch/plan_command.h"

#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "data/hdf5_token_file.h"
#include "runtime/cuda/cuda.h"
#include "tests/launch/messages.h"

namespace caravan {
namespace {

constexpr char kPlanned[] = R"(output_dir: runs/small
model:
  vocab_size: 96
  hidden_size: 32
  intermediate_size: 64
  num_hidden_layers: 2
  num_attention_heads: 4
data: {train: no/such/data, sequence_len: 16}
train:
  max_steps: 10
  micro_batch_size: 2
  global_batch_size: 8
optimizer:
  learning_rate: 1e-3
)";

class Plan : public testing::Test {
 protected:
  Plan() { std::ofstream(request_.config_path = folder_ / "small.yaml") << kPlanned; }

  std::string text() const {
    std::ostringstream out;
    print_plan(request_, out);
    return out.str();
  }
  nlohmann::json json() {
    request_.json = true;
    nlohmann::json plan = nlohmann::json::parse(text());
    for (const char* now : {"host_bytes", "process_bytes", "limit_bytes", "limit_source"}) {
      plan["memory"].erase(now);  // of this process and machine at this moment
    }
    return plan;
  }
  std::string message() const {
    return config_message([&] { text(); });
  }

  TemporaryFolder folder_;
  PlanRequest request_;
};

TEST_F(Plan, PrintsEveryPart) {
  request_.num_ranks = 2;
  const std::string all = text();
  for (const char* part : {
           "model  llama, 26.8 k parameters: 2 layers, hidden size 32, vocabulary 96\n",
           "mesh   dp 2, zero 0\n",
           "step   128 tokens = dp 2 x micro_batch_size 2 x sequence_len 16 x accumulation 2\n",
           "\nmemory of a rank, in KiB\n",
           "\nlargest values at the peak: ",
           "\nwork of a rank\n",
           "\ncollectives of a rank\n",
           "all_reduce@dp\n",
           "\nplan hash ",
       }) {
    EXPECT_NE(all.find(part), std::string::npos) << part << "\nin\n" << all;
  }
  EXPECT_EQ(json(), json());
}

TEST_F(Plan, NamesEveryAxisAndWhatIsSharded) {
  request_.overrides = {
      "parallel={dp: 2, tp: 2, zero: 3, sequence_parallel: true, bucket_bytes: 16KiB}"};
  const std::string all = text();  // of as many ranks as the axes have
  for (const char* part :
       {"mesh   dp 2 x tp 2, sequence parallel, zero 3\n",
        "step   128 tokens = dp 2 x micro_batch_size 2 x sequence_len 16 x accumulation 2\n",
        "all_gather@dp\n"}) {
    EXPECT_NE(all.find(part), std::string::npos) << part << "\nin\n" << all;
  }
  const nlohmann::json plan = json();
  EXPECT_EQ(plan["ranks"], 4);
  EXPECT_EQ(plan["mesh"]["tp"], 2);
  EXPECT_EQ(plan["sequence_parallel"], true);
  request_.num_ranks = 3;
  EXPECT_NE(message().find("parallel.dp 2 x parallel.ep 1 x parallel.tp 2 = 4, but there are 3 "),
            std::string::npos)
      << message();
}

TEST_F(Plan, ShowsWhatExpertsExchange) {
  request_.config_path = CARAVAN_SOURCE_DIR "/configs/llama4-tiny.yaml";
  for (const char* parallel :
       {"parallel={dp: 2, ep: 2, zero: 3}", "parallel={dp: 1, tp: 2, ep: 2}"}) {
    request_.overrides = {"model.vocab_size=4096", "train.micro_batch_size=2", parallel};
    const std::string all = text();
    for (const char* part : {"exchange_rows@ep\n", "return_rows@ep\n"}) {
      EXPECT_NE(all.find(part), std::string::npos) << parallel << "\n" << all;
    }
  }
}

// Of every matrix a half is kept; what is gathered of it counts as weights where it is alive.
TEST_F(Plan, ShardedWeightsAreHalved) {
  request_.overrides = {"parallel.zero=3"};
  request_.num_ranks = 2;
  const nlohmann::json two = json();
  const int64_t vectors = 5 * 32;
  const int64_t matrices = two["parameters"].get<int64_t>() - vectors;
  EXPECT_EQ(two["memory"]["persistent_bytes"]["weights"], 4 * (matrices / 2 + vectors));
  const int64_t layer = 4 * (4 * 32 * 32 + 3 * 32 * 64);
  EXPECT_GT(two["memory"]["peak_bytes"]["weights"], 0);
  EXPECT_LE(two["memory"]["peak_bytes"]["weights"], 2 * layer);
}

// Activations and gathered weights take half; what is kept, and the gradients that are reduced, do
// not. The embedding alone is gathered in f32.
TEST_F(Plan, Bfloat16HalvesWhatItShould) {
  request_.overrides = {"parallel.zero=3"};
  request_.num_ranks = 2;
  const nlohmann::json exact = json();
  request_.overrides.push_back("runtime.dtype=bfloat16");
  const nlohmann::json mixed = json();
  EXPECT_EQ(mixed["memory"]["persistent_bytes"], exact["memory"]["persistent_bytes"]);
  const int64_t table = 96 * 32, layers = 2 * (4 * 32 * 32 + 3 * 32 * 64);
  const auto bytes = [](const nlohmann::json& plan, std::string_view collective) {
    for (const auto& one : plan["programs"][2]["collectives"]) {
      if (one["name"] == collective) return one["bytes"].get<double>();
    }
    return 0.0;
  };
  ASSERT_EQ(exact["programs"][2]["name"], "evaluate");
  EXPECT_EQ(bytes(exact, "all_gather@dp"), 4 * (2 * table + layers));
  EXPECT_EQ(bytes(mixed, "all_gather@dp"), 4 * table + 2 * (table + layers));
  EXPECT_NE(mixed["plan_hash"], exact["plan_hash"]);
}

// Without a device: the limit is unknown, unless it is given, and the host's memory is another.
TEST_F(Plan, OfADeviceThatIsNotHere) {
  const CudaStatus status = examine_cuda();
  if (!status.is_built_in || status.problem.empty()) {
    GTEST_SKIP() << "skipped: this is about builds with CUDA on machines without";
  }
  request_.overrides = {"runtime.device=cuda", "runtime.dtype=bfloat16"};
  const std::string unlimited = text();
  EXPECT_NE(unlimited.find("host memory"), std::string::npos) << unlimited;
  EXPECT_EQ(unlimited.find("  limit"), std::string::npos) << unlimited;
  request_.overrides.push_back("runtime.memory_limit=1GiB");
  EXPECT_NE(text().find("  limit"), std::string::npos);
  request_.overrides.back() = "runtime.memory_limit=64KiB";
  EXPECT_NE(message().find("the memory limit is 64.0 KiB"), std::string::npos) << message();
}

// Weights and moments by hand: 4 bytes each, 64-byte aligned as all sizes here are.
TEST_F(Plan, CountsWhatARankHolds) {
  const nlohmann::json one = json();
  const int64_t parameters = 2 * 96 * 32 + 2 * (4 * 32 * 32 + 3 * 32 * 64 + 2 * 32) + 32;
  EXPECT_EQ(one["parameters"], parameters);
  EXPECT_EQ(one["memory"]["persistent_bytes"]["weights"], 4 * parameters);
  EXPECT_EQ(one["memory"]["persistent_bytes"]["optimizer"], 8 * parameters);
  EXPECT_EQ(one["accumulation_steps"], 4);
  for (const auto& program : one["programs"]) EXPECT_TRUE(program["collectives"].empty());

  request_.num_ranks = 4;
  request_.overrides = {"parallel.zero=1"};
  const nlohmann::json four = json();
  EXPECT_EQ(four["parameters"], parameters);
  EXPECT_EQ(four["memory"]["persistent_bytes"]["weights"], 4 * parameters);
  // A quarter of a norm is 8 floats, half of the alignment; there are 5 norms with 2 moments.
  EXPECT_EQ(four["memory"]["persistent_bytes"]["optimizer"], 2 * parameters + 5 * 2 * 32);
  EXPECT_FALSE(four["programs"][0]["collectives"].empty());
  EXPECT_NE(four["plan_hash"], one["plan_hash"]);
}

// Per layer and token of a matrix (n, m): 2nm flops forward, 4nm backward.
TEST_F(Plan, CountsFlops) {
  const nlohmann::json plan = json();
  const double matrices = 2 * (4 * 32 * 32 + 3 * 32 * 64) + 96 * 32;
  const double tokens = 8 * 16;
  const double least = 6 * matrices * tokens;
  EXPECT_GT(plan["flops_per_step"].get<double>(), least);
  EXPECT_LT(plan["flops_per_step"].get<double>(), 1.5 * least);
}

TEST_F(Plan, IsTightOnTheQuickstart) {
  request_.config_path = CARAVAN_SOURCE_DIR "/configs/quickstart.yaml";
  for (const int ranks : {1, 2, 4, 8}) {
    for (const int zero : {0, 1, 2, 3}) {
      for (const int accumulation : {1, 4}) {
        request_.num_ranks = ranks;
        request_.overrides = {
            "model.vocab_size=8192", "train.micro_batch_size=4",
            absl::StrFormat("parallel.zero=%d", zero),
            absl::StrFormat("train.global_batch_size=%d", 4 * ranks * accumulation)};
        const auto all = json();
        for (const auto& program : all["programs"]) {
          const double live = program["max_live_bytes"], plan = program["plan_bytes"];
          EXPECT_LE(plan, 1.02 * live)
              << program["name"] << " ranks " << ranks << " zero " << zero << " x" << accumulation;
        }
      }
    }
  }
}

TEST_F(Plan, AsksForTheVocabulary) {
  std::ofstream(request_.config_path)
      << std::string(kPlanned).replace(std::string(kPlanned).find("  vocab_size: 96\n"), 17, "");
  EXPECT_NE(message().find("model.vocab_size=N"), std::string::npos) << message();
  request_.overrides = {"model.vocab_size=96"};
  EXPECT_EQ(message(), "");
}

TEST_F(Plan, TakesTheVocabularyOfTheData) {
  const std::string data = folder_ / "train.h5";
  TokenFileWriter writer(data, {.size = 128, .bos_id = 1, .eos_id = 2, .tokenizer_hash = ""});
  writer.append(std::vector<int32_t>(100, 3));
  writer.close();
  request_.overrides = {"data.train=" + data, "model.vocab_size=127"};
  EXPECT_NE(message().find("model.vocab_size 127 is less than the 128 tokens of " + data),
            std::string::npos)
      << message();
  request_.overrides[1] = "model.vocab_size=128";
  EXPECT_EQ(message(), "");
}

TEST_F(Plan, WritesTrafficThatNoIntegerHolds) {
  request_.overrides = {"train.micro_batch_size=1048576", "train.global_batch_size=1048576",
                        "data.sequence_len=16777216", "model.max_position_embeddings=16777216",
                        "model.hidden_size=1024"};
  const std::string all = text();
  EXPECT_EQ(all.find(" -9"), std::string::npos) << all;
  EXPECT_NE(all.find(" EiB"), std::string::npos) << all;
}

TEST_F(Plan, DumpsOneGraphAndNothingElse) {
  request_.dump_pass = "build";
  const std::string built = text();
  EXPECT_NE(built.find("linear_cross_entropy("), std::string::npos);
  EXPECT_EQ(built.find("adamw("), std::string::npos);
  EXPECT_EQ(built.find("memory of a rank"), std::string::npos);
  request_.dump_pass = "schedule";
  EXPECT_NE(text().find("adamw("), std::string::npos);
  request_.dump_pass = "shedule";
  EXPECT_EQ(message(), "no pass 'shedule'; did you mean schedule?");
  request_.program = "evaluate";
  request_.dump_pass = "autodiff";
  EXPECT_EQ(message(),
            "no pass of 'evaluate' 'autodiff'; there are build, parallelize, prefetch, "
            "expand_experts, fuse_add, "
            "bucket, schedule");
}

TEST_F(Plan, RefusesProgramsThatTheRunHasNot) {
  request_.program = "updat";
  EXPECT_EQ(message(), "no program 'updat'; did you mean update?");
  request_.program = "accumulate";
  EXPECT_EQ(message(), "");
  request_.num_ranks = 4;  // 4 x 2 sequences: the whole batch at once
  EXPECT_NE(message().find("--program update"), std::string::npos) << message();
}

TEST_F(Plan, KeepsALimitThatIsSet) {
  request_.overrides = {"runtime.memory_limit=1MiB"};
  std::ostringstream out;
  const std::string error = config_message([&] { print_plan(request_, out); });
  EXPECT_NE(error.find("the memory limit is 1.0 MiB (runtime.memory_limit)"), std::string::npos);
  EXPECT_NE(out.str().find("  MISSING "), std::string::npos) << "the table comes first";
}

TEST_F(Plan, WritesThePicture) {
  request_.svg_path = folder_ / "plan.svg";
  text();
  std::ifstream file(request_.svg_path);
  const std::string svg(std::istreambuf_iterator<char>(file), {});
  EXPECT_TRUE(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
  request_.svg_path = folder_ / "no/such/folder.svg";
  EXPECT_NE(message().find("No such file or directory"), std::string::npos);
}

}  // namespace
}  // namespace caravan
