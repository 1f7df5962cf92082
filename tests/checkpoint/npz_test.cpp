// Arrays from NumPy's files. The golden ones are of tests/golden/make_arrays.py; hostile ones are
// made here with libzip, or byte by byte.
#include "checkpoint/npz.h"

#include <gtest/gtest.h>
#include <zip.h>

#include <cmath>
#include <limits>

#include "tests/checkpoint/support.h"

namespace caravan::test {
namespace {

constexpr int64_t kTokens = 6;
constexpr int64_t kVocabulary = 500;

std::string golden(const std::string& name) {
  return std::string(CARAVAN_SOURCE_DIR) + "/tests/golden/arrays/" + name;
}

float golden_logit(int64_t element) {
  return static_cast<float>(element / kVocabulary) -
         static_cast<float>(element % kVocabulary) / 8.0f;
}

void expect_contains(const std::string& message, const std::vector<std::string>& parts) {
  for (const std::string& part : parts) {
    EXPECT_NE(message.find(part), std::string::npos) << "'" << part << "' is not in: " << message;
  }
}

// A .npy of `data_bytes` zeros behind a header of this dictionary.
std::string npy(const std::string& dictionary, size_t data_bytes, int version = 1) {
  std::string bytes = "\x93NUMPY";
  bytes += static_cast<char>(version);
  bytes += '\0';
  for (int i = 0; i < (version == 1 ? 2 : 4); ++i) {
    bytes += static_cast<char>(dictionary.size() >> (8 * i) & 255);
  }
  return bytes + dictionary + std::string(data_bytes, '\0');
}

const std::string kSix = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }  \n";

struct ZipEntry {
  std::string name;
  std::string content;
  int method = ZIP_CM_STORE;
};

void write_zip(const std::string& path, const std::vector<ZipEntry>& entries) {
  zip_t* zip = zip_open(path.c_str(), ZIP_CREATE | ZIP_TRUNCATE, nullptr);
  for (const ZipEntry& entry : entries) {
    zip_source_t* source = zip_source_buffer(zip, entry.content.data(), entry.content.size(), 0);
    const zip_int64_t index = zip_file_add(zip, entry.name.c_str(), source, 0);
    ASSERT_GE(index, 0);
    zip_set_file_compression(zip, static_cast<zip_uint64_t>(index), entry.method, 0);
  }
  ASSERT_EQ(zip_close(zip), 0);
}

class NpzGolden : public testing::TestWithParam<const char*> {};

TEST_P(NpzGolden, FloatsOfEveryType) {
  NpzFile file(golden(GetParam()));
  for (const char* array : {"logits", "logits16", "logits64"}) {
    EXPECT_EQ(file.header(array).shape, (Shape{kTokens, kVocabulary}));
    EXPECT_FALSE(file.header(array).fortran_order);
    std::vector<float> row(static_cast<size_t>(kVocabulary));
    // In order, then back and ahead.
    for (const int64_t t : {0, 1, 2, 3, 4, 5, 2, 5, 0}) {
      file.read_floats(array, t * kVocabulary, row);
      for (int64_t v = 0; v < kVocabulary; ++v) {
        ASSERT_EQ(row[static_cast<size_t>(v)], golden_logit(t * kVocabulary + v)) << array;
      }
    }
    std::vector<float> all(static_cast<size_t>(kTokens * kVocabulary));
    file.read_floats(array, 0, all);
    EXPECT_EQ(all.back(), golden_logit(kTokens * kVocabulary - 1));
  }
  EXPECT_EQ(file.header("logits16").type, NpyType::f16);
  EXPECT_EQ(file.header("scalar").shape, Shape{});
  float scalar = 0;
  file.read_floats("scalar", 0, {&scalar, 1});
  EXPECT_EQ(scalar, 2.5f);
  EXPECT_EQ(file.header("empty").num_elements, 0);
  file.read_floats("empty", 0, {});
}

TEST_P(NpzGolden, Integers) {
  NpzFile file(golden(GetParam()));
  const std::vector<int64_t> expected = {-7, 99993, 199993, 299993, 399993, 499993};
  EXPECT_EQ(file.read_integers("input_ids"), expected);
  EXPECT_EQ(file.read_integers("input_ids32"), expected);
  EXPECT_TRUE(file.has("input_ids"));
  EXPECT_FALSE(file.has("input_ids.npy"));
}

TEST_P(NpzGolden, WhatIsNotReadIsRefusedByName) {
  NpzFile file(golden(GetParam()));
  float value = 0;
  const std::string path = golden(GetParam());
  expect_contains(error_of([&] { file.header("absent"); }), {path, "absent"});
  expect_contains(error_of([&] { file.header("bytes"); }), {path, "bytes", "another type"});
  expect_contains(error_of([&] { file.header("swapped"); }), {path, "swapped", "big-endian"});
  EXPECT_TRUE(file.header("transposed").fortran_order);
  expect_contains(error_of([&] {
                    file.read_floats("transposed", 0, {&value, 1});
                  }),
                  {path, "transposed", "Fortran"});
  expect_contains(error_of([&] {
                    file.read_floats("input_ids", 0, {&value, 1});
                  }),
                  {path, "input_ids", "i64"});
  expect_contains(error_of([&] { file.read_integers("logits"); }), {path, "logits", "f32"});
}

INSTANTIATE_TEST_SUITE_P(Zip, NpzGolden, testing::Values("stored.npz", "deflated.npz"),
                         [](const auto& info) { return std::string(info.param).substr(0, 6); });

TEST(Npz, PlainArrayOfHalves) {
  NpzFile file(golden("special16.npy"));
  ASSERT_TRUE(file.has("special16"));
  std::vector<float> values(8);
  file.read_floats("special16", 0, values);
  EXPECT_EQ(values[0], std::numeric_limits<float>::infinity());
  EXPECT_EQ(values[1], -std::numeric_limits<float>::infinity());
  EXPECT_TRUE(std::isnan(values[2]));
  EXPECT_TRUE(values[3] == 0 && std::signbit(values[3]));
  EXPECT_EQ(values[4], 65504.0f);
  EXPECT_EQ(values[5], std::ldexp(1.0f, -24));
  EXPECT_EQ(values[6], -std::ldexp(1.0f, -14));
  EXPECT_EQ(values[7], std::ldexp(1023.0f, -24));
}

TEST(Npz, PickledObjectsAndRecordsAreRefused) {
  NpzFile objects(golden("objects.npy"));
  expect_contains(error_of([&] { objects.header("objects"); }),
                  {"objects.npy", "Python objects", "run code"});
  NpzFile record(golden("record.npy"));
  expect_contains(error_of([&] { record.header("record"); }), {"record.npy", "several types"});
}

TEST(NpyHeader, ReadsTheFormsOfNumpy) {
  const auto shape = [](const std::string& bytes) {
    return parse_npy_header(bytes, std::ssize(bytes), "a.npy").shape;
  };
  EXPECT_EQ(shape(npy(kSix, 24)), (Shape{2, 3}));
  EXPECT_EQ(shape(npy(kSix, 24, 2)), (Shape{2, 3}));
  EXPECT_EQ(shape(npy(kSix, 24, 3)), (Shape{2, 3}));
  EXPECT_EQ(shape(npy("{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }", 8)), Shape{2});
  EXPECT_EQ(shape(npy("{'shape':(),\"descr\":'<i8','fortran_order':True}", 8)), Shape{});
}

TEST(NpyHeader, AnythingElseIsRefused) {
  const auto refused = [](const std::string& bytes, const std::vector<std::string>& words) {
    const auto parse = [&] { parse_npy_header(bytes, std::ssize(bytes), "a.npy"); };
    const std::string message = error_of(parse);
    EXPECT_EQ(message.find("a.npy: "), 0u) << message;
    expect_contains(message, words);
  };
  const std::string good = npy(kSix, 24);
  for (size_t size = 0; size < good.size(); ++size) refused(good.substr(0, size), {"npy"});
  refused(good + "x", {"bytes that follow"});
  for (const int version : {0, 4, 255}) refused(npy(kSix, 24, version), {"format"});
  const auto header = [&](const std::string& text) {
    refused(npy(text, 24), {"header of a .npy"});
  };
  header("");
  header("{}");
  header("{'descr': '<f4', 'fortran_order': False, }");
  header("{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': (6,), }");
  header("{'descr': '<f4', 'fortran_order': False, 'shape': (6,), 'x': 1}");
  header("{'descr': '<f4', 'fortran_order': 0, 'shape': (6,), }");
  header("{'descr': '<f4' 'fortran_order': False, 'shape': (6,), }");
  header("{'descr': '<f4', 'fortran_order': False, 'shape': (6), }");
  header("{'descr': '<f4', 'fortran_order': False, 'shape': (6 1), }");
  header("{'descr': '<f4', 'fortran_order': False, 'shape': [6], }");
  header("{'descr': '<f4', 'fortran_order': False, 'shape': (-6,), }");
  header("{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999,), }");
  header("{'descr': '<f4', 'fortran_order': False, 'shape': (2*3,), }");
  header("{'descr': '<f\\x34', 'fortran_order': False, 'shape': (6,), }");
  header("{'descr': '<f4', 'fortran_order': False, 'shape': (6,), } + open('x')");
  header("{'descr': '<f4', 'fortran_order': False, 'shape': (6,), ");
  std::string dims;
  for (int i = 0; i < 33; ++i) dims += "1, ";
  header("{'descr': '<f4', 'fortran_order': False, 'shape': (" + dims + "), }");
  const auto size = [&](const std::string& shape) {
    refused(npy("{'descr': '<f4', 'fortran_order': False, 'shape': " + shape + ", }", 24),
            {"bytes that follow"});
  };
  size("(7,)");
  size("(5,)");
  size("(0,)");
  size("(4611686018427387904, 4)");  // 2^64 elements
  size("(2305843009213693952, 4)");
  size("(4611686018427387910,)");  // 24 bytes modulo 2^64
  refused(npy("{'descr': '|O', 'fortran_order': False, 'shape': (3,), }", 24), {"run code"});
  refused(npy("{'descr': '<u2', 'fortran_order': False, 'shape': (12,), }", 24), {"another type"});
  refused(npy(kSix + std::string(kLargestNpyHeader, ' '), 24), {"does not fit"});
}

class HostileNpz : public testing::Test {
 protected:
  std::string refusal(const std::string& array = "a") {
    return error_of([&] {
      NpzFile file(path_);
      std::vector<float> values(static_cast<size_t>(file.header(array).num_elements));
      file.read_floats(array, 0, values);
    });
  }

