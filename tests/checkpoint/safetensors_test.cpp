// Safetensors: headers and folders that lie, and boxes that are read. Writing is in
// safetensors_writer_test.cpp.
#include "checkpoint/safetensors.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>

#include "checkpoint/safetensors_writer.h"
#include "tests/checkpoint/safetensors_support.h"

namespace caravan::test {
namespace {

namespace fs = std::filesystem;

std::string file_of(const std::string& header, const std::string& data) {
  return length_of(header.size()) + header + data;
}

// The message about a header, for a file with so many bytes of data.
std::string header_error(const std::string& json, int64_t data_bytes) {
  return error_of([&] { parse_safetensors_header(json, data_bytes, "f.safetensors"); });
}

const char* const kGood = R"({"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]}})";

TEST(SafetensorsHeader, IsRead) {
  const auto tensors =
      parse_safetensors_header(R"({"__metadata__":{"format":"pt"},)"
                               R"("late":{"dtype":"BF16","shape":[],"data_offsets":[24,26]},)"
                               R"("none":{"dtype":"I64","shape":[3,0],"data_offsets":[24,24]},)"
                               R"("a":{"data_offsets":[0,24],"dtype":"F32","shape":[2,3]}}   )",
                               26, "f");
  ASSERT_EQ(tensors.size(), 3u);
  EXPECT_EQ(tensors[0], (SafetensorsTensor{"a", SafetensorsDType::f32, {2, 3}, 0, 24}));
  EXPECT_EQ(tensors[1], (SafetensorsTensor{"none", SafetensorsDType::i64, {3, 0}, 24, 24}));
  EXPECT_EQ(tensors[2], (SafetensorsTensor{"late", SafetensorsDType::bf16, {}, 24, 26}));
  EXPECT_TRUE(parse_safetensors_header("{}", 0, "f").empty());
}

struct BadHeader {
  const char* name;
  const char* json;
  int64_t data_bytes;
  const char* part;  // of the message
};

class SafetensorsBadHeader : public testing::TestWithParam<BadHeader> {};

TEST_P(SafetensorsBadHeader, IsRefused) {
  const std::string message = header_error(GetParam().json, GetParam().data_bytes);
  expect_part(message, "f.safetensors: ");
  expect_part(message, GetParam().part);
}

