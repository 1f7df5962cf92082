#include "data/megatron_token_file.h"

#include <algorithm>
#include <cstring>
#include <string_view>
#include <vector>

#include "runtime/error.h"

namespace caravan {
namespace {

constexpr std::string_view kIndexMagic("MMIDIDX\0\0", 9);
constexpr uint64_t kIndexVersion = 1;
constexpr int64_t kIndexHeaderBytes = 9 + 8 + 1 + 8 + 8;
constexpr int64_t kElementsAtOnce = 16 << 10;  // elements of an index that are in memory
constexpr int64_t kDocumentsLookedAt = 64;     // for an eos at their ends

TokenType type_of_code(const std::string& path, uint8_t code) {
  switch (code) {
    case 1:
      return TokenType::u8;
    case 2:
      return TokenType::i8;
    case 3:
      return TokenType::i16;
    case 4:
      return TokenType::i32;
    case 5:
      return TokenType::i64;
    case 8:
      return TokenType::u16;
    case 6:
    case 7:
      throw data_error(path +
                       ": an index of floating-point numbers, which are no tokens: give "
                       "one that was made of text");
    default:
      throw data_error(
          absl::StrFormat("%s: damaged index: unknown type %d of its tokens: make it "
                          "again",
                          path, code));
  }
}

// Elements [0, count) of an array in a file, in pieces: visit(number of the first, piece).
template <typename Number, typename Visit>
void for_pieces(const ReadableFile& file, int64_t offset, int64_t count, const Visit& visit) {
  std::vector<Number> piece(static_cast<size_t>(std::min(count, kElementsAtOnce)));
  for (int64_t first = 0; first < count; first += kElementsAtOnce) {
    piece.resize(static_cast<size_t>(std::min(kElementsAtOnce, count - first)));
    file.read(offset + first * static_cast<int64_t>(sizeof(Number)),
              std::ssize(piece) * static_cast<int64_t>(sizeof(Number)), piece.data());
    visit(first, piece);
  }
}

template <typename Number>
Number number_at(const ReadableFile& file, int64_t offset) {
  Number number{};
  file.read(offset, sizeof(number), &number);
  return number;
}

}  // namespace

MegatronTokenFile::MegatronTokenFile(const std::string& path, const GivenVocabulary& given)
    : tokens_(path, ExitCode::data, Links::followed),
      index_(index_path(path), ExitCode::data, Links::followed) {
  read_header();
  vocabulary_ = complete_vocabulary(path, given);
  check_sequences();
  check_documents();
  check_modes();
  check_ends();
}

int64_t MegatronTokenFile::pointers_offset() const {
  return kIndexHeaderBytes + 4 * num_sequences_;
}
int64_t MegatronTokenFile::documents_offset() const {
  return kIndexHeaderBytes + 12 * num_sequences_;
}

void MegatronTokenFile::read_header() {
  const std::string& path = index_.path();
  const int64_t size = index_.size_bytes();
  char header[kIndexHeaderBytes] = {};
  index_.read(0, std::min(size, kIndexHeaderBytes), header);
  if (size < kIndexHeaderBytes || std::string_view(header, kIndexMagic.size()) != kIndexMagic) {
    throw data_error(
        absl::StrFormat("%s: is not an index of Megatron-LM, though it lies beside %s: "
                        "make it again, or move it away",
                        path, tokens_.path()));
  }
  const auto number = [&](size_t at) {
    uint64_t value = 0;
    std::memcpy(&value, header + at, sizeof(value));
    return value;
  };
  if (number(9) != kIndexVersion) {
    throw data_error(
        absl::StrFormat("%s: version %d of Megatron-LM's index; this program reads "
                        "version %d: make it again",
                        path, number(9), kIndexVersion));
  }
  type_ = type_of_code(path, static_cast<uint8_t>(header[17]));
  const uint64_t sequences = number(18);
  const uint64_t documents = number(26);
  const auto room = static_cast<uint64_t>(size - kIndexHeaderBytes);
  // Each number alone first, so that the sum cannot overflow.
  const bool fits = sequences <= room / 12 && documents >= 1 && documents <= room / 8;
  const uint64_t without_modes = fits ? 12 * sequences + 8 * documents : 0;
  if (!fits || (room != without_modes && room != without_modes + sequences)) {
    throw data_error(absl::StrFormat(
        "%s: damaged index: %d sequences and %d entries of documents do not make a file of %d "
        "bytes: copy or make it again",
        path, sequences, documents, size));
  }
  num_sequences_ = static_cast<int64_t>(sequences);
  num_documents_ = static_cast<int64_t>(documents) - 1;
  num_tokens_ = tokens_.size_bytes() / size_bytes(type_);
}

// That lengths and first bytes agree, from byte 0 to the end of the .bin without a gap.
void MegatronTokenFile::check_sequences() const {
  const std::string& path = index_.path();
  const int64_t bin_bytes = tokens_.size_bytes();
  const int64_t token_bytes = size_bytes(type_);
  int64_t end = 0;  // of the sequences so far, at most bin_bytes
  std::vector<int64_t> pointers;
  for_pieces<
      int32_t>(index_, kIndexHeaderBytes, num_sequences_, [&](int64_t first, const auto& lengths) {
    pointers.resize(lengths.size());
    index_.read(pointers_offset() + 8 * first, 8 * std::ssize(pointers), pointers.data());
    for (size_t i = 0; i < lengths.size(); ++i) {
      const int64_t sequence = first + static_cast<int64_t>(i);
      const int64_t pointer = pointers[i];
      if (lengths[i] < 0 || pointer < 0 || pointer > bin_bytes ||
          lengths[i] > (bin_bytes - pointer) / token_bytes) {
        throw data_error(absl::StrFormat(
            "%s: damaged index: sequence %d has %d tokens of %d bytes at byte %d, %s has %d bytes: "
            "copy or make both again",
            path, sequence, lengths[i], token_bytes, pointer, tokens_.path(), bin_bytes));
      }
      if (pointer != end) {
        throw data_error(absl::StrFormat(
            "%s: sequence %d begins at byte %d, the one before it ends at byte %d: only files "
            "whose sequences lie one after the other are read: make it again",
            path, sequence, pointer, end));
      }
      end += lengths[i] * token_bytes;
    }
  });
  if (end != bin_bytes) {
    throw data_error(absl::StrFormat(
        "%s: its sequences end at byte %d, but %s has %d bytes: copy or make both again", path, end,
        tokens_.path(), bin_bytes));
  }
}

// Documents may be empty, so that equal entries are right.
void MegatronTokenFile::check_documents() const {
  int64_t previous = 0;
  for_pieces<int64_t>(
      index_, documents_offset(), num_documents_ + 1, [&](int64_t first, const auto& entries) {
        for (size_t i = 0; i < entries.size(); ++i) {
          const int64_t document = first + static_cast<int64_t>(i);
          const bool ok = document == 0 ? entries[i] == 0 : entries[i] >= previous;
          previous = entries[i];
          if (ok && previous <= num_sequences_) continue;
          throw data_error(
              absl::StrFormat("%s: damaged index: entry %d of its documents is %d; they must rise "
                              "from 0 to the %d sequences: copy or make it again",
                              index_.path(), document, previous, num_sequences_));
        }
      });
  if (previous != num_sequences_) {
    throw data_error(absl::StrFormat(
        "%s: damaged index: its documents end at sequence %d of %d: copy or make it again",
        index_.path(), previous, num_sequences_));
  }
}

void MegatronTokenFile::check_modes() const {
  const int64_t offset = documents_offset() + 8 * (num_documents_ + 1);
  if (index_.size_bytes() == offset) return;
  for_pieces<int8_t>(index_, offset, num_sequences_, [&](int64_t first, const auto& modes) {
    const auto other = std::find_if(modes.begin(), modes.end(), [](int8_t mode) { return mode; });
    if (other == modes.end()) return;
    throw data_error(absl::StrFormat(
        "%s: sequence %d has the mode %d, which is not text: give a file of text only",
        index_.path(), first + (other - modes.begin()), *other));
  });
}

// Borders that training does not see would let it attend across them.
void MegatronTokenFile::check_ends() const {
  const int64_t looked_at = std::min(num_documents_, kDocumentsLookedAt);
  int64_t without_eos = 0;
  for (int64_t i = 0; i < looked_at; ++i) {
    const int64_t document =
        num_documents_ / looked_at * i + num_documents_ % looked_at * i / looked_at;
    const int64_t begin = document_begin(document);
    const int64_t end = document_begin(document + 1);
    int32_t last = vocabulary_.eos_id;
    if (end > begin) read(end - 1, {&last, 1});
    if (last != vocabulary_.eos_id) ++without_eos;
  }
  if (without_eos == 0) return;
  throw data_error(absl::StrFormat(
      "%s: %d of the %d documents that were looked at do not end with the eos token %d: make the "
      "file again with --append-eod, or give the data.eos_token_id that it has",
      path(), without_eos, looked_at, vocabulary_.eos_id));
}

void MegatronTokenFile::read(int64_t first, std::span<int32_t> tokens) const {
  check(first >= 0 && first <= num_tokens_ && std::ssize(tokens) <= num_tokens_ - first,
        "%s: tokens [%d, +%d) of %d", path(), first, tokens.size(), num_tokens_);
  read_tokens(tokens_, {0, type_, first}, vocabulary_.size, tokens);
}

// Checked again, as the file may have changed since it was opened.
int64_t MegatronTokenFile::document_begin(int64_t document) const {
  check(document >= 0 && document <= num_documents_, "%s: document %d of %d", path(), document,
        num_documents_);
  const auto sequence = number_at<int64_t>(index_, documents_offset() + 8 * document);
  if (sequence == num_sequences_) return num_tokens_;
  const bool ok = sequence >= 0 && sequence < num_sequences_;
  const int64_t pointer = ok ? number_at<int64_t>(index_, pointers_offset() + 8 * sequence) : -1;
  if (pointer < 0 || pointer > tokens_.size_bytes()) {
    throw data_error(index_.path() + ": was changed while it was read");
  }
  return pointer / size_bytes(type_);
}

}  // namespace caravan
