// Safetensors: values that are converted, and files that are written.
#include "checkpoint/safetensors_writer.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <limits>

#include "checkpoint/safetensors_values.h"
#include "tests/checkpoint/safetensors_support.h"

namespace caravan::test {
namespace {

namespace fs = std::filesystem;

// Every half, against arithmetic in double.
TEST(SafetensorsValues, HalvesAreExact) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const auto half = static_cast<uint16_t>(bits);
    char bytes[2];
    std::memcpy(bytes, &half, 2);
    float value = 0;
    widen(SafetensorsDType::f16, bytes, 1, &value);
    const int exponent = static_cast<int>(bits >> 10 & 31),
              fraction = static_cast<int>(bits & 1023);
    ASSERT_EQ(std::signbit(value), (bits & 0x8000) != 0);
    if (exponent == 31) {
      ASSERT_EQ(std::isnan(value), fraction != 0);
      ASSERT_EQ(std::isinf(value), fraction == 0);
      continue;
    }
    const double expected =
        exponent == 0 ? std::ldexp(fraction, -24) : std::ldexp(1024 + fraction, exponent - 25);
    ASSERT_EQ(std::abs(static_cast<double>(value)), expected) << bits;
  }
}

TEST(SafetensorsValues, RoundsToNearestEven) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float infinity = std::numeric_limits<float>::infinity();
  const auto word = [](float value) {
    uint16_t bits = 0;
    narrow(std::span(&value, 1), SafetensorsDType::bf16, reinterpret_cast<char*>(&bits));
    return bits;
  };
  EXPECT_EQ(word(1.0f), 0x3F80);
  EXPECT_EQ(word(1.0f + 0x1p-8f), 0x3F80);             // half way, to even
  EXPECT_EQ(word(1.0f + 3 * 0x1p-8f), 0x3F82);         // half way, to even
  EXPECT_EQ(word(1.0f + 0x1p-8f + 0x1p-20f), 0x3F81);  // above half way
  EXPECT_EQ(word(-infinity), 0xFF80);
  EXPECT_EQ(word(std::numeric_limits<float>::max()), 0x7F80);
  EXPECT_GT(word(nan) & 0x7FFF, 0x7F80);
  EXPECT_GT(word(std::bit_cast<float>(0x7F800001)) & 0x7FFF, 0x7F80);  // its payload is cut off
}

SafetensorsPlan small_plan(int64_t max_shard_bytes) {
  return plan_safetensors({{"c", SafetensorsDType::f32, {2, 2}},
                           {"b", SafetensorsDType::bf16, {3}},
                           {"a", SafetensorsDType::f32, {}},
                           {"none", SafetensorsDType::f32, {0, 4}}},
                          max_shard_bytes);
}

void write_plan(const std::string& folder, const SafetensorsPlan& plan) {
  for (const SafetensorsShard& shard : plan.shards) {
    SafetensorsWriter writer(folder, shard);
    for (const SafetensorsTensor& tensor : shard.tensors) {
      for (int64_t i = 0; i < num_elements(tensor.shape); ++i) {
        const float value = static_cast<float>(tensor.name[0]) + static_cast<float>(i) / 4;
        writer.append(tensor.name, std::span(&value, 1));
      }
    }
    writer.finish();
  }
  if (!plan.index.empty()) write_bytes(folder + "/" + kSafetensorsIndexName, plan.index);
}

TEST(SafetensorsWriter, WritesWhatIsRead) {
  for (const int64_t max_shard_bytes : {1000, 17, 1}) {
    const TemporaryFolder folder;
    const SafetensorsPlan plan = small_plan(max_shard_bytes);
    EXPECT_EQ(plan.total_bytes, 4 + 6 + 16);
    write_plan(folder.path(), plan);
    SafetensorsFolder tensors(folder.path());
    EXPECT_EQ(tensors.names(), (std::vector<std::string>{"a", "b", "c", "none"}));
    EXPECT_EQ(box_of(tensors, "a", {{}, {}}), std::vector<float>{97});
    EXPECT_EQ(box_of(tensors, "b", {{0}, {3}}), (std::vector<float>{98, 98, 98.5}));
    EXPECT_EQ(box_of(tensors, "c", {{1, 0}, {1, 2}}), (std::vector<float>{99.5, 99.75}));
  }
}