const BadHeader kBadHeaders[] = {
    {"empty", "", 0, "no JSON object"},
    {"space_first", " {}", 0, "no JSON object"},
    {"list", "[]", 0, "no JSON object"},
    {"cut_off", "{\"a\":", 0, "not valid JSON"},
    {"not_utf8", "{\"\xFF\":1}", 0, "not valid JSON"},
    {"two_values", "{}{}", 0, "not valid JSON"},
    {"deep", R"({"a":[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]})", 0, "not valid JSON"},
    {"hole", kGood, 25, "have 24 bytes, but the file has 25"},
    {"too_short", kGood, 23, "have 24 bytes, but the file has 23"},
    {"hole_before", R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})", 2,
     "begins at byte 1, but what is before it ends at 0"},
    {"overlap",
     R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},)"
     R"("b":{"dtype":"U8","shape":[4],"data_offsets":[2,6]}})",
     6, "begins at byte 2, but what is before it ends at 4"},
    {"empty_inside",
     R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},)"
     R"("b":{"dtype":"U8","shape":[0],"data_offsets":[2,2]}})",
     4, "begins at byte 2"},
    {"twice",
     R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
     R"("a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})",
     2, "'a' is there twice"},
    {"key_twice", R"({"a":{"dtype":"U8","dtype":"U8","shape":[1],"data_offsets":[0,1]}})", 1,
     "has the key 'dtype' twice"},
    {"unknown_key", R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1],"x":1}})", 1,
     "has the unknown key 'x'"},
    {"no_shape", R"({"a":{"dtype":"U8","data_offsets":[0,1]}})", 1,
     "tensor 'a': key 'shape' is absent"},
    {"no_object", R"({"a":[]})", 0, "tensor 'a' is not an object"},
    {"unknown_dtype", R"({"a":{"dtype":"F4","shape":[1],"data_offsets":[0,1]}})", 1,
     "tensor 'a': key 'dtype' is \"F4\"; it must be one of F64, F32"},
    {"number_as_dtype", R"({"a":{"dtype":4,"shape":[1],"data_offsets":[0,1]}})", 1,
     "key 'dtype' is 4; it must be text"},
    {"negative", R"({"a":{"dtype":"U8","shape":[-1],"data_offsets":[0,1]}})", 1, "integers from 0"},
    {"fraction", R"({"a":{"dtype":"U8","shape":[1.0],"data_offsets":[0,1]}})", 1,
     "integers from 0"},
    {"nine_dims", R"({"a":{"dtype":"U8","shape":[1,1,1,1,1,1,1,1,1],"data_offsets":[0,1]}})", 1,
     "at most 8 integers"},
    {"overflow", R"({"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}})", 0,
     "impossible shape"},
    {"overflow_of_bytes",
     R"({"a":{"dtype":"F32","shape":[4611686018427387904],"data_offsets":[0,0]}})", 0,
     "impossible shape"},
    {"overflow_beside_none",
     R"({"a":{"dtype":"F32","shape":[0,9223372036854775807,9],"data_offsets":[0,0]}})", 0,
     "impossible shape"},
    {"more_than_64_bits",
     R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,18446744073709551615]}})", 1,
     "integers from 0"},
    {"backwards", R"({"a":{"dtype":"U8","shape":[0],"data_offsets":[1,0]}})", 1,
     "must be [begin, end]"},
    {"three_offsets", R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1,1]}})", 1,
     "at most 2 integers"},
    {"one_offset", R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0]}})", 1,
     "must be [begin, end]"},
    {"other_size", R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,7]}})", 7,
     "has 7 bytes, but F32[2] has 8"},
    {"metadata_number", R"({"__metadata__":{"format":1}})", 0,
     "__metadata__: key 'format' is 1; it must be text"},
    {"metadata_list", R"({"__metadata__":[]})", 0, "__metadata__ is not an object"},
    {"metadata_twice", R"({"__metadata__":{},"__metadata__":{}})", 0, "there twice"},
    {"metadata_key_twice", R"({"__metadata__":{"x":"","x":""}})", 0, "'x' twice"},
    {"no_name", R"({"":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})", 1,
     "no name of a tensor"},
    {"line_in_name", R"({"a\nb":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})", 1,
     "'a?b' is no name of a tensor"},
};

INSTANTIATE_TEST_SUITE_P(All, SafetensorsBadHeader, testing::ValuesIn(kBadHeaders),
                         [](const auto& info) { return info.param.name; });

// A file with one tensor for each dtype that is read: "wide" (4, 5) F32, "brain" and "half" (3, 4).
struct Sample {
  TemporaryFolder folder;
  std::string path = folder / kSafetensorsName;

  Sample() {
    std::string data;
    for (int i = 0; i < 20; ++i) add(data, static_cast<float>(i) * 1.5f);
    for (int i = 0; i < 12; ++i) add(data, static_cast<uint16_t>(0x3F80 + i));  // bf16: 1 + i/128
    for (int i = 0; i < 12; ++i) add(data, static_cast<uint16_t>(0x3C00 + i));  // f16: 1 + i/1024
    const std::string header = R"({"wide":{"dtype":"F32","shape":[4,5],"data_offsets":[0,80]},)"
                               R"("brain":{"dtype":"BF16","shape":[3,4],"data_offsets":[80,104]},)"
                               R"("half":{"dtype":"F16","shape":[3,4],"data_offsets":[104,128]},)"
                               R"("whole":{"dtype":"I8","shape":[2],"data_offsets":[128,130]},)"
                               R"("none":{"dtype":"F32","shape":[2,0],"data_offsets":[130,130]},)"
                               R"("one":{"dtype":"F32","shape":[],"data_offsets":[130,134]}})";
    data += "xx";
    add(data, 7.0f);
    write_bytes(path, file_of(header, data));
  }
  template <typename T>
  static void add(std::string& data, T value) {
    data.append(reinterpret_cast<const char*>(&value), sizeof(value));
  }
};