  TemporaryFolder folder_;
  std::string path_ = folder_ / "a.npz";
};

TEST_F(HostileNpz, EveryTruncationIsRefused) {
  for (const int method : {ZIP_CM_STORE, ZIP_CM_DEFLATE}) {
    write_zip(path_, {{"a.npy", npy(kSix, 24), method}});
    const std::string bytes = read_bytes(path_);
    EXPECT_EQ(refusal(), "");
    for (size_t size = 0; size < bytes.size(); ++size) {
      write_bytes(path_, bytes.substr(0, size));
      expect_contains(refusal(), {path_});
    }
  }
}

// Every byte in turn made another: either nothing of the array is given out, or all of it is right.
TEST_F(HostileNpz, NoChangedByteOfTheDataPasses) {
  write_zip(path_, {{"a.npy", npy(kSix, 24), ZIP_CM_STORE}});
  const std::string bytes = read_bytes(path_);
  for (size_t at = 0; at < bytes.size(); ++at) {
    std::string changed = bytes;
    changed[at] = static_cast<char>(changed[at] ^ 0x20);
    write_bytes(path_, changed);
    try {
      NpzFile file(path_);
      if (!file.has("a")) continue;
      std::vector<float> values(6, 1.0f);
      if (file.header("a").num_elements != 6) continue;
      file.read_floats("a", 0, values);
      EXPECT_EQ(values, std::vector<float>(6, 0.0f)) << "byte " << at;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::checkpoint) << error.what();
    }
  }
}

