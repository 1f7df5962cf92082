// Any bytes as a .npz or .npy and, so that changes reach them more often, as the header of a .npy
// alone and as a .npy that is stored in a good .npz, with the right checksum. What is accepted is
// read whole, in any order.
#include <unistd.h>
#include <zlib.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <string>
#include <vector>

#include "checkpoint/npz.h"
#include "tests/fuzz/expect.h"

namespace {

using namespace caravan;

constexpr int64_t kMostElements = 1 << 16;  // that are read: zeros deflate a thousandfold

// A file in memory, removed at the end.
class File {
 public:
  File() : path_("/dev/shm/caravan-npz-fuzz-" + std::to_string(::getpid())) {}
  ~File() { std::filesystem::remove(path_); }
  File(const File&) = delete;
  File& operator=(const File&) = delete;

  const std::string& path() const { return path_; }
  void write(const std::string& bytes) const {
    std::FILE* file = std::fopen(path_.c_str(), "wb");
    fuzz::expect(file != nullptr, "a file in /dev/shm", path_);
    fuzz::expect(std::fwrite(bytes.data(), 1, bytes.size(), file) == bytes.size(), "space", path_);
    std::fclose(file);
  }

 private:
  std::string path_;
};

void check_header(const std::string& bytes) {
  NpyArray array;
  const auto size = static_cast<int64_t>(bytes.size());
  const auto parse = [&] { array = parse_npy_header(bytes, size, "header"); };
  if (!fuzz::succeeds(ExitCode::checkpoint, parse)) return;
  fuzz::expect(array.num_elements >= 0 && array.data_offset <= size, "sizes in range");
  fuzz::expect(array.num_elements * size_bytes(array.type) == size - array.data_offset,
               "all of it");
}

void check_floats(NpzFile& file, const std::string& name, int64_t count) {
  std::vector<float> all(static_cast<size_t>(count));
  if (!fuzz::succeeds(ExitCode::checkpoint, [&] { file.read_floats(name, 0, all); })) return;
  for (const int64_t first : {count / 2, int64_t{0}, count / 3}) {
    std::vector<float> part(static_cast<size_t>(count - first) / 2);
    file.read_floats(name, first, part);
    const bool same = std::equal(part.begin(), part.end(), all.begin() + first,
                                 [](float a, float b) { return a == b || (a != a && b != b); });
    fuzz::expect(same, "the same again");
  }
}

void check_array(NpzFile& file, const std::string& name) {
  if (!file.has(name)) return;
  NpyArray array;
  if (!fuzz::succeeds(ExitCode::checkpoint, [&] { array = file.header(name); })) return;
  if (array.num_elements > kMostElements) return;
  check_floats(file, name, array.num_elements);
  std::vector<int64_t> integers;
  if (fuzz::succeeds(ExitCode::checkpoint, [&] { integers = file.read_integers(name); })) {
    fuzz::expect(std::ssize(integers) == array.num_elements, "all elements");
  }
}

void check_file(const File& on_disk) {
  std::unique_ptr<NpzFile> file;
  const auto open = [&] { file = std::make_unique<NpzFile>(on_disk.path()); };
  if (!fuzz::succeeds(ExitCode::checkpoint, open)) return;
  check_array(*file, "a");
  check_array(*file, "input_ids");
  check_array(*file, std::filesystem::path(on_disk.path()).stem().string());
}

void put(std::string& bytes, uint64_t number, int num_bytes) {
  for (; num_bytes > 0; --num_bytes, number >>= 8) bytes += static_cast<char>(number & 255);
}

// The fields that a header in place and one in the directory have in common.
std::string common(const std::string& content) {
  std::string bytes;
  put(bytes, 20, 2);         // version needed
  put(bytes, 0, 2 + 2 + 4);  // flags, stored, time and date
  put(bytes,
      ::crc32(0, reinterpret_cast<const Bytef*>(content.data()), static_cast<uInt>(content.size())),
      4);
  put(bytes, content.size(), 4);
  put(bytes, content.size(), 4);
  put(bytes, 5, 2);  // of the name
  put(bytes, 0, 2);  // of what follows it
  return bytes;
}

std::string zip_of(const std::string& content) {
  std::string bytes = "PK\x03\x04" + common(content) + "a.npy" + content;
  const size_t directory = bytes.size();
  bytes += "PK\x01\x02";
  put(bytes, 20, 2);
  bytes += common(content);
  put(bytes, 0, 2 + 2 + 2 + 4 + 4);
  bytes += "a.npy";
  const size_t end = bytes.size();
  bytes += "PK\x05\x06";
  put(bytes, 0, 4);
  put(bytes, 1, 2);
  put(bytes, 1, 2);
  put(bytes, end - directory, 4);
  put(bytes, directory, 4);
  put(bytes, 0, 2);
  return bytes;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const File file;
  const std::string bytes(reinterpret_cast<const char*>(data), size);
  check_header(bytes);
  file.write(bytes);
  check_file(file);
  file.write(zip_of(bytes));
  check_file(file);
  return 0;
}