TEST(SafetensorsFolder, ReadsBoxesAndNothingElse) {
  const Sample sample;
  SafetensorsFolder folder(sample.folder.path());
  EXPECT_EQ(box_of(folder, "wide", {{1, 2}, {2, 3}}),
            (std::vector<float>{10.5f, 12.0f, 13.5f, 18.0f, 19.5f, 21.0f}));
  EXPECT_EQ(folder.bytes_read(), 2 * 3 * 4);
  EXPECT_EQ(box_of(folder, "brain", {{1, 0}, {2, 4}})[7], 1.0f + 11.0f / 128);
  EXPECT_EQ(folder.bytes_read(), 24 + 2 * 4 * 2);
  EXPECT_EQ(box_of(folder, "half", {{0, 3}, {3, 1}}),
            (std::vector<float>{1.0f + 3.0f / 1024, 1.0f + 7.0f / 1024, 1.0f + 11.0f / 1024}));
  EXPECT_EQ(folder.bytes_read(), 24 + 16 + 6);
  EXPECT_EQ(box_of(folder, "one", {{}, {}}), std::vector<float>{7.0f});
  EXPECT_TRUE(box_of(folder, "none", {{0, 0}, {2, 0}}).empty());
  EXPECT_EQ(folder.bytes_read(), 50);
  EXPECT_EQ(folder.names(),
            (std::vector<std::string>{"brain", "half", "none", "one", "whole", "wide"}));
}

// Every box of a tensor of three dims, against the plain way.
TEST(SafetensorsFolder, ReadsEveryBox) {
  const TemporaryFolder folder;
  const Shape shape = {3, 4, 3};
  std::string data;
  for (int i = 0; i < 36; ++i) Sample::add(data, static_cast<uint16_t>(0x3F80 + i));
  write_bytes(folder / kSafetensorsName,
              file_of(R"({"t":{"dtype":"BF16","shape":[3,4,3],"data_offsets":[0,72]}})", data));
  SafetensorsFolder tensors(folder.path());
  const auto ranges_of = [](int64_t size) {
    std::vector<std::pair<int64_t, int64_t>> result;
    for (int64_t begin = 0; begin < size; ++begin) {
      for (int64_t count = 1; begin + count <= size; ++count) result.emplace_back(begin, count);
    }
    return result;
  };
  for (const auto& [a, num_a] : ranges_of(3)) {
    for (const auto& [b, num_b] : ranges_of(4)) {
      for (const auto& [c, num_c] : ranges_of(3)) {
        std::vector<float> expected;
        for (int64_t i = 0; i < num_a * num_b * num_c; ++i) {
          const int64_t element =
              ((a + i / (num_b * num_c)) * 4 + b + i / num_c % num_b) * 3 + c + i % num_c;
          expected.push_back(1.0f + static_cast<float>(element) / 128);
        }
        ASSERT_EQ(box_of(tensors, "t", {{a, b, c}, {num_a, num_b, num_c}}), expected);
      }
    }
  }
}

// Larger than the buffer, so that pieces must join.
TEST(SafetensorsFolder, ReadsTensorsLargerThanItsBuffer) {
  const TemporaryFolder folder;
  const int64_t count = 1'500'001;
  const SafetensorsPlan plan =
      plan_safetensors({{"t", SafetensorsDType::bf16, {count}}}, int64_t{1} << 30);
  std::vector<float> values(static_cast<size_t>(count));
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i % 251);
  SafetensorsWriter writer(folder.path(), plan.shards[0]);
  writer.append("t", values);
  writer.finish();
  SafetensorsFolder tensors(folder.path());
  EXPECT_EQ(box_of(tensors, "t", {{0}, {count}}), values);
  EXPECT_EQ(tensors.bytes_read(), count * 2);
}

