#include "data/hdf5_token_file.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <vector>

#include "data/durable_file.h"

namespace caravan {
namespace {

constexpr int64_t kFormatVersion = 1;
constexpr size_t kCopyBytes = size_t{1} << 20;
constexpr int64_t kOffsetsAtOnce = 1 << 16;
constexpr char kTokens[] = "tokens";
constexpr char kOffsets[] = "document_offsets";

Hdf5Type token_type(int32_t vocab_size) {
  return vocab_size <= 65536 ? Hdf5Type::u16 : Hdf5Type::u32;
}

// Turns u16 into i32 in place; the u16 lie in the upper half of the buffer, so that reading stays
// ahead of writing. memcpy, because the two types share the bytes.
void widen(std::span<int32_t> tokens) {
  const char* source = reinterpret_cast<const char*>(tokens.data()) + tokens.size() * 2;
  for (size_t i = 0; i < tokens.size(); ++i) {
    uint16_t narrow;
    std::memcpy(&narrow, source + 2 * i, sizeof(narrow));
    tokens[i] = narrow;
  }
}

}  // namespace

// A plain file that becomes a dataset at the end.
class TokenFileWriter::Staging {
 public:
  explicit Staging(std::string path) : path_(std::move(path)) {
    file_ = std::fopen(path_.c_str(), "w+b");
    if (file_ == nullptr) fail("create");
  }
  ~Staging() {
    std::fclose(file_);
    std::remove(path_.c_str());
  }
  Staging(const Staging&) = delete;
  Staging& operator=(const Staging&) = delete;

  void put(const void* element, size_t size) {
    if (std::fwrite(element, 1, size, file_) != size) fail("write");
  }

  void copy_to(Hdf5Writer& writer, const std::string& dataset, Hdf5Type type, int64_t count) {
    writer.create(dataset, type, {count});
    if (std::fflush(file_) != 0 || std::fseek(file_, 0, SEEK_SET) != 0) fail("write");
    const auto element_bytes = static_cast<size_t>(size_bytes(type));
    std::vector<char> buffer(kCopyBytes);
    for (int64_t done = 0; done < count;) {
      const size_t wanted = std::min(static_cast<size_t>(count - done), kCopyBytes / element_bytes);
      if (std::fread(buffer.data(), element_bytes, wanted, file_) != wanted) fail("read back");
      writer.write(dataset, done, static_cast<int64_t>(wanted), buffer.data());
      done += static_cast<int64_t>(wanted);
    }
  }

 private:
  [[noreturn]] void fail(const char* what) const {
    throw data_error(absl::StrFormat("%s: cannot %s: %s", path_, what, std::strerror(errno)));
  }