// More than is read at a time: the checksum is of all of it.
TEST_F(HostileNpz, ALargeArrayReadInOrderHasItsChecksumCompared) {
  const std::string header = "{'descr': '<f4', 'fortran_order': False, 'shape': (40000,), }";
  for (const int method : {ZIP_CM_STORE, ZIP_CM_DEFLATE}) {
    write_zip(path_, {{"a.npy", npy(header, 160000), method}});
    const auto read_rows = [&] {
      NpzFile file(path_);
      std::vector<float> row(100);
      for (int64_t first = 0; first < 40000; first += 100) file.read_floats("a", first, row);
    };
    EXPECT_EQ(error_of(read_rows), "");
    std::string bytes = read_bytes(path_);
    bytes[method == ZIP_CM_STORE ? 100000 : bytes.find("PK\x01\x02") + 16] ^= 1;
    write_bytes(path_, bytes);
    expect_contains(error_of(read_rows), {path_, "CRC"});
  }
}

TEST_F(HostileNpz, AnArrayMustBeAsLargeAsItsEntry) {
  write_zip(path_, {{"a.npy", npy(kSix, 23)}});
  expect_contains(refusal(), {path_, "array a", "bytes that follow"});
  write_zip(path_, {{"a.npy", npy(kSix, 25), ZIP_CM_DEFLATE}});
  expect_contains(refusal(), {path_, "array a", "bytes that follow"});
  write_zip(path_, {{"a.npy", "not an array"}});
  expect_contains(refusal(), {path_, "array a", ".npy"});
}