TEST(SafetensorsFolder, RefusesWhatIsNoWeight) {
  const Sample sample;
  SafetensorsFolder folder(sample.folder.path());
  float value = 0;
  expect_part(error_of([&] {
                folder.read("whole", {{0}, {1}}, &value);
              }),
              "tensor 'whole' is I8, which is not read; save the model in");
  expect_part(error_of([&] { folder.read("absent", {{0}, {1}}, &value); }), "no tensor 'absent'");
}

TEST(SafetensorsFolder, SeesAFileThatWasCutOff) {
  const Sample sample;
  SafetensorsFolder cut_before(sample.folder.path()), cut_while(sample.folder.path());
  box_of(cut_while, "wide", {{0, 0}, {4, 5}});
  fs::resize_file(sample.path, fs::file_size(sample.path) - 8);
  expect_part(error_of([&] { box_of(cut_before, "wide", {{0, 0}, {4, 5}}); }), "another size");
  expect_part(error_of([&] { box_of(cut_while, "one", {{}, {}}); }), "became shorter");
}

TEST(SafetensorsFile, RefusesWrongLengths) {
  const TemporaryFolder folder;
  const std::string path = folder / "f.safetensors";
  const auto error = [&](const std::string& bytes) {
    write_bytes(path, bytes);
    return error_of([&] { SafetensorsFile file(path); });
  };
  expect_part(error(""), "less than 8 bytes");
  expect_part(error("1234567"), "less than 8 bytes");
  expect_part(error(length_of(3) + "{}"), "said to have 3 bytes, but 2 follow");
  expect_part(error(length_of(UINT64_MAX) + "{}"), "18446744073709551615 bytes");
  expect_part(error(length_of(uint64_t{1} << 63) + "{}"), "9223372036854775808 bytes");
  EXPECT_EQ(error(file_of("{}", "")), "");
  // A file with a hole that is long enough: only the limit refuses it.
  write_bytes(path, length_of(100'000'001));
  fs::resize_file(path, 100'000'100);
  expect_part(error_of([&] { SafetensorsFile file(path); }), "100000000 are allowed");
}

// Two shards: "a" and "b", of four bytes each.
struct Shards {
  TemporaryFolder folder;

