// The HDF5 wrapper: what it writes it reads, and hostile files are refused. The hostile ones are
// made in hostile_hdf5.cpp.
#include "data/hdf5_file.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <numeric>

#include "runtime/rng.h"
#include "tests/data/hostile_hdf5.h"
#include "tests/support/temporary_folder.h"

// HDF5 1.10 itself leaks what it had read when it refuses a damaged file; read by LeakSanitizer.
extern "C" const char* __lsan_default_suppressions();
extern "C" const char* __lsan_default_suppressions() { return "leak:libhdf5"; }

namespace caravan {
namespace {

namespace fs = std::filesystem;

class Hdf5File : public testing::Test {
 protected:
  std::string path(const std::string& name = "file.h5") const { return folder_ / name; }

  // A valid file with a few datasets and attributes.
  void write_example() const {
    Hdf5Writer writer(path(), ExitCode::data);
    writer.write_vector<uint16_t>("tokens", tokens());
    writer.create("group/matrix", Hdf5Type::f32, {3, 4});
    const std::vector<float> rows(12, 1.5f);
    writer.write<float>("group/matrix", 0, rows);
    writer.write_attribute("", "vocabulary", int64_t{32000});
    writer.write_attribute("tokens", "source", std::string("docs"));
    writer.close();
  }
  static std::vector<uint16_t> tokens() {
    std::vector<uint16_t> result(5000);
    std::iota(result.begin(), result.end(), uint16_t{1});
    return result;
  }

  // The message of the data error with which the file is refused; "" when it is accepted.
  std::string refusal() const {
    try {
      const Hdf5Reader reader(path(), ExitCode::data);
    } catch (const Error& error) {
      const std::string message = error.what();
      EXPECT_EQ(error.code(), ExitCode::data);
      EXPECT_EQ(message.find(path()), 0u) << message;
      EXPECT_EQ(message.find('\n'), std::string::npos) << message;
      return message;
    }
    return "";
  }
  void expect_refused(const std::string& part) const {
    const std::string message = refusal();
    EXPECT_NE(message.find(part), std::string::npos) << "'" << message << "' lacks " << part;
  }

  TemporaryFolder folder_;
};

template <typename T>
void expect_round_trip(const std::string& path) {
  std::vector<T> elements(777);
  for (size_t i = 0; i < elements.size(); ++i) elements[i] = static_cast<T>(i * 331);
  Hdf5Writer writer(path, ExitCode::data);
  writer.write_vector<T>("x", elements);
  writer.close();
  const Hdf5Reader reader(path, ExitCode::data);
  EXPECT_EQ(reader.dataset("x").type, hdf5_type<T>());
  EXPECT_EQ(reader.read_vector<T>("x"), elements);
}

// The file system refuses all that the library writes; the process still ends as it wants to.
TEST(Hdf5DeathTest, AFullDiskIsAnErrorAndNoCrash) {
  const TemporaryFolder folder;
  const auto write = [&] {
    try {
      Hdf5Writer writer(folder / "file.h5", ExitCode::checkpoint);
      writer.create("weights", Hdf5Type::f32, {1 << 20});
      ::signal(SIGXFSZ, SIG_IGN);
      const rlimit none{};
      ::setrlimit(RLIMIT_FSIZE, &none);
      writer.write<float>("weights", 0, std::vector<float>(1 << 20));
    } catch (const Error& error) {
      std::fputs(error.what(), stderr);
      std::exit(static_cast<int>(error.code()));
    }
    std::exit(0);
  };
  EXPECT_EXIT(write(), testing::ExitedWithCode(4), "");  // the limit holds for messages as well
}

TEST_F(Hdf5File, EveryTypeComesBack) {
  expect_round_trip<uint8_t>(path("1"));
  expect_round_trip<uint16_t>(path("2"));
  expect_round_trip<uint32_t>(path("3"));
  expect_round_trip<int32_t>(path("4"));
  expect_round_trip<int64_t>(path("5"));
  expect_round_trip<float>(path("6"));
  expect_round_trip<double>(path("7"));
}

TEST_F(Hdf5File, PiecesShapesAndAttributes) {
  const std::vector<int64_t> all = {10, 11, 12, 13, 14, 15};
  {
    Hdf5Writer writer(path(), ExitCode::data);
    writer.create("a/b/x", Hdf5Type::i64, {2, 3});
    writer.write("a/b/x", 4, std::span<const int64_t>(all).subspan(4));
    writer.write("a/b/x", 0, std::span<const int64_t>(all).first(4));
    writer.create("empty", Hdf5Type::f32, {0, 7});
    writer.create("scalar", Hdf5Type::f64, {});
    const double value = 2.25;
    writer.write("scalar", 0, 1, &value);
    writer.write_attribute("", "integer", int64_t{-7});
    writer.write_attribute("", "real", 0.1);
    writer.write_attribute("a/b/x", "text", std::string(100000, 'y'));
    writer.write_attribute("a/b/x", "empty", std::string());
    writer.close();
  }
  const Hdf5Reader reader(path(), ExitCode::data);
  EXPECT_EQ(reader.datasets().size(), 3u);
  EXPECT_EQ(reader.dataset("a/b/x").shape, (Shape{2, 3}));
  EXPECT_EQ(reader.read_vector<int64_t>("a/b/x"), all);
  std::vector<int64_t> middle(2);
  reader.read<int64_t>("a/b/x", 3, middle);
  EXPECT_EQ(middle, (std::vector<int64_t>{13, 14}));
  EXPECT_TRUE(reader.read_vector<float>("empty").empty());
  EXPECT_EQ(reader.read_vector<double>("scalar"), std::vector<double>{2.25});
  EXPECT_EQ(reader.attribute_int("", "integer"), -7);
  EXPECT_EQ(reader.attribute_double("", "real"), 0.1);
  EXPECT_EQ(reader.attribute_string("a/b/x", "text"), std::string(100000, 'y'));
  EXPECT_EQ(reader.attribute_string("a/b/x", "empty"), "");
  EXPECT_FALSE(reader.has_attribute("", "text"));
}

// The promise that callers may map the file.
TEST_F(Hdf5File, OffsetsAreAlignedAndPointAtTheElements) {
  write_example();
  const Hdf5Reader reader(path(), ExitCode::data);
  std::ifstream file(path(), std::ios::binary);
  for (const auto& [name, dataset] : reader.datasets()) {
    EXPECT_EQ(dataset.offset_bytes % 4096, 0) << name;
  }
  file.seekg(reader.dataset("tokens").offset_bytes);
  std::vector<uint16_t> found(5000);
  file.read(reinterpret_cast<char*>(found.data()), 10000);
  EXPECT_EQ(found, tokens());
}

TEST_F(Hdf5File, MistakesOfCallersAreNamed) {
  write_example();
  const Hdf5Reader reader(path(), ExitCode::checkpoint);
  const auto message = [](const std::function<void()>& action, ExitCode code) -> std::string {
    try {
      action();
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), code);
      return error.what();
    }
    return "";
  };
  EXPECT_EQ(message([&] { reader.dataset("nope"); }, ExitCode::checkpoint),
            path() + ": has no dataset 'nope'");
  EXPECT_EQ(message([&] { reader.read_vector<float>("tokens"); }, ExitCode::checkpoint),
            path() + ": 'tokens': holds u16 where f32 is expected");
  EXPECT_EQ(message([&] { reader.attribute_int("tokens", "source"); }, ExitCode::checkpoint),
            path() + ": 'tokens': attribute 'source' is not an integer");
  uint16_t token = 0;
  EXPECT_NE(message([&] { reader.read("tokens", 5000, 1, &token); }, ExitCode::internal), "");
  EXPECT_NE(message([&] { reader.read("tokens", -1, 1, &token); }, ExitCode::internal), "");
  EXPECT_EQ(message([&] { Hdf5Writer(path(), ExitCode::data); }, ExitCode::data),
            path() + ": cannot create the file: File exists (errno 17)");
  const std::string missing = path("missing/file.h5");
  EXPECT_EQ(message([&] { Hdf5Reader(missing, ExitCode::data); }, ExitCode::data),
            missing + ": cannot open the file: No such file or directory (errno 2)");
}

