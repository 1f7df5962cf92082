// Any bytes as a header of a safetensors file, as a whole file, and as the index of a folder; the
// first byte of the input says which: h, f or i. What is refused is refused with one line; what is
// accepted holds together, can be read, and says the same again when it is written anew.
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>

#include "checkpoint/safetensors.h"
#include "tests/fuzz/expect.h"
#include "tests/support/temporary_folder.h"

namespace {

using namespace caravan;
using fuzz::expect;

constexpr ExitCode kError = ExitCode::checkpoint;

void write_file(const std::string& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary | std::ios::trunc) << bytes;
}

std::string with_length(const std::string& header) {
  std::string bytes;
  for (size_t i = 0; i < 8; ++i) bytes += static_cast<char>(header.size() >> 8 * i & 0xFF);
  return bytes + header;
}

// What a folder holds beside the index that is tried.
class Folder {
 public:
  Folder() {
    for (const char* name : {"a", "b"}) {
      const std::string header =
          std::string("{\"") + name + R"(":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})";
      write_file(folder_ / (std::string(name) + ".safetensors"), with_length(header) + "1234");
    }
  }
  const std::string& path() const { return folder_.path(); }
  std::string operator/(const std::string& name) const { return folder_ / name; }

 private:
  TemporaryFolder folder_{"/dev/shm"};  // in memory, where there is that
};

// The largest number in a text: with as much data a header is accepted if it can be.
int64_t largest_number(const std::string& text) {
  int64_t largest = 0, number = 0;
  for (const char c : text) {
    const bool is_digit = c >= '0' && c <= '9';
    number = is_digit && number < INT64_MAX / 10 - 1 ? number * 10 + (c - '0') : 0;
    largest = std::max(largest, number);
  }
  return largest;
}

void check_tensors(const std::vector<SafetensorsTensor>& tensors, int64_t data_bytes) {
  int64_t end = 0;
  nlohmann::ordered_json json = nlohmann::ordered_json::object();
  for (const SafetensorsTensor& tensor : tensors) {
    expect(tensor.begin == end, "no hole and no overlap", tensor.name);
    end = tensor.end;
    expect(num_elements(tensor.shape) * size_bytes(tensor.dtype) == end - tensor.begin,
           "as many bytes as elements need", tensor.name);
    json[tensor.name] = {{"dtype", name(tensor.dtype)},
                         {"shape", tensor.shape},
                         {"data_offsets", {tensor.begin, tensor.end}}};
  }
  expect(end == data_bytes, "all bytes are of tensors");
  expect(json.size() == tensors.size(), "every name once");
  expect(parse_safetensors_header(json.dump(), data_bytes, "again") == tensors, "the same again",
         json.dump());
}

void try_header(const std::string& json) {
  for (const int64_t data_bytes : {largest_number(json), int64_t{0}}) {
    std::vector<SafetensorsTensor> tensors;
    const auto parse = [&] { tensors = parse_safetensors_header(json, data_bytes, "header"); };
    if (fuzz::succeeds(kError, parse)) check_tensors(tensors, data_bytes);
  }
}

void try_file(const Folder& folder, const std::string& bytes) {
  write_file(folder / "file", bytes);
  fuzz::succeeds(kError, [&] {
    SafetensorsFile file(folder / "file");
    check_tensors(file.tensors(), file.data_bytes());
    std::vector<char> buffer(64);
    for (const SafetensorsTensor& tensor : file.tensors()) {
      std::vector<float> values(static_cast<size_t>(num_elements(tensor.shape)));
      const Box whole{Shape(tensor.shape.size(), 0), tensor.shape};
      const int64_t read = file.read(tensor, whole, buffer, values.data());
      expect(read == tensor.end - tensor.begin, "all of it is read", tensor.name);
    }
  });
}

void try_index(const Folder& folder, const std::string& json) {
  SafetensorsIndex index;
  const auto parse = [&] { index = parse_safetensors_index(json, "index"); };
  if (fuzz::succeeds(kError, parse)) {
    const nlohmann::json again = {{"weight_map", index.files}};
    const SafetensorsIndex same = parse_safetensors_index(again.dump(), "again");
    expect(same.files == index.files, "the same again");
  }
  write_file(folder / kSafetensorsIndexName, json);
  fuzz::succeeds(kError, [&] {
    SafetensorsFolder tensors(folder.path());
    expect(tensors.names().size() <= 2, "no others than those of the folder", json);
    for (const std::string& name : tensors.names()) {
      float value = 0;
      tensors.read(name, {{0}, {1}}, &value);
    }
  });
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const Folder folder;
  if (size == 0) return 0;
  const std::string rest(reinterpret_cast<const char*>(data) + 1, size - 1);
  if (data[0] == 'h') try_header(rest);
  if (data[0] == 'f') try_file(folder, rest);
  if (data[0] == 'i') try_index(folder, rest);
  return 0;
}