  Shards() {
    shard("one.safetensors", "a");
    shard("two.safetensors", "b");
    index(R"("a":"one.safetensors","b":"two.safetensors")");
  }
  void shard(const std::string& file, const std::string& tensor) const {
    write_bytes(
        folder / file,
        file_of("{\"" + tensor + R"(":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", "abcd"));
  }
  void index(const std::string& map, const std::string& metadata = R"({"total_size":8})") const {
    write_bytes(folder / kSafetensorsIndexName,
                "{\"metadata\":" + metadata + ",\"weight_map\":{" + map + "}}");
  }
  std::string error() const {
    return error_of([&] { SafetensorsFolder tensors(folder.path()); });
  }
};

TEST(SafetensorsFolder, JoinsShards) {
  const Shards shards;
  SafetensorsFolder tensors(shards.folder.path());
  EXPECT_EQ(tensors.names(), (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(box_of(tensors, "a", {{0}, {1}}), box_of(tensors, "b", {{0}, {1}}));
  shards.index(R"("a":"one.safetensors","b":"two.safetensors")", R"({"total_size":8.0,"x":1})");
  EXPECT_EQ(shards.error(), "");
  shards.index(R"("a":"one.safetensors","b":"two.safetensors")", "{}");
  EXPECT_EQ(shards.error(), "");
}

TEST(SafetensorsFolder, RefusesShardsThatDisagree) {
  const Shards shards;
  fs::remove(shards.folder / "two.safetensors");
  expect_part(shards.error(), "has no file 'two.safetensors'");
  shards.shard("two.safetensors", "a");
  expect_part(shards.error(), "tensor 'a' is also in ");
  shards.shard("two.safetensors", "c");
  expect_part(shards.error(), "tensor 'c' is in ");
  shards.shard("two.safetensors", "b");
  shards.index(R"("a":"two.safetensors","b":"one.safetensors")");
  expect_part(shards.error(), "which its weight_map does not say");
  shards.index(R"("a":"one.safetensors","b":"two.safetensors","c":"two.safetensors")");
  expect_part(shards.error(), "tensor 'c' is not in two.safetensors");
  shards.index(R"("a":"one.safetensors","b":"two.safetensors")", "[8]");
  expect_part(shards.error(), "key 'metadata' is [8]; it must be an object");
  shards.index(R"("a":"one.safetensors","b":"two.safetensors")", R"({"total_size":9})");
  EXPECT_EQ(shards.error(), "");  // tied tensors counted twice
}

TEST(SafetensorsFolder, RefusesIndexesThatAreNone) {
  const Shards shards;
  const auto error = [&](const std::string& text) {
    write_bytes(shards.folder / kSafetensorsIndexName, text);
    return shards.error();
  };
  expect_part(error(""), "not valid JSON");
  expect_part(error("[]"), "is not an object");
  expect_part(error("{}"), "has no weight_map");
  expect_part(error(R"({"weight_map":[]})"), "key 'weight_map' is []; it must be an object");
  expect_part(error(R"({"weight_map":{"a":1}})"), "no file for 'a'");
  expect_part(error(R"({"weight_map":{"a":"x","a":"x"}})"), "has the key 'a' twice");
  expect_part(error(R"({"weight_map":{},"weight_map":{}})"), "has the key 'weight_map' twice");
  expect_part(error(R"({"weight_map":{},"extra":{}})"), "unknown key 'extra'");
  fs::remove(shards.folder / kSafetensorsIndexName);
  expect_part(shards.error(), "has neither model.safetensors nor");
}

// A file outside is named in every way that an index has; none is opened, as its content, which is
// no safetensors file, would be complained about.
TEST(SafetensorsFolder, LeavesNoFolder) {
  const Shards shards;
  const TemporaryFolder outside;
  write_bytes(outside / "secret", "secret");
  fs::create_directory(shards.folder / "below");
  write_bytes(shards.folder / "below/file", "secret");
  const auto error = [&](const std::string& file) {
    shards.index("\"a\":\"" + file + "\"");
    const std::string message = shards.error();
    EXPECT_EQ(message.find("no safetensors file"), std::string::npos) << message;
    return message;
  };
  const std::string up = "../" + fs::path(outside.path()).filename().string() + "/secret";
  for (const std::string& file :
       {up, outside / "secret", std::string("below/file"), std::string("below/../one.safetensors"),
        std::string(".."), std::string(""), std::string("."), std::string("a\\u0000b"),
        std::string(300, 'x')}) {
    expect_part(error(file), "no plain name of a file");
  }
  fs::create_symlink(outside / "secret", shards.folder / "link");
  expect_part(error("link"), "link to a file outside");
  fs::create_symlink(up, shards.folder / "relative");
  expect_part(error("relative"), "link to a file outside");
  fs::create_symlink("link", shards.folder / "twice");
  expect_part(error("twice"), "link to a file outside");
  fs::create_symlink("nowhere", shards.folder / "broken");
  expect_part(error("broken"), "link to what is not there");
  fs::create_symlink("loop", shards.folder / "loop");
  expect_part(error("loop"), "link to what is not there");
  fs::create_directory_symlink(outside.path(), shards.folder / "folder");
  expect_part(error("folder"), "link to a file outside");
  ASSERT_EQ(::mkfifo((shards.folder / "pipe").c_str(), 0600), 0);
  expect_part(error("pipe"), "not a regular file");
  expect_part(error("below"), "not a regular file");
}

}  // namespace
}  // namespace caravan::test