// The size that an entry claims, in the central directory and its own header, made enormous.
TEST_F(HostileNpz, AnEntryThatInflatesTooFarIsRefused) {
  write_zip(path_, {{"a.npy", npy(kSix, 24), ZIP_CM_DEFLATE}});
  std::string bytes = read_bytes(path_);
  const auto enlarge = [&](const char* signature, size_t offset) {
    const size_t header = bytes.find(signature);
    ASSERT_NE(header, std::string::npos);
    bytes.replace(header + offset, 4, "\xf0\xff\xff\x7f");
  };
  enlarge("PK\x01\x02", 24);
  enlarge("PK\x03\x04", 22);
  write_bytes(path_, bytes);
  expect_contains(refusal(), {path_, "entry 0", "2147483632"});
}

TEST_F(HostileNpz, OtherFilesAreRefused) {
  write_bytes(path_, "");
  expect_contains(refusal(), {path_, ".npz"});
  write_bytes(path_, std::string(1000, 'x'));
  expect_contains(refusal(), {path_, ".npz"});
  write_zip(path_, {{"a.npy", npy(kSix, 24), ZIP_CM_BZIP2}});
  expect_contains(refusal(), {path_, "deflate"});
  write_zip(path_, {{"a.txt", "x"}});
  expect_contains(refusal(), {path_, "no array a"});
  expect_contains(error_of([&] { NpzFile file(folder_.path()); }), {folder_.path()});
  expect_contains(error_of([&] { NpzFile file(folder_ / "none.npz"); }), {"none.npz"});
}

TEST_F(HostileNpz, TwoEntriesOfOneNameAreRefused) {
  write_zip(path_, {{"a.npy", npy(kSix, 24)}, {"b.npy", npy(kSix, 24)}});
  std::string bytes = read_bytes(path_);
  for (size_t at; (at = bytes.find("b.npy")) != std::string::npos;) bytes[at] = 'a';
  write_bytes(path_, bytes);
  expect_contains(refusal(), {path_, "entry 1"});
}

}  // namespace
}  // namespace caravan::test
