#include "checkpoint/manifest.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "checkpoint/crc32c.h"
#include "runtime/rng.h"
#include "tests/checkpoint/support.h"

namespace caravan::test {
namespace {

Manifest example() {
  Manifest manifest{.header = header_of_step(5), .files = {}, .tensors = {}};
  manifest.files = {{"rank-00000-of-00002.h5", 9000, 0x1234}, {"rank-00001-of-00002.h5", 8500, 7}};
  manifest.tensors = {{"a/w",
                       DType::f32,
                       {4, 6},
                       {{{{0, 0}, {3, 6}}, "rank-00000-of-00002.h5", 4096, {0xDEADBEEF}},
                        {{{3, 0}, {1, 6}}, "rank-00001-of-00002.h5", 4096, {1}}}},
                      {"b", DType::bf16, {}, {{{{}, {}}, "rank-00000-of-00002.h5", 8192, {3}}}}};
  return manifest;
}

// A text whose checksum is right, so that only the content is wrong.
std::string with_checksum(std::string text) {
  const std::string body = text.substr(0, text.rfind("\"crc32c\": "));
  return body + "\"crc32c\": \"" + crc32c_hex(crc32c(body.data(), body.size())) + "\"\n}\n";
}

std::string replaced(const std::string& what, const std::string& by) {
  std::string text = encode(example());
  const size_t at = text.find(what);
  EXPECT_NE(at, std::string::npos) << what;
  return with_checksum(text.replace(at, what.size(), by));
}

std::string decode_error(const std::string& text) {
  return error_of([&] { decode_manifest(text, "m.json"); });
}

std::string validate_error(const std::function<void(Manifest&)>& change) {
  Manifest manifest = example();
  change(manifest);
  return decode_error(encode(manifest));
}

TEST(Manifest, RoundTrip) {
  Manifest manifest = example();
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  manifest.header.scalars = {{"tenth", 0.1},
                             {"tiny", 5e-324},
                             {"minus zero", -0.0},
                             {"three", 3.0},
                             {"top", kInfinity},
                             {"bottom", -kInfinity},
                             {"max", std::numeric_limits<double>::max()}};
  manifest.header.counters = {{"min", std::numeric_limits<int64_t>::min()},
                              {"max", std::numeric_limits<int64_t>::max()}};
  manifest.header.texts = {{"yaml", "a: \"b\"\n# \xC3\xA9\t\x01"}};
  const Manifest back = decode_manifest(encode(manifest), "m.json");
  EXPECT_EQ(back, manifest);
  EXPECT_TRUE(std::signbit(back.header.scalars.at("minus zero")));
  EXPECT_EQ(encode(back), encode(manifest));
}

TEST(Manifest, NotANumberComesBack) {
  Manifest manifest = example();
  manifest.header.scalars = {{"loss", std::nan("")}};
  const Manifest back = decode_manifest(encode(manifest), "m.json");
  EXPECT_TRUE(std::isnan(back.header.scalars.at("loss")));
}

TEST(Manifest, EveryByteIsCovered) {
  const std::string good = encode(example());
  const RandomStream random(1, RandomPurpose::test, 0);
  for (size_t i = 0; i < good.size(); ++i) {
    std::string bad = good;
    bad[i] = static_cast<char>(bad[i] ^ (1 << random.bits(i) % 8));
    EXPECT_NE(decode_error(bad), "") << "byte " << i;
    EXPECT_NE(decode_error(good.substr(0, i)), "") << "cut to " << i;
  }
  EXPECT_NE(decode_error(good + " "), "");
}

TEST(Manifest, FieldsAreNamed) {
  const auto names = [](const std::string& message, const std::string& part) {
    return message.find(part) != std::string::npos ? "" : message + " lacks " + part;
  };
  EXPECT_EQ(names(decode_error(replaced("\"step\": 5", "\"stop\": 5")),
                  "'step' is absent; it must be an integer"),
            "");
  EXPECT_EQ(names(decode_error(replaced("\"step\": 5", "\"step\": \"5\"")),
                  "'step' is \"5\"; it must be an integer"),
            "");
  EXPECT_EQ(names(decode_error(replaced("\"format\": 2", "\"format\": 1")), "'format' is 1"), "");
  EXPECT_EQ(names(decode_error(replaced("\"dtype\": \"f32\"", "\"dtype\": \"f31\"")),
                  "'tensors[0].dtype' is \"f31\"; it must be"),
            "");
  EXPECT_EQ(names(decode_error(replaced("\"deadbeef\"", "\"DEADBEEF\"")),
                  "'tensors[0].shards[0].crc32c'"),
            "");
  EXPECT_EQ(names(decode_error(replaced("\"loss\": 2.5", "\"loss\": null")),
                  "'scalars' has null at 'loss'"),
            "");
  EXPECT_EQ(names(decode_error(replaced("\"dp\": 2", "\"dp\": 2.5")), "'layout' has 2.5 at 'dp'"),
            "");
  EXPECT_EQ(names(decode_error(with_checksum("[1,\n\"crc32c\": ")), "not valid JSON"), "");
  EXPECT_EQ(names(decode_error(""), "truncated"), "");
}

TEST(Manifest, ContentIsValidated) {
  const auto expect = [](const std::function<void(Manifest&)>& change, const std::string& part) {
    const std::string message = validate_error(change);
    EXPECT_NE(message.find(part), std::string::npos) << message << " lacks " << part;
  };
  expect([](Manifest& m) { m.header.step = -1; }, "step");
  expect([](Manifest& m) { m.header.run_id = "../up"; }, "run_id");
  expect([](Manifest& m) { m.files[0].name = "../rank.h5"; }, "files");
  expect([](Manifest& m) { m.files[1] = m.files[0]; }, "listed twice");
  expect([](Manifest& m) { m.tensors[1].name = "a/w"; }, "tensor a/w: listed twice");
  expect([](Manifest& m) { m.tensors[0].name = "a/../w"; }, "not one of a tensor");
  expect([](Manifest& m) { m.tensors[0].shards.pop_back(); }, "6 of 24 elements are in no shard");
  expect([](Manifest& m) { m.tensors[0].shards[1].box.offset[0] = 2; }, "overlap");
  expect([](Manifest& m) { m.tensors[0].shards[1].box.extent[0] = 2; }, "leaves the shape");
  expect([](Manifest& m) { m.tensors[0].shards[1].box.offset = {3}; }, "leaves the shape");
  expect([](Manifest& m) { m.tensors[0].shards[0].file = "other.h5"; }, "unlisted file other.h5");
  expect([](Manifest& m) { m.tensors[0].shards[0].offset_bytes = -1; }, "offset_bytes");
  expect([](Manifest& m) { m.tensors[0].shards[0].offset_bytes = INT64_MAX; }, "offset_bytes");
  expect([](Manifest& m) { m.tensors[0].shards[0].crc32c.clear(); }, "0 checksums, not 1");
  expect([](Manifest& m) { m.tensors[0].shards[0].crc32c.push_back(1); }, "2 checksums, not 1");
  expect([](Manifest& m) { m.tensors[0].shards[0].offset_bytes = 8990; }, "beyond the end");
  expect([](Manifest& m) { m.tensors[1].shards[0].offset_bytes = 4100; }, "overlaps another one");
  expect([](Manifest& m) { m.tensors[0].shape = {INT64_MAX, INT64_MAX}; }, "impossible shape");
  expect([](Manifest& m) { m.tensors[0].shape = Shape(9, 1); }, "impossible shape");
  expect([](Manifest& m) { m.tensors[1].shards.push_back(m.tensors[1].shards[0]); }, "overlap");
}

TEST(Manifest, SumsOfSizesDoNotOverflow) {
  const std::string message = validate_error([](Manifest& manifest) {
    for (const char* name : {"x", "y"}) {
      manifest.files.push_back({name, std::numeric_limits<int64_t>::max() - 20'000, 0});
    }
  });
  EXPECT_EQ(message, "m.json: file y: impossible size_bytes");
}

// 65,536 shards side by side: comparing all pairs would take minutes.
TEST(Manifest, ManyShardsAlongAnyDimAreValidatedSoon) {
  for (const size_t dim : {0, 1, 2}) {
    Manifest manifest{.header = header_of_step(5), .files = {{"f", 4 << 16, 0}}, .tensors = {}};
    Shape shape = {1, 1, 1};
    shape[dim] = 1 << 16;
    TensorRecord tensor{"t", DType::f32, shape, {}};
    for (int64_t i = 0; i < 1 << 16; ++i) {
      Box box{{0, 0, 0}, {1, 1, 1}};
      box.offset[dim] = i;
      tensor.shards.push_back({box, "f", 4 * i, {0}});
    }
    manifest.tensors = {tensor};
    EXPECT_NO_THROW(validate(manifest, "m.json"));
    manifest.tensors[0].shards[7].box.offset[dim] = 8;
    const std::string message = error_of([&] { validate(manifest, "m.json"); });
    EXPECT_NE(message.find("overlap"), std::string::npos) << message;
  }
}

TEST(Manifest, RankReportRoundTrip) {
  RankReport report{.error = "", .file = example().files[0], .tensors = {example().tensors[1]}};
  const RankReport back = decode_rank_report(encode(report), "rank 0");
  EXPECT_EQ(back.file, report.file);
  EXPECT_EQ(back.tensors, report.tensors);
  report.error = "/disk/\xFF: No space left on device (errno 28)";
  EXPECT_NE(decode_rank_report(encode(report), "rank 0").error.find("errno 28"), std::string::npos);
  EXPECT_NE(error_of([] { decode_rank_report("{", "rank 4"); }).find("rank 4"), std::string::npos);
}

}  // namespace
}  // namespace caravan::test