TEST(SafetensorsWriter, HasTheseBytes) {
  const TemporaryFolder folder;
  write_plan(folder.path(), small_plan(1000));
  const std::string header = R"({"__metadata__":{"format":"pt"},)"
                             R"("a":{"dtype":"F32","shape":[],"data_offsets":[0,4]},)"
                             R"("c":{"dtype":"F32","shape":[2,2],"data_offsets":[4,20]},)"
                             R"("none":{"dtype":"F32","shape":[0,4],"data_offsets":[20,20]},)"
                             R"("b":{"dtype":"BF16","shape":[3],"data_offsets":[20,26]}})";
  const std::string bytes = read_bytes(folder / kSafetensorsName);
  EXPECT_EQ(bytes.substr(8, header.size()), header);
  const size_t padded = (header.size() + 7) / 8 * 8;
  EXPECT_EQ(bytes.substr(0, 8), length_of(padded));
  EXPECT_EQ(bytes.size(), 8 + padded + 26);
  EXPECT_EQ(bytes.substr(8 + header.size(), padded - header.size()),
            std::string(padded - header.size(), ' '));
}

TEST(SafetensorsWriter, DealsTensorsIntoShards) {
  const SafetensorsPlan plan = small_plan(17);
  ASSERT_EQ(plan.shards.size(), 2u);
  EXPECT_EQ(plan.shards[0].file, "model-00001-of-00002.safetensors");
  EXPECT_EQ(plan.shards[0].data_bytes, 10);
  EXPECT_EQ(plan.shards[1].data_bytes, 16);
  EXPECT_EQ(plan.index,
            "{\n  \"metadata\": {\n    \"total_size\": 26\n  },\n  \"weight_map\": {\n"
            "    \"a\": \"model-00001-of-00002.safetensors\",\n"
            "    \"b\": \"model-00001-of-00002.safetensors\",\n"
            "    \"c\": \"model-00002-of-00002.safetensors\",\n"
            "    \"none\": \"model-00002-of-00002.safetensors\"\n  }\n}\n");
  EXPECT_EQ(small_plan(1).shards.size(), 4u);  // one for each
  EXPECT_EQ(plan_safetensors({}, 1).shards.size(), 1u);
}

// A model of hundreds of shards must not use up the descriptors of a process.
TEST(SafetensorsWriter, ShardsAreNotAllKeptOpen) {
  const TemporaryFolder folder;
  std::vector<SafetensorsSpec> specs;
  for (int i = 0; i < 50; ++i)
    specs.push_back({"t" + std::to_string(i), SafetensorsDType::f32, {}});
  write_plan(folder.path(), plan_safetensors(specs, 1));
  const auto num_open = [] {
    return std::distance(fs::directory_iterator("/proc/self/fd"), fs::directory_iterator());
  };
  const auto before = num_open();
  SafetensorsFolder tensors(folder.path());
  EXPECT_EQ(num_open(), before);
  auto most = before;
  for (int i = 0; i < 100; ++i) {
    const std::string name = "t" + std::to_string(i * 7 % 50);
    EXPECT_EQ(box_of(tensors, name, {{}, {}}), std::vector<float>{'t'});
    most = std::max(most, num_open());
  }
  EXPECT_EQ(most, before + 16);
}

TEST(SafetensorsWriter, LeavesNoHalfFiles) {
  const TemporaryFolder folder;
  const SafetensorsPlan plan = small_plan(1000);
  const std::vector<float> values(5, 1.0f);
  const auto broken = [&](const auto& steps) {
    return error_of(
        [&] {
          SafetensorsWriter writer(folder.path(), plan.shards[0]);
          steps(writer);
        },
        ExitCode::internal);
  };
  expect_part(broken([](auto& writer) { writer.finish(); }), "'a' is not whole");
  expect_part(broken([&](auto& writer) { writer.append("b", values); }), "'b' is not the tensor");
  expect_part(broken([&](auto& writer) { writer.append("a", values); }), "too many values for 'a'");
  EXPECT_FALSE(fs::exists(folder / kSafetensorsName));
  write_bytes(folder / kSafetensorsName, "mine");
  expect_part(error_of([&] { SafetensorsWriter writer(folder.path(), plan.shards[0]); }),
              "cannot create: File exists");
  EXPECT_EQ(read_bytes(folder / kSafetensorsName), "mine");
}

}  // namespace
}  // namespace caravan::test
