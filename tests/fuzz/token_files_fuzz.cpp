// Any bytes as the token files of other programs: a .bin of nanoGPT or llm.c, and a .bin with the
// .idx of Megatron. The first byte of an input says which, the next two how many bytes are the
// .idx; the vocabulary is large enough for all ids of 16 bits. What is accepted is read whole.
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <string>
#include <vector>

#include "data/bin_token_file.h"
#include "data/megatron_token_file.h"
#include "tests/fuzz/expect.h"

namespace {

using namespace caravan;

// Two files in memory, removed at the end.
class Files {
 public:
  Files() : prefix_("/dev/shm/caravan-token-files-fuzz-" + std::to_string(::getpid())) {}
  ~Files() {
    std::filesystem::remove(bin());
    std::filesystem::remove(idx());
  }
  Files(const Files&) = delete;
  Files& operator=(const Files&) = delete;

  std::string bin() const { return prefix_ + ".bin"; }
  std::string idx() const { return prefix_ + ".idx"; }

  static void write(const std::string& path, const std::string& bytes) {
    std::FILE* file = std::fopen(path.c_str(), "wb");
    fuzz::expect(file != nullptr, "a file in /dev/shm", path);
    fuzz::expect(std::fwrite(bytes.data(), 1, bytes.size(), file) == bytes.size(), "space", path);
    std::fclose(file);
  }

 private:
  std::string prefix_;
};

void check_documents(const TokenFile& file) {
  if (!file.num_documents()) return;
  int64_t previous = 0;
  for (int64_t d = 0; d <= *file.num_documents(); ++d) {
    const int64_t begin = file.document_begin(d);
    fuzz::expect(begin >= previous && begin <= file.num_tokens(), "documents rise");
    previous = begin;
  }
  fuzz::expect(file.document_begin(0) == 0 && previous == file.num_tokens(), "from end to end");
}

// Tokens may be outside the vocabulary, which is an error of its own when they are read.
void check_tokens(const TokenFile& file) {
  std::vector<int32_t> tokens(static_cast<size_t>(file.num_tokens()), -1);
  if (!fuzz::succeeds(ExitCode::data, [&] { file.read(0, tokens); })) return;
  for (const int32_t token : tokens) {
    fuzz::expect(token >= 0 && token < file.vocabulary().size, "a token of the vocabulary");
  }
  if (tokens.size() < 3) return;
  std::vector<int32_t> middle(tokens.size() - 2);
  file.read(1, middle);
  fuzz::expect(std::equal(middle.begin(), middle.end(), tokens.begin() + 1), "the same again");
}

template <typename File>
void check_file(const std::string& path) {
  const GivenVocabulary given{.size = 65536, .bos_id = {}, .eos_id = 2, .tokenizer_hash = {}};
  std::unique_ptr<File> file;
  const auto open = [&] { file = std::make_unique<File>(path, given); };
  if (!fuzz::succeeds(ExitCode::data, open)) return;
  check_documents(*file);
  check_tokens(*file);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const Files files;
  const std::string bytes(reinterpret_cast<const char*>(data), size);
  if (size < 3) return 0;
  if (bytes[0] % 2 == 0) {
    Files::write(files.bin(), bytes.substr(3));
    check_file<BinTokenFile>(files.bin());
    return 0;
  }
  const size_t wanted = static_cast<size_t>(data[1]) | static_cast<size_t>(data[2]) << 8;
  const size_t index_bytes = std::min(wanted, size - 3);
  Files::write(files.idx(), bytes.substr(3, index_bytes));
  Files::write(files.bin(), bytes.substr(3 + index_bytes));
  check_file<MegatronTokenFile>(files.bin());
  return 0;
}
