#include "tests/checkpoint/support.h"

#include <gtest/gtest.h>

#include <cstring>
#include <fstream>
#include <iterator>

#include "runtime/rng.h"

namespace caravan::test {

std::vector<TestTensor> small_model() {
  return {{"embedding/weight", DType::f32, {37, 12}, 0},
          {"layers.0.attention.wq", DType::bf16, {24, 10}, 1},
          {"layers.0.mlp.experts", DType::f32, {6, 7, 5}, 2},
          {"optimizer/m/embedding", DType::f32, {37, 12}, 0},
          {"positions", DType::i32, {11}, 0},
          {"norm", DType::f32, {12}, -1},
          {"loss_scale", DType::f32, {}, -1}};
}

Box rank_box(const TestTensor& spec, int rank, int num_ranks) {
  Box box{Shape(spec.shape.size(), 0), spec.shape};
  if (spec.split_dim < 0) return box;
  const auto d = static_cast<size_t>(spec.split_dim);
  const int64_t small = spec.shape[d] / num_ranks, large = spec.shape[d] % num_ranks;
  box.offset[d] = rank * small + std::min<int64_t>(rank, large);
  box.extent[d] = small + (rank < large ? 1 : 0);
  return box;
}

std::vector<char> box_bytes(const TestTensor& spec, const Box& box, int64_t step) {
  const auto element_bytes = static_cast<size_t>(size_bytes(spec.dtype));
  const RandomStream random(static_cast<uint64_t>(step), RandomPurpose::test,
                            stable_hash(spec.name));
  const int64_t count = num_elements(box.extent);
  std::vector<char> bytes(static_cast<size_t>(count) * element_bytes);
  for (int64_t i = 0; i < count; ++i) {
    int64_t rest = i, global = 0, stride = 1;  // the slow plain way, as a specification
    for (size_t d = box.extent.size(); d-- > 0;) {
      global += (box.offset[d] + rest % box.extent[d]) * stride;
      rest /= box.extent[d];
      stride *= spec.shape[d];
    }
    const uint64_t bits = random.bits(static_cast<uint64_t>(global));
    std::memcpy(bytes.data() + static_cast<size_t>(i) * element_bytes, &bits, element_bytes);
  }
  return bytes;
}

CheckpointHeader header_of_step(int64_t step) {
  return {.run_id = "run-1",
          .step = step,
          .tokens = step * 4096,
          .config_hash = "c0ffee",
          .tool_version = "0.1.0",
          .unix_time = 1700000000,
          .layout = {{"dp", 2}, {"zero", 1}},
          .counters = {{"sample", step * 7}},
          .scalars = {{"loss", 2.5}},
          .series = {{"losses", {2.5, 0.1, 1e-300}}, {"none", {}}},
          .texts = {{"model", "family: llama"}}};
}

SavedCheckpoint save_model(const std::string& folder, const std::vector<TestTensor>& model,
                           int64_t step, int num_ranks, int64_t save_total_limit) {
  SaveRequest request{
      .folder = folder, .header = header_of_step(step), .save_total_limit = save_total_limit};
  std::vector<std::string> reports;
  for (int rank = 0; rank < num_ranks; ++rank) {
    request.shards.clear();
    std::vector<std::vector<char>> memory;
    for (const TestTensor& spec : model) {
      const Box box = rank_box(spec, rank, num_ranks);
      if ((spec.split_dim < 0 && rank != 0) || num_elements(box.extent) == 0) continue;
      memory.push_back(box_bytes(spec, box, step));
      request.shards.push_back(
          {spec.name, spec.dtype, spec.shape, box.offset, box.extent, memory.back().data()});
    }
    reports.push_back(write_rank(request, rank, num_ranks));
  }
  return commit_save(request, reports);
}

bool loads_exactly(const std::string& checkpoint, const std::vector<TestTensor>& model,
                   int64_t step, int num_ranks) {
  bool same = true;
  for (int rank = 0; rank < num_ranks; ++rank) {
    CheckpointReader reader(checkpoint);
    for (const TestTensor& spec : model) {
      const Box box = rank_box(spec, rank, num_ranks);
      const std::vector<char> expected = box_bytes(spec, box, step);
      if (expected.empty()) continue;
      std::vector<char> found(expected.size());
      reader.read({spec.name, spec.dtype, spec.shape, box.offset, box.extent, found.data()});
      same = same && found == expected;
    }
  }
  return same;
}

std::string error_of(const std::function<void()>& action, ExitCode expected) {
  try {
    action();
  } catch (const Error& error) {
    const std::string message = error.what();
    EXPECT_EQ(error.code(), expected) << message;
    EXPECT_EQ(message.find('\n'), std::string::npos) << message;
    EXPECT_FALSE(message.empty());
    return message;
  }
  return "";
}

std::string read_bytes(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return std::string(std::istreambuf_iterator<char>(file), {});
}

void write_bytes(const std::string& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary | std::ios::trunc) << bytes;
}

}  // namespace caravan::test
