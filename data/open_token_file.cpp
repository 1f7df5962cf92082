// Which kind of token file a path is. See token_file.h.
#include <array>
#include <filesystem>
#include <string_view>

#include "data/bin_token_file.h"
#include "data/hdf5_token_file.h"
#include "data/megatron_token_file.h"
#include "data/token_file.h"
#include "runtime/error.h"

namespace caravan {
namespace {

constexpr std::string_view kHdf5Signature = "\x89HDF\r\n\x1a\n";

bool begins_with(const ReadableFile& file, std::string_view signature) {
  std::array<char, 8> begin{};
  if (file.size_bytes() < std::ssize(begin)) return false;
  file.read(0, std::ssize(begin), begin.data());
  return std::string_view(begin.data(), begin.size()) == signature;
}

std::unique_ptr<TokenFile> open_kind(const std::string& path, const GivenVocabulary& given) {
  const ReadableFile bytes(path, ExitCode::data, Links::followed);
  // By its name too: what is wrong with a damaged one is best said by its reader.
  if (path.ends_with(".h5") || begins_with(bytes, kHdf5Signature)) {
    auto file = std::make_unique<Hdf5TokenFile>(path);
    check_given(*file, given);
    return file;
  }
  const std::string index = index_path(path);
  if (!index.empty() && std::filesystem::exists(index)) {
    return std::make_unique<MegatronTokenFile>(path, given);
  }
  if (!index.empty() || has_llmc_magic(bytes)) return std::make_unique<BinTokenFile>(path, given);
  throw data_error(path +
                   ": is not a token file: neither HDF5 made by 'caravan data build', nor a .bin "
                   "of llm.c or nanoGPT, nor a .bin with its .idx of Megatron-LM");
}

}  // namespace

std::unique_ptr<TokenFile> open_token_file(const std::string& path, const std::string& split,
                                           const GivenVocabulary& given) {
  return open_kind(token_file_path(path, split), given);
}

}  // namespace caravan