TEST_F(Hdf5File, RefusesWhatIsNoFile) {
  fs::create_directory(path());
  expect_refused("not a regular file");
  fs::remove(path());
  ASSERT_EQ(::mkfifo(path().c_str(), 0600), 0);
  expect_refused("not a regular file");
  fs::remove(path());
  std::ofstream(path()) << "";
  expect_refused("no signature");
  std::ofstream(path()) << std::string(500, 'x');
  expect_refused("no signature");
}

TEST_F(Hdf5File, RefusesUnfinishedFiles) {
  {
    Hdf5Writer writer(path(), ExitCode::data);
    writer.write_vector<uint16_t>("tokens", tokens());
    // What a kill at this moment would leave.
    fs::copy_file(path(), path("killed.h5"));
    writer.close();
  }
  EXPECT_EQ(refusal(), "");
  fs::rename(path("killed.h5"), path());
  EXPECT_NE(refusal(), "");
}

TEST_F(Hdf5File, RefusesEveryHostileClass) {
  for (const test::HostileHdf5& hostile : test::hostile_hdf5_files()) {
    hostile.make(path());
    const std::string message = refusal();
    EXPECT_NE(message.find(hostile.refusal), std::string::npos)
        << hostile.name << ": '" << message << "' lacks " << hostile.refusal;
  }
}

// Truncations are all refused; a flipped bit is refused or changes elements, but never crashes,
// never moves a dataset and never changes an attribute.
TEST_F(Hdf5File, DamageIsRefusedOrStaysInTheElements) {
  write_example();
  std::ifstream file(path(), std::ios::binary);
  const std::string good(std::istreambuf_iterator<char>(file), {});
  // CARAVAN_SOAK=1: 60,000 flips.
  const bool is_soak = std::getenv("CARAVAN_SOAK") != nullptr;
  const RandomStream random(4, RandomPurpose::test, 0);
  for (uint64_t i = 0; i < 100; ++i) {
    std::ofstream(path(), std::ios::binary | std::ios::trunc)
        << good.substr(0, random.bits(i) % good.size());
    EXPECT_NE(refusal(), "");
  }
  for (uint64_t i = 0; i < (is_soak ? 60000 : 1500); ++i) {
    std::string bad = good;
    const size_t at = random.bits(1000 + i) % bad.size();
    bad[at] = static_cast<char>(bad[at] ^ (1 << i % 8));
    std::ofstream(path(), std::ios::binary | std::ios::trunc) << bad;
    try {
      const Hdf5Reader reader(path(), ExitCode::data);
      EXPECT_EQ(reader.datasets().size(), 2u);
      EXPECT_EQ(reader.dataset("group/matrix").shape, (Shape{3, 4}));
      EXPECT_EQ(reader.dataset("tokens").num_elements, 5000);
      EXPECT_EQ(reader.attribute_int("", "vocabulary"), 32000);
      EXPECT_EQ(reader.attribute_string("tokens", "source"), "docs");
      reader.read_vector<uint16_t>("tokens");
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::data) << error.what();
    }
  }
}

}  // namespace
}  // namespace caravan