  std::string path_;
  std::FILE* file_ = nullptr;
};

TokenFileWriter::TokenFileWriter(const std::string& path, const TokenVocabulary& vocabulary)
    : path_(path), vocabulary_(vocabulary), type_(token_type(vocabulary.size)) {
  check(vocabulary.eos_id >= 0 && vocabulary.eos_id < vocabulary.size &&
            vocabulary.bos_id < vocabulary.size && vocabulary.bos_id != vocabulary.eos_id,
        "token file: bos %d, eos %d of a vocabulary of %d", vocabulary.bos_id, vocabulary.eos_id,
        vocabulary.size);
  tokens_ = std::make_unique<Staging>(path + ".tokens.tmp");
  offsets_ = std::make_unique<Staging>(path + ".offsets.tmp");
  offsets_->put(&num_tokens_, sizeof(num_tokens_));
}

TokenFileWriter::~TokenFileWriter() = default;

void TokenFileWriter::put(int32_t token) {
  if (type_ == Hdf5Type::u16) {
    const auto narrow = static_cast<uint16_t>(token);
    tokens_->put(&narrow, sizeof(narrow));
  } else {
    tokens_->put(&token, sizeof(token));
  }
  ++num_tokens_;
}

void TokenFileWriter::append(std::span<const int32_t> tokens) {
  check(tokens_ != nullptr, "token file: append after close");
  for (const int32_t token : tokens) {
    check(token >= 0 && token < vocabulary_.size && token != vocabulary_.eos_id,
          "token file: token %d in a document; vocabulary of %d, eos %d", token, vocabulary_.size,
          vocabulary_.eos_id);
  }
  if (vocabulary_.bos_id >= 0) put(vocabulary_.bos_id);
  for (const int32_t token : tokens) put(token);
  put(vocabulary_.eos_id);
  offsets_->put(&num_tokens_, sizeof(num_tokens_));
  ++num_documents_;
}

void TokenFileWriter::close() {
  check(tokens_ != nullptr, "token file: closed twice");
  const std::string temporary = path_ + ".tmp";
  std::remove(temporary.c_str());
  Hdf5Writer writer(temporary, ExitCode::data);
  tokens_->copy_to(writer, kTokens, type_, num_tokens_);
  offsets_->copy_to(writer, kOffsets, Hdf5Type::i64, num_documents_ + 1);
  writer.write_attribute("", "format_version", kFormatVersion);
  writer.write_attribute("", "vocab_size", int64_t{vocabulary_.size});
  writer.write_attribute("", "bos_id", int64_t{vocabulary_.bos_id});
  writer.write_attribute("", "eos_id", int64_t{vocabulary_.eos_id});
  writer.write_attribute("", "num_documents", num_documents_);
  writer.write_attribute("", "token_dtype", std::string(name(type_)));
  writer.write_attribute("", "tokenizer_hash", vocabulary_.tokenizer_hash);
  writer.close();
  tokens_.reset();
  offsets_.reset();
  rename_durably(temporary, path_, ExitCode::data);
}

Hdf5TokenFile::Hdf5TokenFile(const std::string& path) : reader_(path, ExitCode::data) {
  if (!reader_.has_dataset(kTokens) || !reader_.has_dataset(kOffsets)) {
    throw data_error(path + ": is not a token file: make one with 'caravan data build'");
  }
  const int64_t version = reader_.attribute_int("", "format_version");
  if (version != kFormatVersion) {
    throw data_error(
        absl::StrFormat("%s: format version %d; this program reads version %d: build "
                        "the data again with 'caravan data build'",
                        path, version, kFormatVersion));
  }
  const auto id = [&](const char* name) {
    return static_cast<int32_t>(
        std::clamp<int64_t>(reader_.attribute_int("", name), INT32_MIN, INT32_MAX));
  };
  vocabulary_ = {id("vocab_size"), id("bos_id"), id("eos_id"),
                 reader_.attribute_string("", "tokenizer_hash")};
  check_sizes();
  check_offsets();
}

void Hdf5TokenFile::check_sizes() {
  const Hdf5Dataset& tokens = reader_.dataset(kTokens);
  const Hdf5Dataset& offsets = reader_.dataset(kOffsets);
  num_tokens_ = tokens.num_elements;
  num_documents_ = reader_.attribute_int("", "num_documents");
  type_ = token_type(vocabulary_.size);
  const bool vocabulary_ok = vocabulary_.size > 0 && vocabulary_.eos_id >= 0 &&
                             vocabulary_.eos_id < vocabulary_.size && vocabulary_.bos_id >= -1 &&
                             vocabulary_.bos_id < vocabulary_.size;
  const bool sizes_ok = tokens.shape.size() == 1 && offsets.shape.size() == 1 &&
                        num_documents_ >= 0 && offsets.num_elements - 1 == num_documents_;
  const bool types_ok = tokens.type == type_ && offsets.type == Hdf5Type::i64 &&
                        reader_.attribute_string("", "token_dtype") == name(type_);
  if (vocabulary_ok && sizes_ok && types_ok) return;
  throw data_error(absl::StrFormat(
      "%s: damaged token file: %d %s tokens of a vocabulary of %d, eos %d, %d documents, %d "
      "offsets: build the data again",
      path(), num_tokens_, name(tokens.type), vocabulary_.size, vocabulary_.eos_id, num_documents_,
      offsets.num_elements));
}

void Hdf5TokenFile::check_offsets() const {
  std::vector<int64_t> offsets;
  int64_t previous = -1;
  for (int64_t first = 0; first <= num_documents_; first += kOffsetsAtOnce) {
    offsets.resize(static_cast<size_t>(std::min(kOffsetsAtOnce, num_documents_ + 1 - first)));
    reader_.read<int64_t>(kOffsets, first, offsets);
    for (const int64_t offset : offsets) {
      if (offset <= previous || (previous < 0 && offset != 0)) previous = INT64_MAX;
      previous = std::max(previous, offset);
    }
  }
  if (previous != num_tokens_) {
    throw data_error(path() +
                     ": damaged token file: document_offsets do not rise from 0 to the "
                     "number of tokens: build the data again");
  }
}

void Hdf5TokenFile::read(int64_t first, std::span<int32_t> tokens) const {
  const auto count = static_cast<int64_t>(tokens.size());
  if (type_ == Hdf5Type::u16) {
    reader_.read(kTokens, first, count, reinterpret_cast<char*>(tokens.data()) + 2 * count);
    widen(tokens);
  } else {
    reader_.read(kTokens, first, count, tokens.data());
  }
  const auto limit = static_cast<uint32_t>(vocabulary_.size);
  uint32_t largest = 0;
  for (const int32_t token : tokens) largest = std::max(largest, static_cast<uint32_t>(token));
  if (largest >= limit) {
    throw data_error(
        absl::StrFormat("%s: damaged token file: token %d of a vocabulary of %d near position %d",
                        path(), largest, limit, first));
  }
}

int64_t Hdf5TokenFile::document_begin(int64_t document) const {
  int64_t offset = 0;
  reader_.read(kOffsets, document, 1, &offset);
  return offset;
}

}  // namespace caravan
